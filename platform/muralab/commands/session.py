"""What every command does around its own work: open the store, close dead runs, adopt or start a run, print notes."""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from muralab.config.environment import Environment
from muralab.console import build_console, build_progress
from muralab.registry.evaluation_count import record_evaluations
from muralab.tracking import RunWriter, Store, close_dead_runs, fingerprint_test_set, open_store, shown
from muralab.tracking.tags import Tag

if TYPE_CHECKING:
    import pandas as pd

NOT_A_DEVICE = "Research software, not a medical device: nothing here may be used to care for a patient."


@dataclass(kw_only=True)
class Session:
    """An open store with a writer of runs, a console, and the environment of one command."""

    kind: str
    """Of the command's run: tune, train, compare, evaluate, explore, promote or report."""
    environment: Environment
    store: Store
    writer: RunWriter
    console: Any
    _resume_shown: bool = field(default=False)

    @property
    def cache(self) -> Path:
        """Folder of everything that is not in MLflow."""
        return self.environment.cache

    @property
    def progress(self) -> Any:
        """Progress of long steps, see `build_progress`."""
        return build_progress(self.console)

    def print(self, *lines: str) -> None:
        """Print lines as they are, without markup and without wrapping."""
        for line in lines:
            self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def warn(self, notes: Iterable[str]) -> None:
        """Print each note."""
        for note in notes:
            self.console.print(f"Note: {note}", style="yellow", highlight=False, markup=False, soft_wrap=True)

    def start_run(self, *, name: str, part: str, tags: Mapping[str, str]) -> str:
        """Adopt the run that `mlflow run` has made for this command, or start one; returns its id."""
        named = {**tags, Tag.RUN_NAME: name}
        if self.environment.run_id:
            return self.writer.adopt_run(self.environment.run_id, named, kind=self.kind)
        experiment = self.environment.experiment or f"mura-{part}"
        return self.writer.run_id(self.writer.start_run(experiment=experiment, kind=self.kind, name=name, tags=named))

    def resume_run(self, run_id: str, tags: Mapping[str, str]) -> str:
        """Resume an interrupted run; the run that `mlflow run` has made, if another, names it and ends."""
        own = self.environment.run_id
        if own and own != run_id:
            self.writer.adopt_run(own, {Tag.RESUMES: run_id, **tags}, kind="resume")
            self.writer.finish(own)  # `mlflow run` ends it again when the command ends
        self.writer.resume_run(run_id, {Tag.KIND: self.kind})
        return run_id

    @contextmanager
    def resumable(self, command: str) -> Iterator[None]:
        """Print the command that resumes the work where it is interrupted or fails.

        A store that went away, a full disk, a bug: plan and checkpoints are on disk, whatever it was.
        """
        try:
            yield
        except KeyboardInterrupt:
            self.interrupted(command)
            raise
        except BaseException:
            self._show_resume("Stopped by the following error. Once it is fixed, resume with:", command)
            raise

    def interrupted(self, command: str) -> None:
        """Print how to resume and end the open runs, before anything else is taken down: that may fail."""
        self._show_resume("Interrupted. Resume with:", command)
        self.writer.end_open_runs("KILLED")

    def _show_resume(self, why: str, command: str) -> None:
        if not self._resume_shown:
            self._resume_shown = True
            with contextlib.suppress(OSError):  # a lost terminal must not stop the clean-up
                self.print(f"\n{why}\n  {command}")

    def count_evaluations(self, part: str, test: pd.DataFrame) -> None:
        """Count what was evaluated on a test set with the registered model of its body part, if that exists.

        Args:
            part: the body part.
            test: predictions of the test set, by any model.
        """
        self.writer.flush()  # the evaluations are found in the store
        record_evaluations(self.store, f"mura-{part}", fingerprint_test_set(test))

    def print_run(self, run_id: str, title: str = "Run") -> None:
        """Print a run's id and how to browse it."""
        self.print(f"{title} {run_id}:", f"  {ui_command(self.store.uri)}", NOT_A_DEVICE)


@contextmanager
def open_session(kind: str, environment: Environment) -> Iterator[Session]:
    """Open the store, close the runs of dead processes, and close everything in order at the end.

    Raises:
        StoreError: the store cannot be reached.
    """
    console = build_console()
    store = open_store(environment.tracking_uri)
    closed = close_dead_runs(store, claim=environment.run_id)
    if closed:
        console.print(f"Closed {len(closed)} runs whose process had died.")
    with RunWriter(store) as writer:
        yield Session(kind=kind, environment=environment, store=store, writer=writer, console=console)


def ui_command(uri: str) -> str:
    """How to browse a store."""
    if uri.startswith("http"):
        return f"open {shown(uri)}"
    given = shlex.quote(uri) if shown(uri) == uri else '"$MLFLOW_TRACKING_URI"'  # keep a password out of the terminal
    return f"{shlex.quote(_program('mlflow'))} ui --backend-store-uri {given} --host 127.0.0.1 --port 5000"


def _program(name: str) -> str:
    path = Path(sys.executable).parent / name
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)

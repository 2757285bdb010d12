"""What every command does around its own work: open the store, close dead runs, adopt or start a run, print notes."""

from __future__ import annotations

import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from muralab.config.environment import Environment
from muralab.console import build_console, build_progress
from muralab.ending import set_last_lines
from muralab.errors import SettingsError
from muralab.registry.evaluation_count import record_evaluations
from muralab.tracking import RunWriter, Store, close_dead_runs, fingerprint_test_set, open_store, shown
from muralab.tracking.tags import Tag
from muralab.tune.leftovers import find_interrupted
from muralab.tune.resume import LATEST, RUN_ID
from muralab.tune.sweep_lock import sweep_lock

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
    stack: ExitStack = field(default_factory=ExitStack)
    """Closed at the end, after the runs."""
    _is_closing: bool = field(default=False)

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
        """Print the command that resumes the work, as the last line of this process, if it is interrupted or fails.

        A store that went away, a full disk, a bug: plan and checkpoints are on disk, whatever it was.
        """
        try:
            yield
        except KeyboardInterrupt:
            self.interrupted(command)
            raise
        except BaseException:
            set_last_lines("Once it is fixed, resume with:", f"  {command}")
            raise

    def interrupted(self, command: str) -> None:
        """End the open runs; how to resume is printed even if that hangs."""
        set_last_lines("Interrupted. Resume with:", f"  {command}")
        if not self._is_closing:
            self._is_closing = True
            with suppress(OSError):  # a lost terminal must not stop the clean-up
                self.print("\nInterrupted: closing the runs.")
        self.writer.end_open_runs("KILLED")

    def hold(self, folder: Path, run_id: str) -> None:
        """Lock a search's folder until this session ends.

        Raises:
            SettingsError: another process works on it.
        """
        self.stack.enter_context(sweep_lock(folder, run_id))

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
def open_session(kind: str, environment: Environment, *, resuming: str | None = None) -> Iterator[Session]:
    """Open the store, close the runs of dead processes, and close everything in order at the end.

    Args:
        kind: of the command's run.
        environment: of this process.
        resuming: the run that this command resumes.

    Raises:
        StoreError: the store cannot be reached.
    """
    console = build_console()
    store = open_store(environment.tracking_uri)
    closed = close_dead_runs(store, claim=environment.run_id)
    if closed:
        console.print(f"Closed {len(closed)} runs whose process had died.")
    with ExitStack() as stack, RunWriter(store) as writer:
        session = Session(kind=kind, environment=environment, store=store, writer=writer, console=console, stack=stack)
        for one in find_interrupted(environment.cache) if closed else []:
            if one.run_id in closed and resuming not in (one.run_id, LATEST):
                session.print(f"The search {one.run_id} was killed. Resume it with:", f"  {one.command}")
        yield session


def find_resumed(wanted: str, session: Session, kind: str) -> str:
    """The run id of the search to resume, with its lock held.

    Args:
        wanted: a run id, or `latest`.
        session: whose cache holds the plans.
        kind: of the search: tune or train.

    Raises:
        SettingsError: there is no interrupted search, or another process works on it.
    """
    run_id = wanted
    if wanted == LATEST:
        found = [one.run_id for one in find_interrupted(session.cache) if one.kind == kind]
        if not found:
            raise SettingsError(f"resume={LATEST}: no interrupted `{kind}` is left in {session.cache / 'sweeps'}.")
        run_id = found[0]
    folder = session.cache / "sweeps" / run_id
    if RUN_ID.fullmatch(run_id) and folder.is_dir():
        session.hold(folder, run_id)
    return run_id


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

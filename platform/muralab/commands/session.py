"""What every command does around its own work: open the store, close dead runs, adopt or start a run, print notes."""

from __future__ import annotations

import hashlib
import logging
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from muralab.commands.keepalive import Keepalive
from muralab.config.commands import TrainConfig, TuneConfig
from muralab.config.environment import Environment
from muralab.console import build_console, build_progress
from muralab.data.name_keys import NAMES_FOLDER
from muralab.ending import set_last_lines
from muralab.errors import SettingsError, StoreError, SweepTakenError, TrialsFailedError, numbered
from muralab.paths import in_checkout
from muralab.redaction import redact
from muralab.registry.evaluation_count import record_evaluations
from muralab.tracking import (
    RunWriter,
    Store,
    close_dead_runs,
    experiment_of,
    local_artifact,
    open_store,
)
from muralab.tracking.access import require_access
from muralab.tracking.address import sqlite_path
from muralab.tracking.failures import is_forbidden
from muralab.tracking.journal import Journal
from muralab.tracking.moved import follow_moved_store
from muralab.tracking.outage import LOG
from muralab.tracking.pages import address, run_page
from muralab.tracking.platform_version import uncommitted_changes
from muralab.tracking.projects import close_empty_run, take_run
from muralab.tracking.refusals import Refusal, refusal_lines
from muralab.tracking.replay import replay_journals
from muralab.tracking.runs import DEFAULT_EXPERIMENT, experiment_name, unknown_own_run, why_stale
from muralab.tracking.tags import Tag
from muralab.tune.folders import SWEEPS
from muralab.tune.leftovers import find_interrupted
from muralab.tune.resume import LATEST, RUN_ID
from muralab.tune.sweep_lock import sweep_lock
from muralab.tune.sweep_owner import SweepOwner
from muralab.wording import once

Resumable = TypeVar("Resumable", TuneConfig, TrainConfig)
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
    owners: dict[str, SweepOwner] = field(default_factory=dict)
    """Run -> the claim on its search in a storage, which is given up when this session ends."""
    _is_closing: bool = field(default=False)
    _held: set[Path] = field(default_factory=set)
    _reasons: set[str] = field(default_factory=set)
    """For missing intervals, as far as they were printed."""

    @property
    def cache(self) -> Path:
        """Folder of everything that is not in MLflow."""
        return self.environment.cache

    @property
    def progress(self) -> Any:
        """Progress of long steps, see `build_progress`."""
        return build_progress(self.console)

    def print(self, *lines: str) -> None:
        """Print lines without markup and without wrapping; the reason for a missing interval once."""
        for line in lines:
            self.console.print(once(line, self._reasons), highlight=False, markup=False, soft_wrap=True)

    def warn(self, notes: Iterable[str]) -> None:
        """Print each note."""
        for note in notes:
            print_note(self.console, note)

    def start_run(self, *, name: str, part: str, tags: Mapping[str, str], parent: str | None = None) -> str:
        """Adopt the run that `mlflow run` has made for this command, or start one; below a parent always a new one.

        Returns:
            Its id.
        """
        if parent is not None:
            return self.writer.run_id(self.writer.start_run(kind=self.kind, name=name, tags=tags, parent=parent))
        chosen = self._chosen_experiment()
        run_id = take_run(
            self.store,
            self.writer,
            given=self.environment.run_id,
            experiment=chosen or f"mura-{part}",
            is_chosen=chosen is not None,
            kind=self.kind,
            name=name,
            tags=tags,
        )
        self._log_uncommitted(run_id)
        return run_id

    def _chosen_experiment(self) -> str | None:
        """The experiment that the user has named; None: the part's."""
        own = self.environment
        if own.experiment is None and own.experiment_id and not own.run_id:  # `mlflow run` sets it too, chosen or not
            return experiment_name(self.store, own.experiment_id)
        return own.experiment

    def require_access(self, part: str, *, registers: bool = False, resumed: str | None = None) -> None:
        """Make sure, before anything slow, that this user may write what a command on a part will write.

        Args:
            part: the body part.
            registers: whether a model will be registered.
            resumed: the run that is resumed, in its own experiment; None: a new one.

        Raises:
            StoreError: the experiment or the registered model is another user's.
            SettingsError: no registered model can be called after the part.
        """
        chosen, own = None if resumed else self._chosen_experiment(), resumed or self.environment.run_id
        if chosen is None and own is not None:  # in the run's own, or that which `mlflow run` was given, if any
            given = experiment_name(self.store, experiment_of(self.store, own))
            chosen = None if given == DEFAULT_EXPERIMENT and not resumed else given
        model = f"mura-{part}" if registers else None
        require_access(self.store, chosen or f"mura-{part}", model, resumed=resumed is not None)

    def _log_uncommitted(self, run_id: str) -> None:
        """Log how the code of this checkout differs from its commit, which the run is tagged with."""
        if changes := uncommitted_changes():
            digest = hashlib.blake2b(changes.encode(), digest_size=6).hexdigest()
            self.writer.log_text(run_id, changes, f"platform/uncommitted-{digest}.diff")

    def close_own_run(self, name: str, note: str) -> None:
        """End the run that `mlflow run` has made for a command that writes nothing into it, with a name and a note."""
        if self.environment.run_id:
            close_empty_run(self.store, self.environment.run_id, name, note)

    def resume_run(self, run_id: str, *, nested: bool = False, accepted: str = "") -> str:
        """Resume an interrupted run; the run that `mlflow run` has made, if another, links to it.

        Args:
            run_id: of the interrupted run.
            nested: whether it is below one that this command writes.
            accepted: what has changed since the run started, as sentences.
        """
        own = self.environment.run_id
        if own and own != run_id and not nested:
            page = run_page(experiment_of(self.store, run_id), run_id)
            self.close_own_run(f"{self.kind}, resumed", f"This command resumed [the run {run_id}]({page}).")
        self.writer.resume_run(run_id, {Tag.KIND: self.kind, **({Tag.ACCEPTED_CHANGES: accepted} if accepted else {})})
        self._log_uncommitted(run_id)
        return run_id

    @contextmanager
    def resumable(self, command: str, run_id: str | None = None) -> Iterator[None]:
        """Print the command that resumes the work, as the last line of this process, if it is interrupted or fails.

        It is noted in the run, too. A store that went away, a full disk, a bug: plan and checkpoints are on disk,
        whatever it was.
        """
        try:
            yield
        except KeyboardInterrupt:
            self.interrupted(command, run_id)
            raise
        except SweepTakenError:
            self.writer.leave_open_runs()
            raise
        except TrialsFailedError:  # the run has its results, and its description says which trials failed
            set_last_lines("Once it is fixed, resume with:", f"  {command}")
            raise
        except BaseException:
            set_last_lines("Once it is fixed, resume with:", f"  {command}")
            self._note_resume(run_id, "Stopped by an error", command)
            raise

    def interrupted(self, command: str, run_id: str | None = None) -> None:
        """End the open runs; how to resume is printed even if that hangs."""
        set_last_lines("Interrupted. Resume with:", f"  {command}")
        if not self._is_closing:
            self._is_closing = True
            with suppress(OSError):  # a lost terminal must not stop the clean-up
                self.print("\nInterrupted: closing the runs.")
        self._note_resume(run_id, "Interrupted", command)
        self.writer.end_open_runs("KILLED")

    def _note_resume(self, run_id: str | None, how: str, command: str) -> None:
        if run_id is not None:
            with suppress(StoreError):  # what stopped the work may be the store
                self.writer.set_tags(run_id, {Tag.NOTE: f"**{how}.** Resume it with `{command}`."})

    def hold(self, folder: Path, run_id: str) -> None:
        """Lock a search's folder until this session ends.

        Raises:
            SettingsError: another process works on it.
        """
        if folder not in self._held:
            self._held.add(folder)
            self.stack.enter_context(sweep_lock(folder, run_id))

    def hold_folder_of(self, run_id: str) -> None:
        """Lock the folder of a search that is to be resumed, if it has one.

        Raises:
            SettingsError: another process works on it.
        """
        folder = self.cache / SWEEPS / run_id
        if RUN_ID.fullmatch(run_id) and folder.is_dir():
            self.hold(folder, run_id)

    def count_evaluations(self, part: str, fingerprint: str) -> None:
        """Count what was evaluated on a test set with the registered model of its body part, if that exists.

        Args:
            part: the body part.
            fingerprint: of the test set.
        """
        self.writer.flush()  # the evaluations are found in the store
        try:
            record_evaluations(self.store, f"mura-{part}", fingerprint)
        except StoreError as error:
            if not is_forbidden(error):
                raise
            self.warn(
                [
                    f"The registered model mura-{part} does not count this evaluation on the test set, since this user "
                    "may only read it: it counts as long as its run is not deleted."
                ]
            )

    def print_run(self, run_id: str, title: str = "Run") -> None:
        """Print a run's id, the address of its page and, of a local store, the file of its report."""
        page = run_page(experiment_of(self.store, run_id), run_id)
        report = local_artifact(self.store, run_id, "report.html")
        file = [] if report is None else [f"  its report: {shortest(report)}"]
        self.print(f"{title} {run_id}:", *page_lines(self.store, page), *file, NOT_A_DEVICE)


@contextmanager
def open_session(kind: str, environment: Environment, *, resuming: str | None = None) -> Iterator[Session]:
    """Open the store, write what earlier commands kept, close dead runs; at the end close everything in order.

    Args:
        kind: of the command's run.
        environment: of this process.
        resuming: the run that this command resumes.

    Raises:
        StoreError: the store cannot be reached.
    """
    console = build_console()
    with ExitStack() as stack, announcing(console), Keepalive(console):
        store, environment = open_own_store(environment)
        if moved := follow_moved_store(store):
            print_note(console, moved)
        replayed = replay_journals(store, environment.journals)
        closed = close_dead_runs(store, claim=environment.run_id)
        journal = create_journal(environment, store, kind)
        writer = RunWriter(store, journal=journal, on_refused=lambda refusals: report_refusals(refusals, journal))
        session = Session(kind=kind, environment=environment, store=store, writer=writer, console=console, stack=stack)
        session.warn(str(one) for one in replayed)
        if closed:
            console.print(f"Closed {len(closed)} runs whose process had died.")
        for one in find_interrupted(environment.cache) if closed else []:
            if one.run_id in closed and resuming not in (one.run_id, LATEST):
                session.print(f"The search {one.run_id} was killed. Resume it with:", f"  {one.command}")
        with writer:
            yield session


@contextmanager
def announcing(console: Any) -> Iterator[None]:
    """Print what happens to the store meanwhile: that it does not answer, that it is back."""
    handler = _Announcer(console)
    LOG.addHandler(handler)
    propagates, LOG.propagate = LOG.propagate, False
    try:
        yield
    finally:
        LOG.removeHandler(handler)
        LOG.propagate = propagates


class _Announcer(logging.Handler):
    def __init__(self, console: Any) -> None:
        super().__init__(logging.INFO)
        self._console = console

    def emit(self, record: logging.LogRecord) -> None:
        """Print a record as a note; a terminal that is gone must not stop the thread that writes."""
        with suppress(OSError, ValueError):
            print_note(self._console, record.getMessage())


def print_note(console: Any, note: str) -> None:
    """Print a note in yellow, without wrapping."""
    console.print(f"Note: {note}", style="yellow", highlight=False, markup=False, soft_wrap=True)


def open_own_store(environment: Environment) -> tuple[Store, Environment]:
    """Open a command's store; a run that the environment names but that has ended or is another's is left alone.

    Raises:
        StoreError: the store cannot be used, or does not hold the run.
    """
    path = sqlite_path(environment.tracking_uri)
    if environment.run_id and path is not None and not path.exists():  # it would be created, empty
        raise unknown_own_run(environment.tracking_uri, environment.run_id)
    store = open_store(environment.tracking_uri, registry_uri=environment.registry_uri)
    store = replace(store, keys=environment.cache / NAMES_FOLDER)
    stale = why_stale(store, environment.run_id) if environment.run_id else ""
    if stale:
        LOG.warning(
            "MLFLOW_RUN_ID names the run %s, which %s: this command starts a run of its own.", environment.run_id, stale
        )
        environment = replace(environment, run_id=None)
    return store, environment


def create_journal(environment: Environment, store: Store, kind: str) -> Journal | None:
    """The command's journal; None, with a note, where it cannot be written."""
    try:
        return Journal.create(environment.journals, store_uri=store.uri, command=kind)
    except OSError as error:
        LOG.warning(
            "The journal cannot be written to %s (%s): what the tracking store does not take at once is kept in memory "
            "only.",
            environment.journals,
            error.strerror or error,
        )
        return None


def report_refusals(refusals: Sequence[Refusal], journal: Journal | None) -> None:
    """Print what the store refused, and what to do about it."""
    lines = refusal_lines(refusals)
    text = numbered(f"The tracking store refused {len(refusals)} items; everything else is written.", lines)
    kept = "" if journal is None else f"\nThey are kept in {journal.folder}: once that is fixed, `muralab sync`."
    LOG.warning("%s%s", text, kept)


def with_latest(config: Resumable, session: Session) -> Resumable:
    """The options of a command, `resume=latest` replaced by the run of the search that was interrupted last.

    Raises:
        SettingsError: there is none.
    """
    if config.resume != LATEST:
        return config
    found = [one.run_id for one in find_interrupted(session.cache) if one.kind == session.kind]
    if not found:
        raise SettingsError(f"resume={LATEST}: no interrupted `{session.kind}` is left in {session.cache / 'sweeps'}.")
    return replace(config, resume=found[0])


def page_lines(store: Store, page: str) -> list[str]:
    """How to open a page of MLflow: its address and, for a local store, the command that serves it."""
    if store.is_remote:
        return [f"  {address(store, page)}"]
    return [f"  {address(store, page)}", f"  opens while this runs in another terminal: {ui_command(store.uri)}"]


def ui_command(uri: str) -> str:
    """The command that serves the pages of a local store."""
    if in_checkout():
        return "make ui"  # with the same environment, so of the same store
    given = shlex.quote(uri) if redact(uri) == uri else '"$MLFLOW_TRACKING_URI"'  # keep a password out of the terminal
    return (
        f"MLFLOW_DISABLE_TELEMETRY=true {shlex.quote(_program('mlflow'))} ui --backend-store-uri {given} "
        "--host 127.0.0.1 --port 5000 --workers 1"
    )


def _program(name: str) -> str:
    return shortest(Path(sys.executable).parent / name)


def shortest(path: Path) -> str:
    """A path from the working directory, if it is below that."""
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)

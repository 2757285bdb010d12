"""A search whose files are in a storage: claimed for a command, brought to its machine, opened."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from muralab.commands.session import Session
from muralab.config.parsing import LOCAL
from muralab.errors import StoreError
from muralab.storage import Storage
from muralab.tracking import read_run
from muralab.tune.folders import SWEEPS, Folders
from muralab.tune.resume import FOLDS_FILE, RUN_ID
from muralab.tune.sweep_owner import SweepOwner
from muralab.tune.sweep_storage import SweepStorage, planned_storage


def claim(stored: SweepStorage, session: Session, *, is_new: bool = False) -> SweepStorage:
    """The same search with the claim of a command on it, which is held until its session ends.

    Args:
        stored: the search in its storage.
        session: of the command.
        is_new: whether the search has just been started.

    Raises:
        SettingsError: another command works on it.
        StorageError: the storage cannot be used.
    """
    run_id = stored.folders.sweep.name
    if run_id not in session.owners:
        owner = SweepOwner(stored.storage, stored.name, run_id, is_new=is_new)
        session.owners[run_id] = session.stack.enter_context(owner)
    return replace(stored, owner=session.owners[run_id])


def reach(uri: str) -> Storage:
    """A storage that answers and can be written: what is not found in it then is nowhere else either.

    Raises:
        SettingsError: nothing opens such a URI.
        StorageError: it does not exist, refuses, or does not answer within seconds.
    """
    storage = Storage(uri)
    storage.check()
    return storage


def open_storage(options: Any, folders: Folders, session: Session, *, is_new: bool) -> SweepStorage | None:
    """A search's part of the storage that its options name, claimed; None: its files are in its own folders alone."""
    uri = storage_of(options)
    return None if uri is None else claim(SweepStorage(storage=Storage(uri), folders=folders), session, is_new=is_new)


def storage_of(options: Any) -> str | None:
    """The storage that the options of a command name; None without one, or for a command that has none."""
    return getattr(options, "storage", None)


def bring_here(run_id: str, given: str | None, session: Session) -> None:
    """Claim an interrupted search and bring it to this machine, if a storage holds it.

    Args:
        run_id: of the search.
        given: its storage; None: that of its plan on this machine, if there is one.
        session: of the command that resumes it.

    Raises:
        SettingsError: another command works on it.
        StoreError: it has ended on another machine.
        StorageError: the storage cannot be used.
    """
    folders = folders_of(run_id, session)
    uri = given or planned_storage(folders)
    if uri is None or not RUN_ID.fullmatch(run_id):
        return
    stored = SweepStorage(storage=reach(uri), folders=folders)
    if not stored.is_known and not folders.plan.is_file():
        return
    claim(stored, session)
    if stored.is_known:
        stored.restore()
    elif uri == planned_storage(folders):  # in another one, nothing of a sweep with failed trials is to be expected
        refuse_ended(run_id, stored.storage, folders.plan, session)


def fetch_folds(run_id: str, given: str | None, session: Session) -> None:
    """Claim an interrupted command over folds and bring its options to this machine, if a storage holds them.

    Raises:
        SettingsError: another command works on it.
        StorageError: the storage cannot be used.
    """
    folders = folders_of(run_id, session)
    file = folders.sweep / FOLDS_FILE
    if given is None or file.is_file() or not RUN_ID.fullmatch(run_id):
        return
    stored = SweepStorage(storage=reach(given), folders=folders)
    if stored.storage.exists(f"{stored.name}/{file.name}"):
        claim(stored, session)  # first: a command that is refused leaves nothing here that looks interrupted
        stored.storage.download(f"{stored.name}/{file.name}", file)


def moved_options(config: Any, planned: Any) -> dict[str, Any]:
    """Where the cluster and the storage of a resumed command are now, as far as its user says so."""
    moved = {name: getattr(config, name) for name in ("ray_address", "storage") if hasattr(planned, name)}
    return {name: value for name, value in moved.items() if value not in (None, LOCAL)}


def folders_of(run_id: str, session: Session) -> Folders:
    """The folders of a run on this machine."""
    return Folders(cache=session.cache, sweep=session.cache / SWEEPS / run_id)


def refuse_ended(run_id: str, storage: Storage, file: Path, session: Session) -> None:
    """Refuse what another machine has brought to its end, whatever is left of it here.

    Args:
        run_id: of the search, or of the run above several folds.
        storage: that holds it.
        file: what `resume` reads here, and the storage under the same name until the search ends.
        session: of the command that resumes it.

    Raises:
        StoreError: its run has finished, and the storage has no such file.
    """
    if storage.exists(f"{SWEEPS}/{run_id}/{file.name}"):
        return
    if read_run(session.store, run_id, predictions=False).status == "FINISHED":
        text = (
            f"resume={run_id}: this sweep has ended, on another machine: nothing of it is left in {storage.uri}. What "
            f"is left of it at {file.parent} is out of date: remove that folder."
        )
        if file.name != FOLDS_FILE:
            text += (
                " It can then be extended (trials=+8). If its files were removed from the storage instead, with trials "
                "that failed, keep that folder and give another storage."
            )
        raise StoreError(text)

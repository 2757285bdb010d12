"""A local store that was moved: its database names every run's artifacts by an absolute path."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from urllib.parse import unquote, urlsplit

from muralab.tracking.store import Store

ARTIFACTS = "mlruns"
"""Folder beside the database, where a local store keeps artifacts."""
LOCATIONS = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "source"),
    ("model_versions", "storage_location"),
)
"""Tables and columns of MLflow's database that hold such paths."""


def follow_moved_store(store: Store) -> str:
    """Let a database find its artifacts again after it was moved with its folder `mlruns`, as part of a checkout.

    Nothing is changed while the old folder exists: then this may be a copy of a store that is still in use.

    Returns:
        What was done, as a sentence; empty if nothing was.
    """
    database = store.sqlite_path
    if database is None or not (database.parent / ARTIFACTS).is_dir():
        return ""
    try:
        with closing(sqlite3.connect(database, timeout=10)) as connection, connection:
            moved = [old for old in _old_folders(connection) if _has_moved(connection, old, database.parent)]
            for old in moved:
                _replace(connection, old, database.parent)
    except sqlite3.Error:  # the store itself will report it
        return ""
    names = ", ".join(str(old) for old in moved)
    return f"The store was moved from {names}: its runs now find their artifacts in {database.parent}." if moved else ""


def _old_folders(connection: sqlite3.Connection) -> list[Path]:
    """Every folder in which the experiments' artifacts are said to be."""
    rows = connection.execute("SELECT DISTINCT artifact_location FROM experiments").fetchall()
    paths = [_local_path(location or "") for (location,) in rows]
    return sorted({path.parents[1] for path in paths if path is not None and path.parent.name == ARTIFACTS})


def _local_path(location: str) -> Path | None:
    parts = urlsplit(location)
    if parts.scheme not in ("", "file") or not parts.path.startswith("/"):
        return None
    return Path(unquote(parts.path) if parts.scheme else location)


def _has_moved(connection: sqlite3.Connection, old: Path, new: Path) -> bool:
    """Whether artifacts of a folder are gone, and those of the same experiments are beside the database."""
    if old == new or (old / ARTIFACTS).exists():
        return False
    rows = connection.execute("SELECT artifact_location FROM experiments").fetchall()
    paths = [_local_path(location or "") for (location,) in rows]
    return any(
        (new / ARTIFACTS / path.name).is_dir() for path in paths if path is not None and path.parents[1:2] == (old,)
    )


def _replace(connection: sqlite3.Connection, old: Path, new: Path) -> None:
    for table, column in LOCATIONS:
        known = {row[1] for row in connection.execute(f'PRAGMA table_info("{table}")')}
        if column not in known:
            continue
        for before, after in ((old.as_uri(), new.as_uri()), (str(old), str(new))):
            connection.execute(
                f'UPDATE "{table}" SET "{column}" = ? || substr("{column}", ?) WHERE substr("{column}", 1, ?) = ?',
                (f"{after}/", len(before) + 2, len(before) + 1, f"{before}/"),
            )

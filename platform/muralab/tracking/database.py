"""The file of a local database: created complete or not at all, and one that was left incomplete is replaced."""

from __future__ import annotations

import contextlib
import logging
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock

from muralab.errors import StoreError
from muralab.tracking.failures import is_known_revision

SQLITE_HEADER = b"SQLite format 3"
LOG = logging.getLogger("muralab.tracking")
CONTENT = ("runs", "registered_models", "logged_models")
"""Tables of which a database that was never used has no row."""


@contextmanager
def open_database(path: Path) -> Iterator[None]:
    """Create the tables of a database if it has none, and hold its lock: first openings at the same time crash.

    The tables are made in a file beside it, which is then renamed: MLflow makes them in some 60 steps, and a process
    that is killed between two of them leaves a database that no later one can open.

    Args:
        path: of the database's file.

    Raises:
        StoreError: its folder is missing, or the file is not a database.
        OSError: the folder is not writable.
    """
    if not path.parent.is_dir():
        raise StoreError(
            f"The tracking store sqlite:///{path} cannot be created: the folder {path.parent} does not exist. "
            "Create it, or give another file with MLFLOW_TRACKING_URI=sqlite:///<file>."
        )
    if _has_content(path) and not _has_sqlite_header(path):
        raise StoreError(
            f"The tracking store sqlite:///{path} cannot be opened: the file is not a SQLite database. "
            "Give another file with MLFLOW_TRACKING_URI=sqlite:///<file>."
        )
    with FileLock(path.parent / f".{path.name}.lock"), _quiet_migrations():
        if _has_content(path) and is_incomplete(path):
            _set_aside(path)
        if not _has_content(path):
            _create(path)
        yield


def _has_content(path: Path) -> bool:
    return path.is_file() and path.stat().st_size > 0


def _has_sqlite_header(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(len(SQLITE_HEADER)) == SQLITE_HEADER


def is_incomplete(path: Path) -> bool:
    """Whether a database is MLflow's, was left while its tables were made, and holds no run and no model."""
    with contextlib.suppress(sqlite3.Error), contextlib.closing(_connect(path)) as database:
        tables = {name for (name,) in database.execute("select name from sqlite_master where type = 'table'")}
        if "experiments" not in tables:
            return False
        if any(database.execute(f"select 1 from {name} limit 1").fetchone() for name in CONTENT if name in tables):
            return False
        return any(name.startswith("_alembic_tmp_") for name in tables) or not _is_complete(_version(database, tables))
    return False


def _connect(path: Path) -> sqlite3.Connection:
    """Open it for writing: what a killed process has begun is rolled back first."""
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True, timeout=5)


def _version(database: sqlite3.Connection, tables: set[str]) -> str:
    """The last step that was made of those that make the tables; empty for none."""
    row = (
        database.execute("select version_num from alembic_version").fetchone() if "alembic_version" in tables else None
    )
    return str(row[0]) if row else ""


def _is_complete(version: str) -> bool:
    """Whether it is the last step, or one of a newer MLflow."""
    from mlflow.store.db.utils import _get_latest_schema_revision

    return version == _get_latest_schema_revision() or (version != "" and not is_known_revision(version))


def _set_aside(path: Path) -> None:
    kept = path.with_name(f"{path.name}.incomplete-{time.strftime('%Y%m%d-%H%M%S')}")
    path.replace(kept)
    LOG.warning("The database %s was left incomplete and held no run; it is now %s.", path, kept.name)


def _create(path: Path) -> None:
    from mlflow.store.db.utils import _initialize_tables, create_sqlalchemy_engine

    new = path.with_name(f".{path.name}.new")
    _remove(new)  # of a process that was killed
    try:
        engine = create_sqlalchemy_engine(f"sqlite:///{new}")
        try:
            _initialize_tables(engine)
        finally:
            engine.dispose()
        new.replace(path)
    finally:
        _remove(new)


def _remove(path: Path) -> None:
    for one in (path, path.with_name(f"{path.name}-journal"), path.with_name(f"{path.name}-wal")):
        one.unlink(missing_ok=True)


@contextmanager
def _quiet_migrations() -> Iterator[None]:
    """Suppress the hundred lines that the migrations of a new database log."""
    loggers = [logging.getLogger(name) for name in ("alembic", "mlflow.store.db.utils")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(max(logging.WARNING, logger.level))
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)

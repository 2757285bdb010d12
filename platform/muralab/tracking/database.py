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
        half_made = any(name.startswith("_alembic_tmp_") for name in tables) or not _has_version(database, tables)
        used = any(database.execute(f"select 1 from {name} limit 1").fetchone() for name in CONTENT if name in tables)
        return half_made and not used
    return False


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=5)


def _has_version(database: sqlite3.Connection, tables: set[str]) -> bool:
    return "alembic_version" in tables and database.execute("select 1 from alembic_version").fetchone() is not None


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

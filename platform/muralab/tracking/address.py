"""The address of a tracking store, absolute."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlsplit

from muralab.errors import StoreError
from muralab.paths import expand

EXPECTED = "Expected such as http://host:5000, or sqlite:///mlflow.db for a file."


def absolute_uri(uri: str | None = None) -> str:
    """A tracking URI that does not depend on the working directory.

    Args:
        uri: of a user or of MLFLOW_TRACKING_URI; None or empty: `mlflow.db` in the working directory.

    Raises:
        StoreError: an in-memory database, which no other process could read; or not an address.
    """
    uri = (uri or "").strip() or "sqlite:///mlflow.db"
    try:
        scheme, host = urlsplit(uri)[:2]
    except ValueError as error:
        raise StoreError(f"The tracking store's address cannot be read: {error}. {EXPECTED}") from error
    if scheme in ("http", "https") and not host:
        raise StoreError(f"The tracking store's address {uri} names no host. {EXPECTED}")
    if scheme == "sqlite":
        return _absolute_sqlite(uri)
    if scheme == "file":
        return Path(unquote(urlsplit(uri).path or uri.removeprefix("file:"))).absolute().as_uri()
    if scheme or uri in ("databricks", "databricks-uc", "uc"):
        return uri.rstrip("/")
    path = expand(uri).absolute()
    return f"sqlite:///{path}" if path.suffix in (".db", ".sqlite", ".sqlite3") else path.as_uri()


def _absolute_sqlite(uri: str) -> str:
    location, question, query = uri.removeprefix("sqlite:").partition("?")
    name = location.removeprefix("///")
    if location in ("", "//") or name in ("", ":memory:"):
        raise StoreError(
            f"The tracking store '{uri}' is in memory: no other process could read its runs. "
            "Give a file, for example sqlite:///mlflow.db."
        )
    return f"sqlite:///{Path(name).absolute()}{question}{query}"


def sqlite_path(uri: str) -> Path | None:
    """The database's file, or None where the store is not a sqlite file."""
    if not uri.startswith("sqlite:///"):
        return None
    return Path(uri.removeprefix("sqlite:///").partition("?")[0])

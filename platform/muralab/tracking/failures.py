"""What a failure of a tracking store means: whether a retry may help, why it happened, and how to fix it."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import urlsplit

from muralab.errors import MuraLabError, StoreError, StoreUnavailableError
from muralab.redaction import redact

TEMPORARY_STATUSES = frozenset((408, 425, 429))
"""HTTP statuses below 500 after which the same request may succeed."""
PERMANENT_STATUSES = frozenset((501, 505))
"""Statuses from 500 on that no retry changes."""
PERMANENT_CODES = frozenset(("INVALID_STATE", "FEATURE_DISABLED", "NOT_IMPLEMENTED"))
PERMANENT_ERRORS = (FileNotFoundError, IsADirectoryError, NotADirectoryError, PermissionError)
NETWORK_LIBRARIES = frozenset(("requests", "urllib3", "botocore", "boto3", "s3transfer", "azure", "google", "aiohttp"))
"""Their errors are of the network unless they carry a status."""
CREDENTIAL_ERRORS = ("NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError")
"""Of botocore: this environment holds no keys of the store of artifacts."""
BUSY_STATUSES = frozenset((429, 503))
STATUS = re.compile(r"failed with error code (\d{3})|too many (\d{3}) error responses")
MARKUP = re.compile(r"<(style|script)\b.*?</\1>|<[^>]{1,200}>", re.DOTALL | re.IGNORECASE)
FOUND_SCHEMA = re.compile(r"found version (\w+)|locate revision identified by '(\w+)'")
STATUS_WORDS = {
    "too large": 413,
    "too many requests": 429,
    "unauthorized": 401,
    "not authenticated": 401,
    "forbidden": 403,
    "access denied": 403,
}
DRIVERS = {
    "psycopg2": "psycopg2-binary",
    "psycopg": "'psycopg[binary]'",
    "MySQLdb": "mysqlclient",
    "pymysql": "pymysql",
    "pyodbc": "pyodbc",
    "boto3": "boto3",
    "azure": "azure-storage-blob",
    "google": "google-cloud-storage",
    "paramiko": "paramiko",
    "pysftp": "pysftp",
}
"""Module -> the package that brings it, of databases and artifact stores."""
MAX_REASON = 400


def causes(error: BaseException) -> Iterator[BaseException]:
    """An error and what led to it."""
    seen: set[int] = set()
    one: BaseException | None = error
    while one is not None and id(one) not in seen:
        seen.add(id(one))
        yield one
        one = one.__cause__ or one.__context__


def status_of(error: BaseException) -> int | None:
    """The HTTP status that a failure stands for; None for one without."""
    for one in causes(error):
        status = _own_status(one)
        if status is not None:
            return status
    return None


def _own_status(error: BaseException) -> int | None:
    from mlflow.exceptions import MlflowException

    response: Any = getattr(error, "response", None)
    if isinstance(response, dict):  # of botocore
        return _as_int(response.get("ResponseMetadata", {}).get("HTTPStatusCode"))
    if getattr(response, "status_code", None) is not None:
        return _as_int(response.status_code)
    if isinstance(error, MlflowException):
        found = STATUS.search(str(error))
        if found:
            return int(found[1] or found[2])
        body = getattr(error, "json", {})
        if isinstance(body, dict) and body and "error_code" not in body:  # of a proxy: MLflow drops the status
            return _guess_status(body)
        return None if error.error_code == "INTERNAL_ERROR" else int(error.get_http_status_code())
    return None


def _guess_status(body: Mapping[str, Any]) -> int | None:
    """The status of an answer in JSON that is not MLflow's, from what it says."""
    for key in ("status", "code", "statusCode", "status_code"):
        if str(body.get(key, "")).isdigit():
            return int(body[key])
    text = str(body).lower()
    return next((status for words, status in STATUS_WORDS.items() if words in text), None)


def _as_int(value: Any) -> int | None:
    return int(value) if isinstance(value, int) else None


def is_temporary(error: BaseException) -> bool:
    """Whether a retry may succeed: a server or network that is down, a locked database, a full disk."""
    from mlflow.exceptions import MlflowException

    if isinstance(error, StoreUnavailableError):
        return True
    if isinstance(error, StoreError):
        return error.__cause__ is not None and is_temporary(error.__cause__)
    text = str(error).lower()
    if "readonly database" in text or "read-only" in text:
        return False
    status = status_of(error)
    if status is not None:
        if any(isinstance(one, MlflowException) and one.error_code in PERMANENT_CODES for one in causes(error)):
            return False
        return status in TEMPORARY_STATUSES or (status >= 500 and status not in PERMANENT_STATUSES)
    if any(kind.__name__ in CREDENTIAL_ERRORS for one in causes(error) for kind in type(one).__mro__):
        return False
    if isinstance(error, OSError):
        return not isinstance(error, PERMANENT_ERRORS) and error.errno != errno.EROFS
    return isinstance(error, MlflowException) or type(error).__module__.partition(".")[0] in NETWORK_LIBRARIES


def is_forbidden(error: BaseException) -> bool:
    """Whether the store knows this user, who lacks the permission."""
    return status_of(error) == 403


def is_busy(error: BaseException) -> bool:
    """Whether a failure says of the whole store that it cannot answer now, not of one request."""
    return status_of(error) in BUSY_STATUSES or "locked" in str(error).lower()


class _Addressed(Protocol):
    @property
    def uri(self) -> str: ...


def store_error(store: _Addressed, doing: str, error: BaseException) -> StoreError:
    """Any failure of a store as one paragraph: what failed, where, why, how to fix it.

    Args:
        store: the store that failed.
        doing: what was attempted, as in "could not <doing>".
        error: what MLflow, the database or the network raised.

    Returns:
        A `StoreUnavailableError` for a store that does not answer now.
    """
    kind = StoreUnavailableError if is_temporary(error) else StoreError
    if isinstance(error, StoreError):
        return kind(str(error))
    return kind(
        f"The tracking store {redact(store.uri)}: could not {doing}. {reason_of(error)} ({type(error).__name__}). "
        f"{remedy(store.uri, error)}"
    )


def reason_of(error: BaseException) -> str:
    """What an error says, in one line of limited length, without markup and secrets."""
    text = str(error).partition("[SQL:")[0]  # the statement and its values follow
    return shorten(" ".join(redact(MARKUP.sub(" ", text)).split()), MAX_REASON)


@dataclass(frozen=True)
class _Failure:
    """What the remedies look at."""

    uri: str
    error: BaseException
    text: str
    """What it says, in lower case."""
    status: int | None

    def says(self, *words: str) -> bool:
        return any(word in self.text for word in words)

    def is_a(self, *names: str) -> bool:
        """Whether the error or one that led to it is of a class with one of these names."""
        return any(kind.__name__ in names for one in causes(self.error) for kind in type(one).__mro__)


def remedy(uri: str, error: BaseException) -> str:
    """How to fix a failure, in one or two sentences."""
    text = " ".join(str(one) for one in causes(error)).lower()
    failure = _Failure(uri, error, text, status_of(error))
    return next(sentence for rule in _REMEDIES if (sentence := rule(failure)))


def _driver(failure: _Failure) -> str:
    missing = [one.name or "" for one in causes(failure.error) if isinstance(one, ModuleNotFoundError)]
    if missing:
        module = missing[0].partition(".")[0]
        return f"This environment lacks its driver: pip install {DRIVERS.get(module, module)}."
    if failure.is_a("NoSuchModuleError") or failure.says("unsupported uri", "unsupported for", "can't load plugin"):
        return "Give an address that starts with http://, https://, sqlite:///, postgresql:// or mysql+pymysql://."
    return ""


def _schema(failure: _Failure) -> str:
    found = FOUND_SCHEMA.search(failure.text)
    if not found and not failure.says("out-of-date database schema"):
        return ""
    if not found or is_known_revision(found[1] or found[2]):
        return 'Back it up and upgrade it with `mlflow db upgrade "$MLFLOW_TRACKING_URI"`, or use a new database.'
    from mlflow.version import VERSION

    return (
        f"A newer MLflow than this environment's {VERSION} has upgraded the database: install that version here, or "
        "use another database."
    )


def is_known_revision(revision: str) -> bool:
    """Whether a database's schema is one that this MLflow knows, and not that of a newer one."""
    from mlflow.store import db_migrations

    folders = [Path(folder) / "versions" for folder in db_migrations.__path__]
    return revision == "none" or any(list(folder.glob(f"{revision}_*.py")) for folder in folders)


def _database(failure: _Failure) -> str:
    if failure.says("locked"):
        return "Another process has locked the database: end it, or use `mlflow server`, and try again."
    if failure.says("readonly database", "read-only file system"):
        return "The database or its disk is read-only: make it writable for this user, or give another."
    if failure.says("disk is full", "no space left"):
        return "The disk of the database or of its artifacts is full: free some space."
    return ""


def _deleted(failure: _Failure) -> str:
    if not failure.says("must be in the 'active' state", "current state is deleted", "is deleted"):
        return ""
    run = re.search(r"the run (\w+) must", failure.text)
    if run:
        return (
            f"The run has been deleted. Restore it (`mlflow runs restore --run-id {run[1]}`), then `muralab sync` "
            "writes what was refused."
        )
    experiment = re.search(r"the experiment (\w+) must", failure.text)
    which = experiment[1] if experiment else "<id>"
    return (
        f"The experiment has been deleted. Restore it (`mlflow experiments restore --experiment-id {which}`), then "
        "`muralab sync` writes what was refused."
    )


def _access(failure: _Failure) -> str:
    if failure.says("invalid host header"):
        host = urlsplit(failure.uri).netloc.rpartition("@")[2]
        return f"The server does not accept this name: start it with `--allowed-hosts {host}`, or use its own name."
    if failure.status == 401 or failure.says("unauthorized", "error code 401"):
        return (
            "The password is missing or wrong: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or "
            "MLFLOW_TRACKING_TOKEN."
        )
    if is_forbidden(failure.error) or failure.says("error code 403", "permission_denied", "access denied"):
        model = failure.says("/registered-models/", "/model-versions/")
        what = "the registered model" if model else "the experiment and its artifacts"
        return (
            f"This user may not do that: ask for the permission to edit {what}, or set MLFLOW_TRACKING_USERNAME and "
            "MLFLOW_TRACKING_PASSWORD of one who may." + proxy_note(failure.uri)
        )
    if failure.status == 413 or failure.says("too large"):
        return (
            "A proxy before the server limits the size of uploads: raise it (nginx: client_max_body_size 512m), then "
            "`muralab sync` writes what was refused."
        )
    return ""


def _artifacts(failure: _Failure) -> str:
    if failure.is_a(*CREDENTIAL_ERRORS):
        return (
            "The store of artifacts wants keys, and this environment has none: set AWS_ACCESS_KEY_ID and "
            "AWS_SECRET_ACCESS_KEY, or let the server hold them (`mlflow server --serve-artifacts`)."
        )
    if failure.says("nosuchbucket", "bucket does not exist"):
        return "Create the bucket, or give the server another one (`mlflow server --artifacts-destination`)."
    if failure.says("invalidaccesskeyid", "signaturedoesnotmatch"):
        return "Correct AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY: the store of artifacts does not accept them."
    if failure.says("/mlflow-artifacts/") and (failure.status or 0) >= 500:
        return (
            "The server answers, but cannot use its own store of artifacts: its log names the reason, such as a "
            "missing bucket, wrong keys, or a wrong MLFLOW_S3_ENDPOINT_URL."
        )
    return ""


def _network(failure: _Failure) -> str:
    if failure.is_a("SSLError", "SSLCertVerificationError") or failure.says("certificate_verify_failed", "[ssl"):
        return (
            "Its certificate is not trusted here: set MLFLOW_TRACKING_SERVER_CERT_PATH to the file of its authority "
            "(MLFLOW_TRACKING_CLIENT_CERT_PATH, if it asks for a client's), or MLFLOW_TRACKING_INSECURE_TLS=true for "
            "a test."
        )
    if failure.is_a("ProxyError"):
        return (proxy_note(failure.uri) or " The proxy of the environment does not answer.").strip()
    return ""


def _fallback(failure: _Failure) -> str:
    sentence = "Check that the store is running and that MLFLOW_TRACKING_URI is its address."
    return sentence + proxy_note(failure.uri)


_REMEDIES: tuple[Callable[[_Failure], str], ...] = (
    _driver,
    _schema,
    _deleted,
    _database,
    _network,
    _artifacts,
    _access,
    _fallback,
)


def proxy_note(uri: str) -> str:
    """A sentence, after a space, where requests to a server go through a proxy of the environment; else nothing."""
    if not uri.startswith("http"):
        return ""
    from requests.utils import get_environ_proxies, select_proxy

    proxy = select_proxy(uri, get_environ_proxies(uri))
    if not proxy:
        return ""
    return (
        f" Requests go through the proxy {redact(proxy)} that the environment names; if they should not, add the "
        f"server to the exceptions: NO_PROXY={urlsplit(uri).hostname}."
    )


def shorten(text: str, limit: int) -> str:
    """A text of at most `limit` characters; a mark at its end gives the original length."""
    if len(text) <= limit:
        return text
    mark = f"... [shortened: {len(text)} characters]"
    return text[: limit - len(mark)] + mark


@contextmanager
def store_errors(store: _Addressed, doing: str) -> Iterator[None]:
    """Turn what MLflow, the network or a database raises inside the block into a `StoreError`; bugs stay what they are.

    Args:
        store: that is asked.
        doing: what is attempted, as in "could not <doing>".
    """
    try:
        yield
    except MuraLabError:
        raise
    except Exception as error:
        from mlflow.exceptions import MlflowException

        of_network = type(error).__module__.partition(".")[0] in NETWORK_LIBRARIES
        if of_network or isinstance(error, MlflowException | ConnectionError | TimeoutError):
            raise store_error(store, doing, error) from error
        raise

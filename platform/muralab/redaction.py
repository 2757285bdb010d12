"""Secrets kept out of texts: the passwords of addresses, found by parsing them, and those of the environment."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import Any
from urllib.parse import SplitResult, parse_qsl, quote, unquote, urlencode, urlsplit

MASK = "***"
URI_VARIABLES = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_REGISTRY_URI",
    "HTTP_PROXY",
    "HTTPS_PROXY",
    "ALL_PROXY",
    "http_proxy",
    "https_proxy",
    "all_proxy",
)
SECRET_VARIABLES = (
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "AWS_SECRET_ACCESS_KEY",
    "AWS_SESSION_TOKEN",
    "PGPASSWORD",
)
SECRET_WORDS = ("password", "passwd", "pwd", "secret", "token", "signature", "credential", "apikey", "api_key")
SECRET_KEYS = ("sig", "key", "pass", "odbc_connect")
"""Whole names of query parameters that hold a secret."""
HARMLESS_KEYS = ("credential_kind",)
"""Names of query parameters that only sound like it: Arrow's for Azure, such as `environment`."""
SCHEME_CHARACTERS = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789+-.")
ENDS = frozenset(" \t\r\n\"'<>`|\\^{}")
"""Characters that end a URI inside a text."""
MIN_TOKEN_NAME = 20
"""A user name this long, without a password, is a token."""


def redact(text: str, environment: Mapping[str, str] | None = None) -> str:
    """A text without the secrets of its URIs and those of the environment, each replaced by `***`.

    Args:
        text: of a message, a tag, a param or a log record.
        environment: whose secrets are known; None: this process's.
    """
    found = "".join(_redact_uri(part) if is_uri else part for part, is_uri in _split(text))
    for secret in _known_secrets(os.environ if environment is None else environment):
        found = found.replace(secret, MASK)
    return found


def install_redaction() -> None:
    """Redact every log record and every traceback that ends the process. A second call changes nothing."""
    build = logging.getLogRecordFactory()
    if getattr(build, "redacts", False):
        return

    def build_redacted(*arguments: Any, **fields: Any) -> logging.LogRecord:
        record = build(*arguments, **fields)
        try:
            text = record.getMessage()
        except (TypeError, ValueError):  # a mistake of the caller, which logging reports itself
            return record
        clean = redact(text)
        if clean != text:
            record.msg, record.args = clean, ()
        return record

    def print_redacted(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        sys.stderr.write(redact("".join(traceback.format_exception(kind, error, trace))))

    build_redacted.redacts = True  # type: ignore[attr-defined]
    logging.setLogRecordFactory(build_redacted)
    sys.excepthook = print_redacted


def _split(text: str) -> Iterator[tuple[str, bool]]:
    """The parts of a text in order, and whether each is a URI."""
    start = 0
    while (colon := text.find("://", start)) >= 0:
        first = colon
        while first > start and text[first - 1] in SCHEME_CHARACTERS:
            first -= 1
        last = colon + 3
        while last < len(text) and text[last] not in ENDS:
            last += 1
        yield text[start:first], False
        yield text[first:last], first < colon
        start = last
    yield text[start:], False


def _redact_uri(uri: str) -> str:
    scheme, _, rest = uri.partition("://")
    user, host = _split_user(scheme, rest)
    if user is not None:
        name, colon, _ = user.partition(":")
        if colon:
            rest = f"{name}:{MASK}@{host}"
        elif len(name) >= MIN_TOKEN_NAME:
            rest = f"{MASK}@{host}"
    return f"{scheme}://{_redact_query(rest)}"


def _split_user(scheme: str, rest: str) -> tuple[str | None, str]:
    """What stands before the host of a URI, and the rest; None where nothing does.

    A password may hold unescaped `@`, `/`, `?` and `#`, and then the last `@` ends it. The standard reading holds where
    it finds a host and the rest holds no further `@` that is more likely a password's, as in http://lab:5000/a@b.
    """
    end = min((rest.find(mark) for mark in "/?#" if mark in rest), default=len(rest))
    authority, tail = rest[:end], rest[end:]
    user, at, host = authority.rpartition("@")
    if not _is_host(host) or ("@" in tail and (_is_database(scheme) or tail[0] in "?#")):
        user, at, host = rest.rpartition("@")
        tail = ""
    return (user if at else None), host + tail


def _is_host(text: str) -> bool:
    host, _, port = text.rpartition(":") if ":" in text.rpartition("]")[2] else (text, "", "")
    plain = host.startswith("[") or all(character.isalnum() or character in ".-_" for character in host)
    return plain and (not port or port.isdigit())


def _is_database(scheme: str) -> bool:
    return scheme.partition("+")[0].lower() in ("postgresql", "postgres", "mysql", "mariadb", "mssql", "oracle")


def _redact_query(rest: str) -> str:
    head, question, query = rest.partition("?")
    if not question:
        return rest
    query, hash_, fragment = query.partition("#")
    pairs = parse_qsl(query, keep_blank_values=True)
    if not any(is_secret(key) for key, _ in pairs):
        return rest
    masked = urlencode([(key, MASK if is_secret(key) else value) for key, value in pairs], safe="*/:@,")
    return f"{head}?{masked}{hash_}{fragment}"


def is_secret(key: str) -> bool:
    """Whether a query parameter holds a secret, by its name."""
    name = key.lower().replace("-", "_")
    if name in HARMLESS_KEYS:
        return False
    return name in SECRET_KEYS or name.endswith("_key") or any(word in name for word in SECRET_WORDS)


def _known_secrets(environment: Mapping[str, str]) -> list[str]:
    """The secrets of an environment as drivers and servers may print them, longest first."""
    found = {environment.get(name, "") for name in SECRET_VARIABLES}
    for name in URI_VARIABLES:
        found |= _secrets_of(environment.get(name, ""))
    return sorted(filter(_is_distinct, found), key=len, reverse=True)


def _is_distinct(secret: str) -> bool:
    """Whether a secret can be searched for outside of URIs: the password `mlflow` is also a word of every message."""
    if secret.isalnum():
        return len(secret) >= (12 if secret.isalpha() else 8)
    return len(secret) >= 4


def _secrets_of(uri: str) -> set[str]:
    """The password of a URI, as written, decoded and encoded, and what a parser makes of one that holds an `@`."""
    scheme, separator, rest = uri.partition("://")
    if not separator:
        return set()
    user, host = _split_user(scheme, rest)
    password = "" if user is None else user.partition(":")[2]
    if not password:
        return set()
    pieces = {piece for piece in (password, unquote(password), quote(password, safe="")) if piece}
    # `ann:p@ss@host` is read as the host `ss@host` by some parsers, whose errors then show a part of the password.
    tails = {f"{password.split('@', n)[n]}@{_host_of(host)}" for n in range(1, password.count("@") + 1)}
    return pieces | tails


def _host_of(rest: str) -> str:
    try:
        parts: SplitResult = urlsplit(f"//{rest}")
        return parts.hostname or ""
    except ValueError:
        return ""

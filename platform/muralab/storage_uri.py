"""URIs of storages and of data: what one may hold, and the file system that opens it.

Arrow opens S3, Google Cloud Storage and Azure, fsspec and its installed packages anything else.
"""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import SplitResult, parse_qs, parse_qsl, urlsplit

from muralab.errors import SettingsError, StorageUnavailableError
from muralab.redaction import is_secret, redact

ENDPOINTS = ("AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL")
AMAZON = ".amazonaws.com"
REGIONS = ("AWS_REGION", "AWS_DEFAULT_REGION")


def is_uri(text: str) -> bool:
    """Whether a text is a URI rather than a path."""
    return "://" in text


def check_uri(uri: str, option: str = "storage") -> None:
    """Refuse what is not a URI, and credentials in one: it is logged and stored.

    Raises:
        SettingsError: it is not one, or holds some.
    """
    if not is_uri(uri):
        return
    try:
        parts = urlsplit(uri)
    except ValueError as error:
        raise SettingsError(f"{option}={uri}: {error}.") from error
    if secret := _secret_of(parts):
        raise SettingsError(
            f"{option}=: the URI holds a {secret}, and would be logged. Set the keys in the environment of every "
            "machine (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY for S3), and leave them out of the URI."
        )
    if parts.fragment or (parts.scheme == "file" and parts.query):
        sign, code = ("#", "%23") if parts.fragment else ("?", "%3F")
        raise SettingsError(f"{option}={uri}: in a URI, {sign} ends the path. Write {code} for it.")
    if not uri.partition("://")[2].strip("/"):
        raise SettingsError(f"{option}={uri} names no bucket or folder: expected such as s3://bucket/prefix.")


def missing_hint(uri: str) -> str:
    """What to do where a folder or bucket is missing: any web server at a wrong address answers that it is."""
    asked = _override_of(uri) or (_endpoint()[1] if uri.startswith("s3://") else "")
    if not asked:
        return ". Create it, or correct the name"
    return f" at {redact(asked)}. Create it, or correct the name or the address, where S3 must answer"


def other_bucket_hint(uri: str) -> str:
    """What to look at where a bucket is not the one of this name that another machine sees."""
    if asked := _override_of(uri):
        return f"is the server at {redact(asked)} that of the command"
    if not uri.startswith("s3://"):
        return "is the account that of the command"
    return f"is {_endpoint()[0] or ENDPOINTS[1]} that of the command"


def _override_of(uri: str) -> str:
    return parse_qs(urlsplit(uri).query).get("endpoint_override", [""])[0] if is_uri(uri) else ""


def _endpoint() -> tuple[str, str]:
    """The variable that names the server of S3 here, and its value; empty for Amazon's."""
    return next(((name, value) for name in ENDPOINTS if (value := os.environ.get(name))), ("", ""))


def _secret_of(parts: SplitResult) -> str:
    """What is secret in a URI: a password, a token in place of a user, a signature; empty for nothing."""
    if parts.password is not None:
        return "password"
    if parts.username and parts.scheme in ("http", "https"):
        return "user name or a token"
    names = [key for key, _ in parse_qsl(parts.query, keep_blank_values=True) if is_secret(key)]
    return f"secret ({names[0]})" if names else ""


def open_uri(uri: str, option: str) -> tuple[Any, str]:
    """The file system of a URI, and the path in it."""
    from pyarrow import ArrowInvalid
    from pyarrow.fs import FileSystem, FSSpecHandler, LocalFileSystem, PyFileSystem

    if not is_uri(uri):
        return LocalFileSystem(), uri
    try:
        files, path = FileSystem.from_uri(_with_region(uri))
    except ArrowInvalid as error:
        if "Cannot parse URI" in str(error):
            raise SettingsError(
                f"{option}={uri} is not a URI. Write a blank as %20, and letters beyond ASCII likewise: ä is %C3%A4."
            ) from error
        if "Unrecognized filesystem type" not in str(error):
            raise SettingsError(f"{option}={uri}: {error}.") from error
    except OSError as error:
        raise StorageUnavailableError(f"{option}={uri} cannot be opened: {error}") from error
    else:
        return files, str(path)
    import fsspec

    try:
        opened, path = fsspec.core.url_to_fs(uri)
    except (ValueError, ImportError) as error:
        raise SettingsError(
            f"{option}={uri}: {error}. Expected a folder, s3://bucket/prefix, gs://, abfs://, or what an installed "
            "package of fsspec opens."
        ) from error
    return PyFileSystem(FSSpecHandler(opened)), str(path)


def _with_region(uri: str) -> str:
    """A region for a server of one's own, which needs none: Arrow would ask Amazon for the bucket's, for seconds.

    Amazon's own endpoints, such as that of a VPC, need the right one, which Arrow finds out.
    """
    parts = urlsplit(uri)
    endpoint = _endpoint()[1]
    if parts.scheme != "s3" or "region=" in parts.query or not endpoint or AMAZON in (_override_of(uri) or endpoint):
        return uri
    region = next(filter(None, map(os.environ.get, REGIONS)), "us-east-1")
    return f"{uri}{'&' if parts.query else '?'}region={region}"


def impatient(files: Any) -> Any:
    """A file system that gives up after a second attempt, where it can be told to."""
    if files.type_name != "s3":
        return files
    from pyarrow.fs import AwsStandardS3RetryStrategy, S3FileSystem

    _, (options,) = files.__reduce__()  # from_uri takes no strategy
    return S3FileSystem(**options, retry_strategy=AwsStandardS3RetryStrategy(max_attempts=2))

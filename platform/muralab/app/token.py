"""The file that holds a bearer token, for the server that requires it and the client that sends it."""

from __future__ import annotations

from pathlib import Path

from muralab.errors import SettingsError


def read_token_file(file: Path, *, least: int = 1) -> str:
    """Read a token.

    Args:
        file: text with one word; white space around it is ignored.
        least: minimum number of characters.

    Raises:
        SettingsError: the file is unreadable, or its content cannot be sent in a header.
    """
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"token_file={file} cannot be read ({error}).") from error
    # Not printable: a line break would start another header.
    if len(token) < least or not token.isascii() or not token.isprintable() or " " in token:
        length = f" of at least {least} characters" if least > 1 else ""
        raise SettingsError(f"token_file={file}: expected one word{length}, such as `openssl rand -hex 24` writes.")
    return token

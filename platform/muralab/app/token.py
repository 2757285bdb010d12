"""The file that holds a bearer token: one word, which a server asks for and a client sends."""

from __future__ import annotations

from pathlib import Path

from muralab.errors import SettingsError


def read_token_file(file: Path, *, least: int = 1) -> str:
    """The token in a file.

    Args:
        file: text with one word; spaces and line ends around it are passed over.
        least: characters that it must have.

    Raises:
        SettingsError: the file cannot be read, or holds something that no header may carry.
    """
    try:
        token = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError(f"token_file={file} cannot be read ({error}).") from error
    # Not printable: a line end would begin another header.
    if len(token) < least or not token.isascii() or not token.isprintable() or " " in token:
        length = f" of at least {least} characters" if least > 1 else ""
        raise SettingsError(f"token_file={file}: expected one word{length}, such as `openssl rand -hex 24` writes.")
    return token

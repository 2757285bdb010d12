"""Standard streams that cannot end the work: closed, full, gone, of another encoding, or without a width."""

from __future__ import annotations

import contextlib
import os
import sys
from typing import Any, TextIO, cast

NARROWEST = 20
"""Columns; what claims to be narrower has no known width."""


class SafeStream:
    """A text stream whose failures are ignored: nothing that is printed is worth more than the work itself."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write a text; characters that the encoding lacks are replaced."""
        try:
            return self._stream.write(text)
        except UnicodeEncodeError:
            encoding = self._stream.encoding or "ascii"
            return self.write(text.encode(encoding, "replace").decode(encoding))
        except (OSError, ValueError):
            self._drop()
            return len(text)

    def flush(self) -> None:
        """Flush the stream."""
        try:
            self._stream.flush()
        except (OSError, ValueError):
            self._drop()

    def _drop(self) -> None:
        """Send everything from now on to nowhere, also what is still buffered, and what libraries write themselves."""
        with contextlib.suppress(OSError, ValueError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def secure_streams() -> None:
    """Make standard output and error of this process safe to print to."""
    for descriptor in (0, 1, 2):
        _open_if_closed(descriptor)
    for name, descriptor in (("stdout", 1), ("stderr", 2)):
        stream = getattr(sys, name) or os.fdopen(descriptor, "w", closefd=False)
        if not isinstance(stream, SafeStream):
            setattr(sys, name, cast(TextIO, SafeStream(stream)))
    columns = os.environ.get("COLUMNS", "")
    if "COLUMNS" in os.environ and not (columns.isdecimal() and int(columns) >= NARROWEST):
        del os.environ["COLUMNS"]


def _open_if_closed(descriptor: int) -> None:
    """Occupy a standard descriptor that is closed: the next file to be opened, a database, would get its number."""
    try:
        os.fstat(descriptor)
    except OSError:
        opened = os.open(os.devnull, os.O_RDWR)
        if opened != descriptor:
            os.dup2(opened, descriptor)
            os.close(opened)

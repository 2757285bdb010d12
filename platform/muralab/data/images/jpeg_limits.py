"""A JPEG's segments, counted before anything is decoded: what would cost minutes or gigabytes is refused at once."""

from __future__ import annotations

import re

from muralab.errors import ImageError

MAX_SCANS = 64
"""Progressive pictures have some 10; each is a pass over the whole picture."""

MAX_SEGMENTS = 1_000
"""Real files have some 20, or a few hundred with a large colour profile; Pillow makes an object of each."""

MAX_JUNK_BYTES = 65_536
"""Between segments, where nothing belongs; Pillow steps over it byte by byte."""

_START_OF_SCAN, _END = 0xDA, 0xD9
# Markers without a length, and those of extensions, of which Pillow reads none and libjpeg refuses the file.
_BARE = {0xC8, 0xD8, _END, *range(0xF0, 0xFE)}
# Within a scan, ff is followed by 00 (a literal ff), by a restart marker, or by another ff (filling).
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def check_jpeg(data: bytes) -> None:
    """Refuse a JPEG of so many scans or segments that a small file takes minutes or gigabytes.

    Counts up to the end of the main picture: phones append films and further pictures behind it. A damaged file passes:
    it is the decoder's to name.

    Args:
        data: the file's bytes, from the start-of-image marker on.

    Raises:
        ImageError: more than `MAX_SCANS` scans, `MAX_SEGMENTS` segments or `MAX_JUNK_BYTES` of junk between them.
    """
    at, n_scans, n_segments, n_junk = 2, 0, 0, 0
    while (found := _NEXT_MARKER.search(data, at)) is not None:
        kind, body = data[found.start() + 1], found.end()
        if kind == _END and n_scans:  # before the first scan Pillow reads on
            break
        if not n_scans:
            n_junk += found.start() - at
        n_scans += kind == _START_OF_SCAN
        n_segments += 1
        if n_scans > MAX_SCANS:
            raise ImageError(f"a JPEG of more than {MAX_SCANS} scans")
        if n_segments > MAX_SEGMENTS or n_junk > MAX_JUNK_BYTES:
            raise ImageError(f"a JPEG of more than {MAX_SEGMENTS:,} segments, or with junk between them")
        at = body + int.from_bytes(data[body : body + 2], "big") if kind >= 0xC0 and kind not in _BARE else body

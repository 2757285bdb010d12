"""Limits of PNG and JPEG files, checked before decoding: no small file may cost minutes or gigabytes."""

from __future__ import annotations

import re

from muralab.errors import ImageError

MAX_CHUNKS = 1_000
"""Of a PNG, not counting pixel chunks; real files have about 10. Pillow needs seconds for a million empty ones."""

MAX_PIXEL_CHUNKS = 50_000
"""Of a PNG; most encoders write at least 8 KiB into each."""

MAX_SCANS = 64
"""Of a JPEG; progressive files have about 10. Each scan is one pass over the whole image."""

MAX_SEGMENTS = 1_000
"""Of a JPEG; real files have about 20, or a few hundred with a large colour profile; Pillow makes an object of each."""

MAX_JUNK_BYTES = 65_536
"""Between JPEG segments, where no data belongs; Pillow skips it byte by byte."""

_START_OF_SCAN, _END = 0xDA, 0xD9
# Markers without a length field, and reserved extension markers: Pillow skips those and libjpeg rejects the file.
_BARE = {0xC8, 0xD8, _END, *range(0xF0, 0xFE)}
# Inside a scan, ff is followed by 00 (a literal ff), a restart marker or another ff (padding).
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")


def check_png(data: bytes) -> None:
    """Reject a PNG with so many chunks that parsing their headers takes long. Damaged files pass.

    Args:
        data: the file's bytes, starting at the signature.

    Raises:
        ImageError: more than `MAX_CHUNKS` chunks, or more than `MAX_PIXEL_CHUNKS` pixel chunks.
    """
    at, n_chunks, n_pixel_chunks = 8, 0, 0
    while at < len(data) and (kind := data[at + 4 : at + 8]) != b"IEND":
        n_pixel_chunks += kind == b"IDAT"
        n_chunks += kind != b"IDAT"
        if n_chunks > MAX_CHUNKS or n_pixel_chunks > MAX_PIXEL_CHUNKS:
            raise ImageError(f"a PNG with more than {MAX_CHUNKS:,} chunks, or with too many pixel chunks")
        at += 12 + int.from_bytes(data[at : at + 4], "big")


def check_jpeg(data: bytes) -> None:
    """Reject a JPEG with so many scans or segments that a small file takes minutes or gigabytes.

    Counts up to the end of the main image, because phones append videos and further images after it. Damaged files
    pass: the decoder reports those.

    Args:
        data: the file's bytes, starting at the start-of-image marker.

    Raises:
        ImageError: more than `MAX_SCANS` scans, `MAX_SEGMENTS` segments or `MAX_JUNK_BYTES` of junk between them.
    """
    at, n_scans, n_segments, n_junk = 2, 0, 0, 0
    while (found := _NEXT_MARKER.search(data, at)) is not None:
        kind, body = data[found.start() + 1], found.end()
        if kind == _END and n_scans:  # an end marker before the first scan does not stop Pillow
            break
        if not n_scans:
            n_junk += found.start() - at
        n_scans += kind == _START_OF_SCAN
        n_segments += 1
        if n_scans > MAX_SCANS:
            raise ImageError(f"a JPEG with more than {MAX_SCANS} scans")
        if n_segments > MAX_SEGMENTS or n_junk > MAX_JUNK_BYTES:
            raise ImageError(f"a JPEG with more than {MAX_SEGMENTS:,} segments, or with junk between them")
        at = body + int.from_bytes(data[body : body + 2], "big") if kind >= 0xC0 and kind not in _BARE else body

"""JPEG and JPEG-LS streams: limits, frame header and completeness, checked around a decoder that does not.

No small file may cost minutes or gigabytes, and no picture with invented pixels may pass for a whole one.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from typing import NamedTuple

import numpy as np

from muralab.errors import ImageError

MAX_SCANS = 64
"""Of a JPEG; progressive files have about 10. Each scan is one pass over the whole image."""

MAX_SEGMENTS = 1_000
"""Of a JPEG; real files have about 20, or a few hundred with a large colour profile; Pillow makes an object of each."""

MAX_JUNK_BYTES = 65_536
"""Between JPEG segments, where no data belongs; Pillow skips it byte by byte."""

END = b"\xff\xd9"
_START_OF_SCAN, _END = 0xDA, 0xD9
# Markers without a length field, and reserved extension markers: Pillow skips those and libjpeg rejects the file.
_BARE = {0xC8, 0xD8, _END, *range(0xF0, 0xFE)}
_FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
"""Markers that start a frame header; f7 is that of JPEG-LS."""
_LOSSLESS_FRAME = 0xC3
_BLOCK_PX = 8
"""Side of the blocks that a lossy JPEG consists of."""
# Inside a scan, ff is followed by 00 (a literal ff), a restart marker or another ff (padding).
_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_FILLER = bytes(1 + (113 * number + number * number // 7) % 254 for number in range(512))
"""Arbitrary bytes without ff."""


@dataclass(frozen=True, kw_only=True)
class FrameHeader:
    """What a JPEG or JPEG-LS stream says about its image."""

    width: int
    height: int
    precision: int
    """Bits of each value."""
    n_components: int
    lossless: bool
    """Whether values are predicted from their neighbours, and not from a block's frequencies."""


def check_jpeg(data: bytes) -> None:
    """Reject a JPEG with so many scans or segments that a small file takes minutes or gigabytes.

    Counts up to the end of the main image, because phones append videos and further images after it. Damaged files
    pass: the decoder reports those.

    Args:
        data: the file's bytes, starting at the start-of-image marker.

    Raises:
        ImageError: more than `MAX_SCANS` scans, `MAX_SEGMENTS` segments or `MAX_JUNK_BYTES` of junk between them.
    """
    n_scans, n_junk = 0, 0
    for n_segments, segment in enumerate(_segments(data), start=1):
        if not n_scans:
            n_junk += segment.n_before
        n_scans += segment.kind == _START_OF_SCAN
        if n_scans > MAX_SCANS:
            raise ImageError(f"a JPEG with more than {MAX_SCANS} scans")
        if n_segments > MAX_SEGMENTS or n_junk > MAX_JUNK_BYTES:
            raise ImageError(f"a JPEG with more than {MAX_SEGMENTS:,} segments, or with junk between them")


def read_frame_header(data: bytes) -> FrameHeader:
    """Read the frame header of a JPEG or JPEG-LS stream.

    Raises:
        ImageError: there is none before the first scan, or among the first `MAX_SEGMENTS`.
    """
    for segment in islice(_segments(data), MAX_SEGMENTS):
        content = data[segment.start : segment.start + 8]
        if segment.kind in _FRAMES and len(content) == 8:
            return FrameHeader(
                width=int.from_bytes(content[5:7], "big"),
                height=int.from_bytes(content[3:5], "big"),
                precision=content[2],
                n_components=content[7],
                lossless=segment.kind == _LOSSLESS_FRAME,
            )
        if segment.kind == _START_OF_SCAN:
            break
    raise ImageError("a JPEG without a frame header")


def find_scans(data: bytes) -> list[int]:
    """Where the data of each scan start, up to the end of the main image."""
    return [segment.end for segment in _segments(data) if segment.kind == _START_OF_SCAN]


def ends_evenly(pixels: np.ndarray) -> bool:
    """Whether the last block of an image [H, W] has a single value, as it has where a lossy JPEG ended before it."""
    block = pixels[-_BLOCK_PX:, -_BLOCK_PX:]
    return bool(block.min() == block.max())


def check_complete(data: bytes, pixels: np.ndarray, decode: Callable[[bytes], np.ndarray]) -> None:
    """Reject a JPEG whose last scan ends before its image does; decoders fill the rest without an error.

    The scan is decoded again with more data behind its end, which only a decoder reads that still waits for pixels.

    Args:
        data: the stream. One that lacks whole scans of a progressive image passes: it is a valid, coarser image.
        pixels: what it was decoded to.
        decode: the decoder.

    Raises:
        ImageError: data are missing.
    """
    *_, scan = find_scans(data) or [len(data)]
    found = _NEXT_MARKER.search(data, scan)
    end = len(data[: found.start() if found else len(data)].rstrip(b"\xff"))  # fill bytes would join the filler
    if not np.array_equal(decode(data[:end] + _FILLER + data[end:]), pixels):
        raise ImageError("broken or truncated JPEG (its data end before its pixels)")


class _Segment(NamedTuple):
    kind: int
    """The second byte of its marker."""
    n_before: int
    """Bytes since the previous segment: junk, or the data of a scan."""
    start: int
    """Of what follows the marker."""
    end: int


def _segments(data: bytes) -> Iterator[_Segment]:
    """The segments of a stream, from the second one to the end of the main image."""
    at, in_scan = 2, False
    while (found := _NEXT_MARKER.search(data, at)) is not None:
        kind, start = data[found.start() + 1], found.end()
        if kind == _END and in_scan:  # an end marker before the first scan does not stop Pillow
            break
        in_scan = in_scan or kind == _START_OF_SCAN
        is_bare = kind < 0xC0 or kind in _BARE
        end = start if is_bare else start + int.from_bytes(data[start : start + 2], "big")
        yield _Segment(kind, found.start() - at, start, end)
        at = end

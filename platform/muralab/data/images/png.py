"""PNG chunks: limits, checksums and completeness, checked before and after Pillow, which lets some damage pass.

No small file may cost minutes or gigabytes, and no picture with missing rows may pass for a whole one.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from struct import unpack_from
from typing import Any, NamedTuple

from muralab.errors import ImageError

MAX_CHUNKS = 1_000
"""Of a PNG, not counting pixel chunks; real files have about 10. Pillow needs seconds for a million empty ones."""

MAX_PIXEL_CHUNKS = 50_000
"""Of a PNG; most encoders write at least 8 KiB into each."""

_FIRST_CHUNK, _HEADER_BYTES = 8, 33
_EXIF = (b"eXIf", b"Raw profile type", b"XML:com.adobe.xmp")
"""Kinds and keywords of chunks that may hold EXIF data."""
_ANCILLARY = 0x20
"""Bit of the first letter of a chunk that a decoder may skip."""
_NEEDED = (b"tRNS", b"eXIf", b"acTL", b"fcTL", b"fdAT")
"""Ancillary chunks that decide which pixels are shown, and how."""
_CHANNELS = {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}
_PASSES = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""Of an interlaced image: first column, first row, step between columns, step between rows."""
_PIECE, _AT_ONCE_BYTES = 2**18, 2**24


class PngHeader(NamedTuple):
    """What a PNG says about its image; a named tuple, since two are made per picture, and a dataclass takes longer."""

    width: int
    height: int
    bits: int
    """Of each channel."""
    colour: int
    """0 grey, 2 RGB, 3 palette, 4 grey with alpha, 6 RGB with alpha."""
    interlaced: bool

    @property
    def n_bytes(self) -> int:
        """Bytes of all rows, each with the number of its filter."""
        passes = _PASSES if self.interlaced else ((0, 0, 1, 1),)
        total = 0
        for left, top, across, down in passes:
            columns, rows = -(-(self.width - left) // across), -(-(self.height - top) // down)
            if columns > 0 and rows > 0:
                total += rows * (1 + (columns * self.bits * _CHANNELS.get(self.colour, 1) + 7) // 8)
        return total


def read_png_header(data: bytes) -> PngHeader:
    """Read the first chunk of a PNG.

    Raises:
        ImageError: the file is too short.
    """
    if len(data) < _HEADER_BYTES:
        raise ImageError("its header cannot be read (truncated PNG)")
    width, height, bits, colour, _, _, interlace = unpack_from(">IIBBBBB", data, 16)
    return PngHeader(width=width, height=height, bits=bits, colour=colour, interlaced=bool(interlace))


def may_hold_exif(data: bytes) -> bool:
    """Whether one of a PNG's chunks is of a kind, or has a keyword, under which EXIF data are stored."""
    for kind, start, end in _chunks(data):
        if kind != b"IDAT" and any(data.find(name, start, end) >= 0 for name in _EXIF):
            return True
    return False


def check_png(data: bytes) -> bytes:
    """Check a PNG's chunks, and leave out damaged ones that change no pixel, such as a text.

    Args:
        data: the file's bytes, starting at the signature. Files that end too early pass: the decoder reports those.

    Returns:
        The file without damaged chunks; the same bytes if there are none.

    Raises:
        ImageError: more than `MAX_CHUNKS` chunks, more than `MAX_PIXEL_CHUNKS` pixel chunks, or a damaged chunk that
            may change pixels.
    """
    n_chunks = n_pixel_chunks = 0
    damaged = []
    for kind, start, end in _chunks(data):
        n_pixel_chunks += kind == b"IDAT"
        n_chunks += kind != b"IDAT"
        if n_chunks > MAX_CHUNKS or n_pixel_chunks > MAX_PIXEL_CHUNKS:
            raise ImageError(f"a PNG with more than {MAX_CHUNKS:,} chunks, or with too many pixel chunks")
        if kind[0] & _ANCILLARY and end <= len(data) and not _is_intact(data, start, end):
            if kind in _NEEDED:
                raise ImageError(f"damaged PNG (chunk {kind.decode('ascii')})")
            damaged.append((start, end))
    return _without(data, damaged) if damaged else data


def check_rows(data: bytes) -> None:
    """Reject a PNG whose pixel data end before its last row; Pillow leaves the missing rows black.

    Raises:
        ImageError: rows are missing.
    """
    n_bytes = read_png_header(data).n_bytes
    pieces = [memoryview(data)[start + 8 : end - 4] for kind, start, end in _chunks(data) if kind == b"IDAT"]
    if n_bytes > _AT_ONCE_BYTES or not _fills_at_once(pieces, n_bytes):
        _check_pieces(pieces, n_bytes)


def _fills_at_once(pieces: list[memoryview], n_bytes: int) -> bool:
    """Whether pieces inflate to exactly some bytes, without damage; in half the time of zlib."""
    import imagecodecs

    try:
        return len(imagecodecs.deflate_decode(b"".join(pieces), out=n_bytes)) == n_bytes
    except Exception:  # damaged, or more bytes than needed
        return False


def _check_pieces(pieces: list[memoryview], n_bytes: int) -> None:
    """Reject pieces that inflate to fewer bytes; little memory is needed at a time."""
    inflater = zlib.decompressobj()
    for whole in pieces:
        piece: bytes | memoryview = whole
        while n_bytes > 0 and not inflater.eof and (found := _inflate(inflater, piece)):
            n_bytes -= found
            piece = inflater.unconsumed_tail
    if n_bytes > 0:
        raise ImageError("broken or truncated PNG (its data end before its last row)")


def read_transparent_colour(data: bytes) -> tuple[int, int, int] | None:
    """Red, green and blue of the colour that is transparent in an RGB image; None without one."""
    for kind, start, end in _chunks(data):
        if kind == b"tRNS" and end - start == 18:
            red, green, blue = unpack_from(">HHH", data, start + 8)
            return red, green, blue
    return None


def _chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Kind, start and end (with checksum) of each chunk up to the end of the image."""
    at = _FIRST_CHUNK
    while at + 8 <= len(data) and (kind := data[at + 4 : at + 8]) != b"IEND":
        end = at + 12 + int.from_bytes(data[at : at + 4], "big")
        yield kind, at, end
        at = end


def _inflate(inflater: Any, piece: bytes | memoryview) -> int:
    """Inflate the next bytes of a stream, and count them; 0 where it needs another piece."""
    try:
        return len(inflater.decompress(piece, _PIECE))
    except zlib.error:
        raise ImageError("broken PNG (its compressed data are damaged)") from None


def _is_intact(data: bytes, start: int, end: int) -> bool:
    return zlib.crc32(memoryview(data)[start + 4 : end - 4]) == int.from_bytes(data[end - 4 : end], "big")


def _without(data: bytes, stretches: list[tuple[int, int]]) -> bytes:
    """Data without some stretches, which are in order."""
    starts, ends = [0, *(end for _, end in stretches)], [*(start for start, _ in stretches), len(data)]
    return b"".join(data[start:end] for start, end in zip(starts, ends))

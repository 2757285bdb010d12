"""A PNG's chunks, counted before anything is decoded: Pillow takes seconds for a million empty ones."""

from __future__ import annotations

from muralab.errors import ImageError

MAX_CHUNKS = 1_000
"""Beside those of pixels; real files have some 10."""

MAX_PIXEL_CHUNKS = 50_000
"""Most encoders write 8 KiB or more in each."""


def check_png(data: bytes) -> None:
    """Refuse a PNG of so many chunks that reading their headers takes long. A damaged file passes.

    Args:
        data: the file's bytes, from the signature on.

    Raises:
        ImageError: more than `MAX_CHUNKS` chunks, or `MAX_PIXEL_CHUNKS` of pixels.
    """
    at, n_chunks, n_pixel_chunks = 8, 0, 0
    while at < len(data) and (kind := data[at + 4 : at + 8]) != b"IEND":
        n_pixel_chunks += kind == b"IDAT"
        n_chunks += kind != b"IDAT"
        if n_chunks > MAX_CHUNKS or n_pixel_chunks > MAX_PIXEL_CHUNKS:
            raise ImageError(f"a PNG of more than {MAX_CHUNKS:,} chunks, or of pixels in too many pieces")
        at += 12 + int.from_bytes(data[at : at + 4], "big")

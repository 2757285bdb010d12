"""Whether a file of decoded squares holds what was written: its checksums stand in the .json file beside it."""

from __future__ import annotations

import io
import json
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np

from muralab.threads import map_in_threads

VERIFIED_ROWS = 256
"""Rows per task of a thread that verifies checksums."""


def is_intact(target: Path, workers: int | None = None) -> bool:
    """Whether pixels and names are what was written; reads all of them.

    Args:
        target: the .npy file of `cache`, uint8 [N, size, size].
        workers: threads; None takes one per core.
    """
    try:
        described = json.loads(target.with_suffix(".json").read_text(encoding="utf-8"))
        if "checksum" not in described:
            return True  # of an earlier version, which wrote none
        if described.pop("checksum") != text_checksum(described):
            return False
        n_images, size = len(described["images"]), described["size"]
        header = squares_header(n_images, size)
        if target.stat().st_size != len(header) + n_images * size * size:
            return False
        with target.open("rb") as file:
            if file.read(len(header)) != header:
                return False
    except (OSError, ValueError, AttributeError):
        return False
    expected = described["checksums"]
    pixels = np.memmap(target, mode="r", offset=len(header)).reshape(n_images, -1)

    def are_intact(first: int) -> bool:
        rows = range(first, min(first + VERIFIED_ROWS, n_images))
        return all(zlib.crc32(pixels[row].data) == expected[row] for row in rows)

    with closing(map_in_threads(are_intact, range(0, n_images, VERIFIED_ROWS), workers=workers)) as parts:
        return all(parts)


def text_checksum(described: dict[str, Any]) -> int:
    """Checksum of everything else in the .json file."""
    return zlib.crc32(json.dumps(described, sort_keys=True).encode())


def squares_header(n_images: int, size: int) -> bytes:
    """The header of the .npy file: uint8 [n_images, size, size]."""
    file = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": (n_images, size, size)}
    np.lib.format.write_array_header_1_0(file, header)
    return file.getvalue()

"""Image files: their bytes, their pixels, and digests of them.

Shape legend: H height, W width, S side of a square.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from muralab.data.images.decode import decode, decode_picture, to_square
from muralab.data.images.value_range import StoredValues, ValueRange
from muralab.errors import DataError, ImageError
from muralab.threads import map_in_threads

CHUNK = 32
"""Files per task of a thread."""

Progress = Callable[[int, int], None]


@dataclass(frozen=True, kw_only=True)
class ImageFile:
    """One image file, read and decoded."""

    path: str
    digest: str = ""
    """Of the bytes, see `digest_bytes`; empty for a missing file."""
    data: bytes | None = None
    """None for a missing file."""
    grey: np.ndarray | None = None
    """uint8 [H, W]; None for an unreadable file."""
    reason: str = ""
    """Why it is unreadable."""
    stored: StoredValues | None = None
    """Its values, where the file does not say which are black and white, see `Picture`."""
    notes: tuple[str, ...] = ()
    """What in its header was ignored, see `Picture`."""
    burned_in: bool = False
    """Whether names may be burned into its pixels, see `Picture`."""


Consumer = Callable[[int, ImageFile], None]
"""Function of (position of the file, file), called in the thread that decoded the file."""


def digest_bytes(*blocks: bytes | memoryview) -> str:
    """BLAKE2b of some bytes, 32 hex characters."""
    digest = hashlib.blake2b(digest_size=16)
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()


def digest_pixels(grey: np.ndarray) -> str:
    """The same of the shape and the grey values of a picture, uint8 [H, W]."""
    return digest_bytes(f"{grey.shape}".encode(), np.ascontiguousarray(grey).data)


def read_file(path: str | Path) -> bytes:
    """Read the bytes of an image file.

    Raises:
        ImageError: the file is missing; the text is the reason alone.
        DataError: it exists and cannot be read (permissions, a failing disk or network). That may be temporary and says
            nothing about the image, so no cache may store it as broken.
    """
    try:
        return Path(path).read_bytes()
    except (FileNotFoundError, NotADirectoryError) as error:
        raise ImageError(error.strerror or str(error)) from None
    except OSError as error:
        reason = error.strerror or error
        raise DataError(f"The image {path} cannot be read: {reason}. Fix that and start again.") from error


def read_image(path: str, *, value_range: ValueRange | None = None) -> ImageFile:
    """Read and decode an image file; a missing or broken one gets a reason instead of pixels.

    Args:
        path: of the file.
        value_range: of the data set, see `decode`.

    Raises:
        DataError: the file exists and cannot be read, see `read_file`.
    """
    try:
        data = read_file(path)
    except ImageError as error:
        return ImageFile(path=path, reason=str(error))
    digest = digest_bytes(data)
    try:
        picture = decode_picture(data, value_range=value_range)
    except ImageError as error:
        return ImageFile(path=path, digest=digest, data=data, reason=str(error))
    return ImageFile(
        path=path,
        digest=digest,
        data=data,
        grey=picture.grey,
        stored=picture.stored,
        notes=picture.notes,
        burned_in=picture.burned_in,
    )


def read_square(path: str | Path, size: int, *, value_range: ValueRange | None = None) -> np.ndarray:
    """Read an image file as a grey square.

    Args:
        path: a picture file (PNG, JPEG, TIFF, BMP or DICOM).
        size: side of the square in px.
        value_range: of the data set, see `decode`.

    Returns:
        uint8 [S, S].

    Raises:
        ImageError: the file is missing or cannot be decoded; the text is the reason alone.
        DataError: the file exists and cannot be read, see `read_file`.
    """
    return to_square(decode(read_file(path), value_range=value_range), size)


def read_images(
    paths: Sequence[str],
    consumers: Sequence[Consumer],
    *,
    value_range: ValueRange | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> None:
    """Read and decode every file once, in threads, and pass it to each consumer; at most one image per thread is held.

    Args:
        paths: image files.
        consumers: called for every file, concurrently and in no particular order.
        value_range: of the data set, see `decode`.
        workers: threads (Pillow and OpenCV release the interpreter lock); None takes one per core.
        progress: called with (images done, images in total).

    Raises:
        DataError: a file exists and cannot be read, see `read_file`.
    """

    def consume_image(position: int, path: str) -> None:
        image = read_image(path, value_range=value_range)
        for consume in consumers:
            consume(position, image)

    _for_each(paths, consume_image, workers, progress)


def hash_files(paths: Sequence[str], *, workers: int | None = None, progress: Progress | None = None) -> list[str]:
    """The digest of each file's bytes (see `digest_bytes`), without decoding; empty for a missing file.

    Raises:
        DataError: a file exists and cannot be read, see `read_file`.
    """
    digests = [""] * len(paths)

    def hash_file(position: int, path: str) -> None:
        with contextlib.suppress(ImageError):
            digests[position] = digest_bytes(read_file(path))

    _for_each(paths, hash_file, workers, progress)
    return digests


def _for_each(
    paths: Sequence[str], function: Callable[[int, str], None], workers: int | None, progress: Progress | None
) -> None:
    """Call a function of (position, path) for every path, in threads."""

    def call_for_chunk(first: int) -> int:
        chunk = paths[first : first + CHUNK]
        for position, path in enumerate(chunk, start=first):
            function(position, path)
        return len(chunk)

    done = 0
    chunks = range(0, len(paths), CHUNK)
    with closing(map_in_threads(call_for_chunk, chunks, workers=workers, name="muralab-images")) as counts:
        for count in counts:
            done += count
            if progress is not None:
                progress(done, len(paths))

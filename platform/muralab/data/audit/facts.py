"""What one image file is, in a few numbers: the input of the audit's checks."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from muralab.data.files import Consumer, ImageFile, digest_pixels
from muralab.data.images.kind import HEAD_BYTES, kind_of
from muralab.data.images.value_range import StoredValues

THUMBNAIL = 32
HASH_SIDE = 8

PNG_COLOURS = {0: "grey", 2: "RGB", 3: "palette", 4: "grey + alpha", 6: "RGBA"}
END_MARKERS = {b"\x89PNG": b"IEND\xaeB`\x82", b"\xff\xd8\xff": b"\xff\xd9"}


@dataclass(frozen=True, kw_only=True)
class FileFacts:
    """What one file is; the later fields keep their defaults if it cannot be decoded."""

    digest: str
    """of the bytes"""
    form: str
    """bit depth and colours, such as "8-bit grey" """
    cut_short: bool
    """the marker that ends a PNG or JPEG is missing"""
    reason: str = ""
    """why it cannot be decoded"""
    pixels: str = ""
    """digest of shape and grey values"""
    width: int = 0
    """px"""
    height: int = 0
    """px"""
    brightness: float = 0.0
    """mean grey value, 0 to 255"""
    spread: float = 0.0
    """standard deviation of the grey values"""
    hash: int = 0
    """perceptual, 64 bits"""
    thumbnail: bytes = b""
    """uint8 [32, 32]"""
    stored: StoredValues | None = None
    """its values, where the file does not say which are black and white"""
    notes: tuple[str, ...] = ()
    """what in its header was ignored"""
    n_bytes: int = 0
    """size of the file"""
    burned_in: bool = False
    """a DICOM file says that names may be burned into its pixels"""


def facts_of(image: ImageFile) -> FileFacts:
    """Measure and hash a decoded file; a missing or unreadable file is a fact, not an error."""
    if image.data is None:
        return FileFacts(digest="", form="missing", cut_short=False, reason=image.reason)
    digest, form, cut_short = image.digest, _form(image.data), _is_cut_short(image.data)
    grey = image.grey
    if grey is None:
        return FileFacts(digest=digest, form=form, cut_short=cut_short, reason=image.reason)
    thumbnail = cv2.resize(grey, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    brightness, spread = cv2.meanStdDev(grey)
    return FileFacts(
        digest=digest,
        form=form,
        cut_short=cut_short,
        pixels=digest_pixels(grey),
        width=grey.shape[1],
        height=grey.shape[0],
        brightness=float(brightness[0, 0]),
        spread=float(spread[0, 0]),
        hash=perceptual_hash(thumbnail),
        thumbnail=thumbnail.tobytes(),
        stored=image.stored,
        notes=image.notes,
        n_bytes=len(image.data),
        burned_in=image.burned_in,
    )


def collect_facts(facts: dict[str, FileFacts]) -> Consumer:
    """A consumer of decoded files that adds the facts of each to a dictionary by path."""

    def collect(_position: int, image: ImageFile) -> None:
        facts[image.path] = facts_of(image)

    return collect


def perceptual_hash(thumbnail: npt.NDArray[np.uint8]) -> int:
    """64 bits: which of the 8 x 8 lowest frequencies of a uint8 [32, 32] thumbnail are above their median."""
    low = cv2.dct(thumbnail.astype(np.float32))[:HASH_SIDE, :HASH_SIDE].ravel()
    bits = low > np.median(low[1:])
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _form(data: bytes) -> str:
    """Bit depth and colours from a PNG's header; the kind of other files."""
    if data.startswith(b"\x89PNG") and len(data) > 25:
        return f"{data[24]}-bit {PNG_COLOURS.get(data[25], 'unknown')}"
    return kind_of(data[:HEAD_BYTES]) or "unknown"


def _is_cut_short(data: bytes) -> bool:
    markers = [marker for start, marker in END_MARKERS.items() if data.startswith(start)]
    return bool(markers) and data.rfind(markers[0]) < 0

"""What one image file is, in a few numbers, and which pictures look alike although their files differ.

Two pictures are near duplicates when their 64-bit perceptual hashes (signs of the lowest frequencies) differ in few
bits and their 32 x 32 thumbnails correlate: copies that were scaled, recompressed or brightened, not other views.
N images, G a group of images that share some bits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from muralab.data.files import read_file
from muralab.data.images.decode import decode
from muralab.errors import ImageError

THUMBNAIL = 32
HASH_SIDE = 8
MAX_DISTANCE = 5
# Of the radiographs tried, the same picture (even with a marker added) reached 0.995, different ones 0.982 at most.
MIN_CORRELATION = 0.99
# One band more than MAX_DISTANCE: two hashes that differ in at most that many bits agree in at least one whole band.
BANDS = ((0, 11), (11, 11), (22, 11), (33, 11), (44, 10), (54, 10))
BLOCK = 2_000_000

PNG_COLOURS = {0: "grey", 2: "RGB", 3: "palette", 4: "grey + alpha", 6: "RGBA"}
END_MARKS = {b"\x89PNG": b"IEND\xaeB`\x82", b"\xff\xd8\xff": b"\xff\xd9"}


@dataclass(frozen=True, kw_only=True)
class FileFacts:
    """What one file is; the later fields keep their defaults where it cannot be decoded."""

    digest: str
    """of the bytes"""
    form: str
    """bit depth and colours, such as "8-bit grey" """
    cut_short: bool
    """the mark that ends a PNG or JPEG is missing"""
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


def read_facts(path: str) -> FileFacts:
    """Read, decode and hash one file; a file that is missing or cannot be decoded is a fact, not an error.

    Raises:
        DataError: the file is there and cannot be read just now.
    """
    try:
        data = read_file(path)
    except ImageError as error:
        return FileFacts(digest="", form="missing", cut_short=False, reason=str(error))
    digest, form, cut_short = _digest(data), _form(data), _is_cut_short(data)
    try:
        grey = decode(data)
    except ImageError as error:
        return FileFacts(digest=digest, form=form, cut_short=cut_short, reason=str(error))
    thumbnail = cv2.resize(grey, (THUMBNAIL, THUMBNAIL), interpolation=cv2.INTER_AREA)
    brightness, spread = cv2.meanStdDev(grey)
    return FileFacts(
        digest=digest,
        form=form,
        cut_short=cut_short,
        pixels=_digest(f"{grey.shape}".encode(), np.ascontiguousarray(grey).data),
        width=grey.shape[1],
        height=grey.shape[0],
        brightness=float(brightness[0, 0]),
        spread=float(spread[0, 0]),
        hash=perceptual_hash(thumbnail),
        thumbnail=thumbnail.tobytes(),
    )


def perceptual_hash(thumbnail: npt.NDArray[np.uint8]) -> int:
    """64 bits: which of the 8 x 8 lowest frequencies of a uint8 [32, 32] thumbnail lie above their median."""
    low = cv2.dct(thumbnail.astype(np.float32))[:HASH_SIDE, :HASH_SIDE].ravel()
    bits = low > np.median(low[1:])
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def near_pairs(hashes: npt.NDArray[np.uint64], thumbnails: npt.NDArray[np.uint8]) -> npt.NDArray[np.int64]:
    """Pairs of images that look the same.

    Args:
        hashes: uint64 [N], from `perceptual_hash`.
        thumbnails: uint8 [N, 32, 32].

    Returns:
        int64 [pairs, 2], the smaller place first, sorted.
    """
    found = [np.empty((0, 2), dtype=np.int64)]
    for start, width in BANDS:
        band = (hashes >> np.uint64(start)) & np.uint64((1 << width) - 1)
        for left, right in _pairs_within(band):
            close = np.bitwise_count(hashes[left] ^ hashes[right]) <= MAX_DISTANCE
            found.append(np.stack([left[close], right[close]], axis=1))
    pairs = np.unique(np.sort(np.concatenate(found), axis=1), axis=0)
    return pairs[_correlation(thumbnails, pairs) >= MIN_CORRELATION]


def groups_of(pairs: npt.NDArray[np.int64]) -> list[list[int]]:
    """Pairs [pairs, 2] -> the sets of images that they connect, each sorted."""
    parent: dict[int, int] = {}

    def find(place: int) -> int:
        while parent.setdefault(place, place) != place:
            parent[place] = place = parent[parent[place]]
        return place

    for left, right in pairs.tolist():
        first, second = sorted((find(left), find(right)))
        parent[second] = first
    groups: dict[int, list[int]] = {}
    for place in sorted(parent):
        groups.setdefault(find(place), []).append(place)
    return list(groups.values())


def _pairs_within(band: npt.NDArray[np.uint64]) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """All pairs of places with the same band value, in blocks of bounded size."""
    order = np.argsort(band, kind="stable")
    bounds = np.flatnonzero(np.diff(band[order])) + 1
    starts, ends = np.r_[0, bounds], np.r_[bounds, len(order)]
    # Member i of its group is paired with those after it: `later` of them.
    later = np.repeat(ends, ends - starts) - np.arange(len(order)) - 1
    total = np.cumsum(later)
    first = 0
    while first < len(order):
        done = total[first - 1] if first else 0
        last = max(int(np.searchsorted(total, done + BLOCK, side="right")), first + 1)
        counts = later[first:last]
        left = np.repeat(np.arange(first, last), counts)
        step = np.arange(len(left)) - np.repeat(np.cumsum(counts) - counts, counts) + 1
        yield order[left], order[left + step]
        first = last


def _correlation(thumbnails: npt.NDArray[np.uint8], pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Pearson correlation of the two thumbnails of each pair, float32 [pairs]."""
    result = np.empty(len(pairs), dtype=np.float32)
    for first in range(0, len(pairs), 10_000):
        chunk = pairs[first : first + 10_000]
        left, right = (_standardised(thumbnails[chunk[:, side]]) for side in (0, 1))
        result[first : first + 10_000] = (left * right).sum(axis=1)
    return result


def _standardised(thumbnails: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    flat = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    norm = np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6).astype(np.float32)
    flat /= norm
    return flat


def _digest(*blocks: bytes | memoryview) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for block in blocks:
        digest.update(block)
    return digest.hexdigest()


def _form(data: bytes) -> str:
    """Bit depth and colours as a PNG's header has them; of other files their kind."""
    if data.startswith(b"\x89PNG") and len(data) > 25:
        return f"{data[24]}-bit {PNG_COLOURS.get(data[25], 'unknown')}"
    if data.startswith(b"\xff\xd8"):
        return "JPEG"
    return "DICOM" if data[128:132] == b"DICM" else "unknown"


def _is_cut_short(data: bytes) -> bool:
    marks = [mark for start, mark in END_MARKS.items() if data.startswith(start)]
    return bool(marks) and data.rfind(marks[0]) < 0

"""Find images that look the same although their files differ.

Two images are near-duplicates when their 64-bit perceptual hashes (signs of the lowest frequencies) differ in few bits
and their 32 x 32 thumbnails correlate: copies that were scaled, recompressed or brightened, not other views.

N images, G images that share some bits.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

MAX_DISTANCE = 5
"""Bits in which the hashes of two near-duplicates may differ."""
MIN_CORRELATION = 0.99
"""Of their thumbnails. On real radiographs, copies (even with an added marker) reached 0.995, other pairs 0.982."""
BANDS = ((0, 11), (11, 11), (22, 11), (33, 11), (44, 10), (54, 10))
"""(first bit, width). One band more than MAX_DISTANCE: hashes within that distance agree in at least one whole band."""
BLOCK = 2_000_000
"""Pairs compared at a time."""

Positions = npt.NDArray[np.int64]


def near_pairs(hashes: npt.NDArray[np.uint64], thumbnails: npt.NDArray[np.uint8]) -> Positions:
    """Find the pairs of images that look the same.

    Args:
        hashes: uint64 [N], from `perceptual_hash`.
        thumbnails: uint8 [N, 32, 32].

    Returns:
        int64 [pairs, 2], the smaller position first, sorted.
    """
    found = [np.empty((0, 2), dtype=np.int64)]
    for start, width in BANDS:
        band = (hashes >> np.uint64(start)) & np.uint64((1 << width) - 1)
        for left, right in _pairs_within(band):
            close = np.bitwise_count(hashes[left] ^ hashes[right]) <= MAX_DISTANCE
            found.append(np.stack([left[close], right[close]], axis=1))
    pairs = np.unique(np.sort(np.concatenate(found), axis=1), axis=0)
    return pairs[_correlation(thumbnails, pairs) >= MIN_CORRELATION]


def groups_of(pairs: Positions) -> list[list[int]]:
    """Connect pairs [pairs, 2] to groups of images; groups and their members are sorted."""
    if not len(pairs):
        return []
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    members, nodes = np.unique(pairs, return_inverse=True)
    left, right = nodes.reshape(-1, 2).T
    graph = coo_array((np.ones(len(left), dtype=bool), (left, right)), shape=(len(members), len(members)))
    n_groups, labels = connected_components(graph, directed=False)
    groups: list[list[int]] = [[] for _ in range(n_groups)]
    for label, member in zip(labels.tolist(), members.tolist()):
        groups[label].append(member)
    return sorted(groups)


def _pairs_within(band: npt.NDArray[np.uint64]) -> Iterator[tuple[Positions, Positions]]:
    """All pairs of positions with the same band value, in blocks of limited size."""
    order = np.argsort(band, kind="stable")
    bounds = np.flatnonzero(np.diff(band[order])) + 1
    starts, ends = np.r_[0, bounds], np.r_[bounds, len(order)]
    # Each member of a group is paired with the `later` members after it.
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


def _correlation(thumbnails: npt.NDArray[np.uint8], pairs: Positions) -> npt.NDArray[np.float32]:
    """Pearson correlation of the two thumbnails of each pair, float32 [pairs]."""
    result = np.empty(len(pairs), dtype=np.float32)
    for first in range(0, len(pairs), 10_000):
        chunk = pairs[first : first + 10_000]
        left, right = (_standardised(thumbnails[chunk[:, side]]) for side in (0, 1))
        result[first : first + 10_000] = (left * right).sum(axis=1)
    return result


def _standardised(thumbnails: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Flattened thumbnails of mean 0 and norm 1, float32 [n, 1024]."""
    flat = thumbnails.reshape(len(thumbnails), -1).astype(np.float32)
    flat -= flat.mean(axis=1, keepdims=True)
    norm = np.maximum(np.linalg.norm(flat, axis=1, keepdims=True), 1e-6).astype(np.float32)
    flat /= norm
    return flat

"""The search for images that look the same."""

from __future__ import annotations

import numpy as np

from muralab.data.audit.facts import perceptual_hash
from muralab.data.audit.near_duplicates import groups_of, near_pairs


def test_the_search_finds_the_pairs_that_all_comparisons_find(monkeypatch):
    monkeypatch.setattr("muralab.data.audit.near_duplicates.BLOCK", 50)
    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, (60, 32, 32), dtype=np.uint8)
    noisy = np.clip(base[:20] + rng.normal(0, 6, (20, 32, 32)), 0, 255).astype(np.uint8)
    thumbnails = np.concatenate([base, noisy])
    hashes = np.array([perceptual_hash(thumbnail) for thumbnail in thumbnails], dtype=np.uint64)
    assert near_pairs(hashes, thumbnails).tolist() == [[i, 60 + i] for i in range(20)]


def test_connected_pairs_become_sorted_groups():
    assert groups_of(np.array([[2, 3], [0, 9], [4, 9]])) == [[0, 4, 9], [2, 3]]


def test_no_pairs_are_no_groups():
    assert groups_of(np.empty((0, 2), dtype=np.int64)) == []

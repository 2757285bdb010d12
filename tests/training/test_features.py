"""Cached features of a frozen backbone: their key, their files, their computation."""

from __future__ import annotations

import os
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from muralab.training.features import (
    Features,
    compute_features,
    extractor_digest,
    features_key,
    open_features,
)
from tests.training.conftest import TinyDataset, build_network

SOME = Features(np.arange(24, dtype=np.float32).reshape(2, 3, 4), np.ones((2, 4), np.float32))


class Counter:
    """Returns SOME and counts the calls."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> Features:
        self.calls += 1
        return SOME


def same(one: Features, other: Features) -> bool:
    return np.array_equal(one.train, other.train) and np.array_equal(one.validation, other.validation)


def test_features_unused_for_a_month_are_removed(tmp_path: Path) -> None:
    for key, days in (("old", 31), ("recent", 29)):
        open_features(tmp_path, key, Counter())
        for file in tmp_path.glob(f"{key}-*.npy"):
            os.utime(file, (time.time() - days * 86_400,) * 2)
    open_features(tmp_path, "new", Counter())
    assert {file.name.partition("-")[0] for file in tmp_path.glob("*.npy")} == {"recent", "new"}


def test_features_in_use_are_kept_whatever_their_age(tmp_path: Path) -> None:
    open_features(tmp_path, "daily", Counter())
    for file in tmp_path.glob("daily-*.npy"):
        os.utime(file, (time.time() - 31 * 86_400,) * 2)
    open_features(tmp_path, "daily", Counter())
    open_features(tmp_path, "new", Counter())
    assert len(list(tmp_path.glob("daily-*.npy"))) == 2


def test_the_key_depends_on_every_fact() -> None:
    network = build_network()
    facts = {"train": ["a", "b"], "seed": 0, "augment": {"shift": 0.1}}
    changed = [{"train": ["a"]}, {"seed": 1}, {"augment": {"shift": 0.2}}]
    keys = {features_key(network, **facts)} | {features_key(network, **{**facts, **change}) for change in changed}
    assert len(keys) == 4
    assert features_key(build_network(), **facts) in keys


def test_the_digest_covers_the_extractor_but_not_the_head() -> None:
    network, digest = build_network(), extractor_digest(build_network())
    network.head[0].weight.data.zero_()
    assert extractor_digest(network) == digest
    network.backbone[1].running_mean += 1
    assert extractor_digest(network) != digest


class Average(nn.Module):
    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return maps.mean((2, 3))


class Largest(nn.Module):
    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return maps.amax((2, 3))


def test_different_pooling_or_normalisation_changes_the_digest() -> None:
    networks = [build_network() for _ in range(6)]
    networks[1].pool, networks[2].pool, networks[3].mean, networks[4].std = Average(), Largest(), 0.485, 0.229
    assert len({extractor_digest(network) for network in networks}) == 5  # 0 and 5 are equal


def test_an_edited_forward_changes_the_digest(monkeypatch: pytest.MonkeyPatch) -> None:
    network = build_network()
    network.pool = Average()
    before = extractor_digest(network)
    # As after an edit of the file: same class name, different body.
    monkeypatch.setattr("inspect.getsource", lambda kind: "edited" if kind is Average else kind.__qualname__)
    assert extractor_digest(network) != before


def test_features_are_computed_once_and_memory_mapped(tmp_path: Path) -> None:
    compute = Counter()
    first, second = (open_features(tmp_path, "key", compute) for _ in range(2))
    assert compute.calls == 1
    assert same(first, SOME)
    assert same(second, SOME)
    assert isinstance(second.train, np.memmap)
    assert {path.name for path in tmp_path.iterdir()} >= {"key-train.npy", "key-validation.npy"}
    assert not list(tmp_path.glob("*.tmp*"))


def test_features_of_several_keys_coexist(tmp_path: Path) -> None:
    compute = Counter()
    for key in ("one", "two", "one"):
        open_features(tmp_path, key, compute)
    assert compute.calls == 2


@pytest.mark.parametrize("kept", [0, 40, 140])
@pytest.mark.parametrize("name", ["key-train.npy", "key-validation.npy"])
def test_a_truncated_file_is_recomputed(tmp_path: Path, name: str, kept: int) -> None:
    compute = Counter()
    open_features(tmp_path, "key", compute)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:kept])
    assert same(open_features(tmp_path, "key", compute), SOME)
    assert compute.calls == 2


def test_a_failed_computation_leaves_no_features(tmp_path: Path) -> None:
    def fail() -> Features:
        raise MemoryError

    with pytest.raises(MemoryError):
        open_features(tmp_path, "key", fail)
    assert same(open_features(tmp_path, "key", Counter()), SOME)


def test_features_are_stored_by_row_and_the_mode_is_restored(dataset: TinyDataset) -> None:
    network = build_network().train()
    order = torch.randperm(len(dataset.images), generator=torch.Generator().manual_seed(0))
    found = compute_features(network, ((dataset.images[rows], rows) for rows in order.split(6)), 20, "cpu", False)
    assert network.training
    with torch.no_grad():
        np.testing.assert_allclose(found, network.eval().pooled(dataset.images), atol=1e-6)


def test_bfloat16_features_are_stored_as_float32_and_nearly_equal(dataset: TinyDataset) -> None:
    network, rows = build_network(), torch.arange(20)
    full, half = (compute_features(network, [(dataset.images, rows)], 20, "cpu", amp) for amp in (False, True))
    assert half.dtype == np.float32
    assert not np.array_equal(full, half)
    np.testing.assert_allclose(half, full, atol=0.02)


def test_no_images_give_empty_features() -> None:
    assert compute_features(build_network(), [], 0, "cpu", False).shape == (0, 0)


def test_a_file_removed_by_another_process_is_tolerated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stale = tmp_path / "old-train.npy"
    monkeypatch.setattr(Path, "glob", lambda *_: iter([stale]))  # listed, but gone when it is opened
    assert same(open_features(tmp_path, "key", Counter()), SOME)


@pytest.mark.parametrize("name", ["train.npy", "validation.npy"])
@pytest.mark.parametrize("position", [-1, -7, 20])
def test_damaged_features_are_recognised_and_computed_again(tmp_path: Path, name: str, position: int) -> None:
    compute = Counter()
    open_features(tmp_path, "key", compute)
    content = bytearray((tmp_path / f"key-{name}").read_bytes())
    content[position] ^= 1
    (tmp_path / f"key-{name}").write_bytes(content)
    assert same(open_features(tmp_path, "key", compute), SOME)
    assert compute.calls == 2


def test_features_of_an_earlier_version_have_no_checksums(tmp_path: Path) -> None:
    compute = Counter()
    open_features(tmp_path, "key", compute)
    (tmp_path / "key.json").unlink()
    open_features(tmp_path, "key", compute)
    assert compute.calls == 1

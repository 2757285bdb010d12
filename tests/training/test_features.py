"""Features of a frozen backbone: what they depend on, and that they are computed once."""

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
from tests.training.conftest import Pictures, build_network

SOME = Features(np.arange(24, dtype=np.float32).reshape(2, 3, 4), np.ones((2, 4), np.float32))


class Counter:
    """Computes SOME and counts how often."""

    def __init__(self) -> None:
        self.calls = 0

    def __call__(self) -> Features:
        self.calls += 1
        return SOME


def same(one: Features, other: Features) -> bool:
    return np.array_equal(one.train, other.train) and np.array_equal(one.validation, other.validation)


def test_features_that_nobody_used_for_a_month_make_room(tmp_path: Path) -> None:
    for key, days in (("old", 31), ("recent", 29)):
        open_features(tmp_path, key, Counter())
        for file in tmp_path.glob(f"{key}-*.npy"):
            os.utime(file, (time.time() - days * 86_400,) * 2)
    open_features(tmp_path, "new", Counter())
    assert {file.name.partition("-")[0] for file in tmp_path.glob("*.npy")} == {"recent", "new"}


def test_features_in_use_stay_however_old_they_are(tmp_path: Path) -> None:
    open_features(tmp_path, "daily", Counter())
    for file in tmp_path.glob("daily-*.npy"):
        os.utime(file, (time.time() - 31 * 86_400,) * 2)
    open_features(tmp_path, "daily", Counter())
    open_features(tmp_path, "new", Counter())
    assert len(list(tmp_path.glob("daily-*.npy"))) == 2


def test_a_key_depends_on_every_fact() -> None:
    network = build_network()
    facts = {"train": ["a", "b"], "seed": 0, "augment": {"shift": 0.1}}
    changed = [{"train": ["a"]}, {"seed": 1}, {"augment": {"shift": 0.2}}]
    keys = {features_key(network, **facts)} | {features_key(network, **{**facts, **change}) for change in changed}
    assert len(keys) == 4
    assert features_key(build_network(), **facts) in keys


def test_a_digest_is_of_the_extractor_not_of_the_head() -> None:
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


def test_networks_that_pool_or_scale_differently_share_no_features() -> None:
    networks = [build_network() for _ in range(6)]
    networks[1].pool, networks[2].pool, networks[3].mean, networks[4].std = Average(), Largest(), 0.485, 0.229
    assert len({extractor_digest(network) for network in networks}) == 5  # 0 and 5 are alike


def test_an_edited_forward_is_another_extractor(monkeypatch: pytest.MonkeyPatch) -> None:
    network = build_network()
    network.pool = Average()
    before = extractor_digest(network)
    # As after an edit of the file: the class has its name still, and another body.
    monkeypatch.setattr("inspect.getsource", lambda kind: "edited" if kind is Average else kind.__qualname__)
    assert extractor_digest(network) != before


def test_they_are_computed_once_and_mapped_from_disk(tmp_path: Path) -> None:
    compute = Counter()
    first, second = (open_features(tmp_path, "key", compute) for _ in range(2))
    assert compute.calls == 1
    assert same(first, SOME)
    assert same(second, SOME)
    assert isinstance(second.train, np.memmap)
    assert {path.name for path in tmp_path.iterdir()} >= {"key-train.npy", "key-validation.npy"}
    assert not list(tmp_path.glob("*.tmp*"))


def test_keys_live_side_by_side(tmp_path: Path) -> None:
    compute = Counter()
    for key in ("one", "two", "one"):
        open_features(tmp_path, key, compute)
    assert compute.calls == 2


@pytest.mark.parametrize("kept", [0, 40, 140])
@pytest.mark.parametrize("name", ["key-train.npy", "key-validation.npy"])
def test_a_file_that_was_cut_short_is_computed_again(tmp_path: Path, name: str, kept: int) -> None:
    compute = Counter()
    open_features(tmp_path, "key", compute)
    (tmp_path / name).write_bytes((tmp_path / name).read_bytes()[:kept])
    assert same(open_features(tmp_path, "key", compute), SOME)
    assert compute.calls == 2


def test_a_computation_that_fails_leaves_nothing(tmp_path: Path) -> None:
    def fail() -> Features:
        raise MemoryError

    with pytest.raises(MemoryError):
        open_features(tmp_path, "key", fail)
    assert same(open_features(tmp_path, "key", Counter()), SOME)


def test_features_are_put_where_the_positions_say_and_the_mode_is_restored(pictures: Pictures) -> None:
    network = build_network().train()
    order = torch.randperm(len(pictures.images), generator=torch.Generator().manual_seed(0))
    found = compute_features(network, ((pictures.images[rows], rows) for rows in order.split(6)), 20, "cpu", False)
    assert network.training
    with torch.no_grad():
        np.testing.assert_allclose(found, network.eval().pooled(pictures.images), atol=1e-6)


def test_bfloat16_features_are_kept_as_float32_and_nearly_equal(pictures: Pictures) -> None:
    network, rows = build_network(), torch.arange(20)
    full, half = (compute_features(network, [(pictures.images, rows)], 20, "cpu", amp) for amp in (False, True))
    assert half.dtype == np.float32
    assert not np.array_equal(full, half)
    np.testing.assert_allclose(half, full, atol=0.02)


def test_no_images_have_no_features() -> None:
    assert compute_features(build_network(), [], 0, "cpu", False).shape == (0, 0)


def test_making_room_survives_another_process_that_does_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stale = tmp_path / "old-train.npy"
    monkeypatch.setattr(Path, "glob", lambda *_: iter([stale]))  # seen, and gone before it is looked at
    assert same(open_features(tmp_path, "key", Counter()), SOME)

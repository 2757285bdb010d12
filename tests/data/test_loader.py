"""Batches are deterministic, complete and equal for every number of threads."""

from __future__ import annotations

import threading
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from muralab.data.augment import Augment
from muralab.data.cache import PixelCache, open_cache
from muralab.data.loader import evaluation_batches, training_batches
from muralab.data.mura import read_index
from muralab.errors import DataError, SettingsError

OFF = Augment()
ON = Augment(zoom=0.2, rotate_degrees=15, shift=0.1, contrast=0.2)
EPOCH = {"batch_size": 4, "seed": 0, "epoch": 0}


@pytest.fixture(scope="module")
def table(tiny_tree) -> pd.DataFrame:
    return read_index(tiny_tree, "wrist")


@pytest.fixture(scope="module")
def cache(tiny_tree, table, tmp_path_factory) -> PixelCache:
    return open_cache(table, size=24, folder=tmp_path_factory.mktemp("cache"))


def _images(batches) -> torch.Tensor:
    return torch.cat([batch.images for batch in batches])


def test_a_batch_has_the_documented_types_and_shapes(cache, table):
    batch = next(training_batches(cache, table, ON, **EPOCH))
    assert (batch.images.dtype, tuple(batch.images.shape)) == (torch.uint8, (4, 24, 24))
    assert (batch.labels.dtype, batch.rows.dtype) == (torch.float32, torch.int64)


def test_an_epoch_contains_every_image_once_with_its_label(cache, table):
    batches = list(training_batches(cache, table, OFF, **EPOCH))
    rows = torch.cat([batch.rows for batch in batches])
    assert sorted(rows.tolist()) == list(range(len(table)))
    assert torch.cat([batch.labels for batch in batches]).tolist() == table["label"].iloc[rows.tolist()].tolist()


def test_without_augmentation_pixels_are_those_of_the_cache(cache, table):
    for batch in training_batches(cache, table, OFF, **EPOCH):
        np.testing.assert_array_equal(batch.images, cache.images[cache.rows(table.iloc[batch.rows.tolist()])])


def test_batches_for_a_gpu_are_built_in_pinned_memory(cache, table, monkeypatch):
    asked, empty = [], torch.empty
    monkeypatch.setattr(
        torch, "empty", lambda *shape, pin_memory, **kinds: asked.append(pin_memory) or empty(*shape, **kinds)
    )
    pinned = _images(training_batches(cache, table, ON, **EPOCH, workers=2, pinned=True))
    assert set(asked) == {True}
    assert torch.equal(pinned, _images(training_batches(cache, table, ON, **EPOCH)))


@pytest.mark.parametrize("workers", [1, 3])
def test_the_number_of_threads_changes_nothing(cache, table, workers):
    alone = list(training_batches(cache, table, ON, **EPOCH))
    threaded = list(training_batches(cache, table, ON, **EPOCH, workers=workers))
    assert [batch.rows.tolist() for batch in alone] == [batch.rows.tolist() for batch in threaded]
    assert torch.equal(_images(alone), _images(threaded))


def test_an_images_augmentation_does_not_depend_on_its_batch(cache, table):
    small, large = (training_batches(cache, table, ON, batch_size=size, seed=0, epoch=0) for size in (2, 8))
    assert torch.equal(_images(small), _images(large))


@pytest.mark.parametrize("other", [{"seed": 1}, {"epoch": 1}])
def test_another_seed_or_epoch_gives_another_order_and_other_draws(cache, table, other):
    def by_row(settings: dict[str, int]) -> tuple[list[int], torch.Tensor]:
        rows = torch.cat([batch.rows for batch in training_batches(cache, table, ON, **settings)])
        return rows.tolist(), _images(training_batches(cache, table, ON, **settings))[rows.argsort()]

    (order, images), (other_order, other_images) = by_row(EPOCH), by_row(EPOCH | other)
    assert order != other_order
    assert not torch.equal(images, other_images)


def test_a_last_batch_of_one_is_merged_into_the_previous_one(cache, table):
    sizes = [len(batch.rows) for batch in training_batches(cache, table[:9], OFF, **EPOCH)]
    assert sizes == [4, 5]


def test_closing_early_stops_the_threads(cache, table):
    batches = training_batches(cache, table, ON, **EPOCH, workers=2)
    next(batches)
    assert any(thread.name.startswith("muralab-loader") for thread in threading.enumerate())
    batches.close()
    assert not any(thread.name.startswith("muralab-loader") for thread in threading.enumerate())


def test_evaluation_keeps_the_order_and_the_pixels(cache, table):
    batches = list(evaluation_batches(cache, table, batch_size=4))
    assert torch.cat([batch.rows for batch in batches]).tolist() == list(range(len(table)))
    np.testing.assert_array_equal(_images(batches), cache.images[cache.rows(table)])


def test_an_unreadable_image_is_rejected_before_the_first_batch(tmp_path, write_tree):
    table = read_index(write_tree(tmp_path, n_train=2, n_valid=2), "wrist")
    Path(table["path"][0]).write_bytes(b"not an image")
    cache = open_cache(table, size=24, folder=tmp_path / "cache")
    with pytest.raises(DataError, match=r"1 images .* cannot be decoded.*cache\.readable"):
        training_batches(cache, table, OFF, **EPOCH)


@pytest.mark.parametrize("bad", [{"batch_size": 0}, {"seed": -1}, {"epoch": -1}])
def test_impossible_settings_are_rejected(cache, table, bad):
    with pytest.raises(SettingsError, match="Impossible loader settings"):
        training_batches(cache, table, OFF, **EPOCH | bad)

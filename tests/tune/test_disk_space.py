"""What a search writes to the cache's disk is counted, and refused where it does not fit."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from muralab.data.cache import open_cache
from muralab.data.mura import read_index
from muralab.errors import SettingsError
from muralab.recipe_loader import load_recipe
from muralab.tracking import Store
from muralab.tune import disk_space as disk
from muralab.tune.disk_space import check_space, feature_files, folder_bytes, pixel_files


def test_cached_images_are_recognised(tiny_tree: Path, tmp_path: Path) -> None:
    index = read_index(tiny_tree, "wrist")
    open_cache(index, size=36, folder=tmp_path / "pixels")
    files = pixel_files(len(index), [36, 40, 36], tmp_path)
    assert [(file.n_bytes, file.is_cached) for file in files] == [
        (len(index) * 36**2, True),
        (len(index) * 40**2, False),
    ]


@pytest.mark.usefixtures("lab")
def test_features_that_two_recipes_share_are_counted_once(tmp_path: Path) -> None:
    recipe = load_recipe("tiny_lab.small_net")
    sets = {"train": 10, "validation": 4}
    shared = {name: replace(recipe, pretrained="p") for name in ("one", "two")}
    (tmp_path / "features").mkdir()
    np.save(tmp_path / "features" / "key-train.npy", np.zeros((2, 10, 8), np.float32))
    files = feature_files(shared, sets, tmp_path)
    assert [(file.n_bytes, file.is_cached) for file in files] == [(640, True), (128, False)]
    assert len(feature_files({"one": recipe, "two": recipe}, sets, tmp_path)) == 4


def test_a_disk_that_is_too_small_is_refused_with_the_fix(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=2**30))
    check_space(2**30, tmp_path / "cache")
    with pytest.raises(SettingsError, match=r"about 3\.0 GiB .* at .*/cache, where 1\.0 GiB are free.*XDG_CACHE_HOME="):
        check_space(3 * 2**30, tmp_path / "cache")


def test_the_checkpoints_of_a_resumed_sweep_are_counted(tmp_path: Path) -> None:
    (tmp_path / "trial").mkdir()
    (tmp_path / "trial" / "last").write_bytes(b"12345")
    assert folder_bytes([tmp_path / "trial", tmp_path / "absent"]) == 5


@pytest.mark.parametrize(("free", "problems"), [(2**40, 0), (100 * 2**20, 2), (10 * 2**20, 2)])
def test_disks_of_temporary_files_and_runs_are_checked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: int, problems: int
) -> None:
    monkeypatch.setattr(disk, "free_bytes", lambda _: free)
    store = Store(uri=f"sqlite:///{tmp_path}/m.db")
    if not problems:
        disk.check_places(store, 4, 2**20)
        return
    with pytest.raises(SettingsError, match=r"name another disk by TMPDIR=<folder>") as caught:
        disk.check_places(store, 4, 200 * 2**20)
    assert len(str(caught.value).splitlines()) == 1 + problems

"""16-bit files of 12-bit values: one range per data set, decided by its training images, stated and remembered."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from muralab.data.audit.report import audit_images
from muralab.data.dataset import Dataset, find_dataset, open_dataset
from muralab.data.files import read_square
from muralab.data.mura import read_index
from muralab.data.names import REAL
from muralab.data.value_ranges import DECIDE
from muralab.trial import read_data, write_table

SIZE = 24


@pytest.fixture
def tree(tmp_path: Path, write_tree) -> Path:
    """A tree of 16-bit PNG files whose values need 12 bits, with one exception in the test set."""
    root = write_tree(tmp_path, parts=("wrist",), n_train=12, n_valid=4)
    for file in sorted(root.glob("*/*/*/*/image*.png")):
        wide = np.asarray(Image.open(file).convert("L")).astype(np.uint16) * np.uint16(16) + np.uint16(15)
        is_brighter = "valid" in file.relative_to(root).parts and file.name == "image1.png"
        Image.fromarray(wide * np.uint16(1 + is_brighter)).save(file)
    return root


def read(tree: Path, folder: Path, value_range=DECIDE) -> Dataset:
    source = find_dataset(str(tree), "wrist", protocol="valid-as-test", seed=0)
    return open_dataset(
        source,
        image_sizes=[SIZE],
        cache_folder=folder,
        progress=lambda _: lambda *_: None,
        value_range=value_range,
    )


def real_names(dataset: Dataset) -> dict[str, str]:
    """Code -> name of every image."""
    return dict(zip(dataset.index["image"], dataset.index[REAL["image"]]))


def test_the_training_images_decide_the_range(tree, tmp_path):
    dataset = read(tree, tmp_path / "cache")
    assert dataset.value_range == (0, 4095)
    row = dataset.splits.train.iloc[[3]]
    cached = dataset.caches[SIZE].images[dataset.caches[SIZE].rows(row)[0]]
    np.testing.assert_array_equal(cached, read_square(row["path"].iloc[0], SIZE, value_range=(0, 4095)))
    assert cached.std() > 8 * read_square(row["path"].iloc[0], SIZE).std() > 0


def test_the_range_is_remembered_and_leaves_one_cache(tree, tmp_path, monkeypatch):
    before = read(tree, tmp_path / "cache")
    monkeypatch.setattr(Path, "read_bytes", lambda path: pytest.fail(f"{path} was read again"))
    after = read(tree, tmp_path / "cache")
    assert after.value_range == before.value_range
    assert after.caches[SIZE].path == before.caches[SIZE].path
    assert list((tmp_path / "cache" / "pixels").glob("squares-*.npy")) == [before.caches[SIZE].path]


def test_lost_values_are_found_again(tree, tmp_path):
    before = read(tree, tmp_path / "cache")
    for file in (tmp_path / "cache" / "pixels").glob("values-*.json"):
        file.unlink()
    assert read(tree, tmp_path / "cache").value_range == before.value_range


def test_the_audit_states_the_range_and_what_does_not_fit(tree, tmp_path):
    dataset = read(tree, tmp_path / "cache")
    audit, names = dataset.audit, real_names(dataset)
    assert "scaled by the range of the training images, 12 bits, 0 to 4,095" in audit.paragraph()
    outside = audit.findings[audit.findings["kind"] == "outside the value range"]
    found = [names[image] for images in outside["images"] for image in images]
    assert all("/image1.png" in name and name.startswith("valid/") for name in found)
    assert len(outside) > 0


def test_an_audit_without_decoded_images_decides_the_same_range(tree, tmp_path):
    alone = audit_images(read_index(tree, "wrist"), folder=tmp_path / "audit")
    again = audit_images(read_index(tree, "wrist"), folder=tmp_path / "audit")
    assert alone.value_range == again.value_range == (0, 4095)
    assert alone.paragraph() == again.paragraph()
    dataset = read(tree, tmp_path / "cache")
    together = dataset.audit.pictures.set_index("image")["pixels"].rename(index=real_names(dataset))
    assert alone.pictures.set_index("image")["pixels"][together.index].equals(together)


def test_another_models_range_has_a_cache_of_its_own(tree, tmp_path):
    own, other = read(tree, tmp_path / "cache"), read(tree, tmp_path / "cache", value_range=(0, 8191))
    assert other.value_range == (0, 8191)
    assert own.caches[SIZE].path.is_file()
    assert own.caches[SIZE].images.mean() > 1.5 * other.caches[SIZE].images.mean()


def test_a_worker_opens_the_cache_of_its_trials_range(tree, tmp_path):
    dataset = read(tree, tmp_path / "cache")
    write_table(tmp_path / "split.csv", dataset.index, dataset.tables)
    data = read_data(str(tmp_path / "split.csv"), str(tmp_path / "cache"), SIZE, dataset.content, "0 4095")
    assert data.cache.path == dataset.caches[SIZE].path


def test_files_of_8_bits_have_no_range(tmp_path, write_tree):
    dataset = read(write_tree(tmp_path, parts=("wrist",), n_train=12, n_valid=4), tmp_path / "cache")
    assert dataset.value_range is None
    assert "black and white" not in dataset.audit.paragraph()


def test_an_ignored_window_is_found_by_the_audit(tree, tmp_path):
    from tests.fixtures.pictures import bone_dicom

    index = read_index(tree, "wrist")
    Path(index["path"].iloc[2]).write_bytes(bone_dicom(WindowCenter=2048, WindowWidth=0))
    findings = audit_images(index, folder=tmp_path / "audit").findings
    found = findings[findings["kind"] == "ignored header"].iloc[0]
    assert found["images"] == (index["image"].iloc[2],)
    assert "its window is ignored" in found["detail"]

"""The synthetic tree: MURA's layout, reproducible, complete or absent, and without shortcuts to the label."""

from __future__ import annotations

import hashlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import cv2
import numpy as np
import pytest

from muralab.demo import dataset as demo
from muralab.demo.plan import PARTS, PartPlan
from muralab.errors import DataError

TINY = (
    PartPlan(part="wrist", train_studies=4, valid_studies=3, train_abnormal=0.5, valid_abnormal=0.5),
    PartPlan(part="hand", train_studies=2, valid_studies=2, train_abnormal=0.5, valid_abnormal=0.5),
)


def digest(root: Path) -> str:
    files = sorted(path for path in root.rglob("*") if path.is_file())
    parts = [path.relative_to(root).as_posix().encode() + path.read_bytes() for path in files]
    return hashlib.sha256(b"".join(parts)).hexdigest()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    return demo.write_demo(tmp_path_factory.mktemp("tiny"), parts=TINY, workers=2)


@pytest.fixture(scope="module")
def full(tmp_path_factory):
    return demo.write_demo(tmp_path_factory.mktemp("full"), parts=PARTS)


def test_files_do_not_depend_on_the_number_of_workers(tiny, tmp_path):
    assert digest(demo.write_demo(tmp_path, parts=TINY, workers=1)) == digest(tiny)


def test_another_seed_draws_another_tree(tiny, tmp_path):
    assert digest(demo.write_demo(tmp_path, seed=1, parts=TINY)) != digest(tiny)


@pytest.mark.parametrize("split", ["train", "valid"])
def test_lists_name_exactly_the_files_on_disk(tiny, split):
    listed = (tiny / f"{split}_image_paths.csv").read_text().splitlines()
    on_disk = [path.relative_to(tiny.parent).as_posix() for path in (tiny / split).rglob("*.png")]
    assert sorted(listed) == sorted(on_disk)


@pytest.mark.parametrize("split", ["train", "valid"])
def test_labelled_studies_have_muras_format_and_match_the_folders(tiny, split):
    for line in (tiny / f"{split}_labeled_studies.csv").read_text().splitlines():
        folder, label = line.split(",")
        assert folder.startswith(f"MURA-v1.1/{split}/XR_")
        assert folder.endswith("_positive/" if label == "1" else "_negative/")
        assert (tiny.parent / folder).is_dir()


def test_a_tree_is_marked_as_synthetic(tiny, tmp_path):
    assert "SYNTHETIC DATA" in (tiny / "SYNTHETIC.txt").read_text()
    assert demo.is_synthetic(tiny)
    assert not demo.is_synthetic(tmp_path)


def test_images_are_8_bit_of_varying_size_grey_and_rgb(tiny):
    images = [cv2.imread(str(path), cv2.IMREAD_UNCHANGED) for path in tiny.rglob("*.png")]
    assert {image.dtype for image in images} == {np.dtype(np.uint8)}
    assert {image.ndim for image in images} == {2, 3}
    assert len({image.shape for image in images}) > len(images) // 2
    assert all(290 <= max(image.shape) <= 512 for image in images)


def test_a_complete_tree_is_reused(tiny):
    before = {path: path.stat().st_mtime_ns for path in tiny.rglob("*")}
    demo.write_demo(tiny.parent, parts=TINY)
    assert {path: path.stat().st_mtime_ns for path in tiny.rglob("*")} == before


def test_a_half_written_tree_is_rebuilt(tiny, tmp_path):
    root = demo.write_demo(tmp_path, parts=TINY)
    (root / demo.MARKER_NAME).unlink()
    (root / "valid_image_paths.csv").unlink()
    assert digest(demo.write_demo(tmp_path, parts=TINY)) == digest(tiny)


def test_a_failure_halfway_leaves_nothing_behind(tmp_path):
    def stop(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        demo.write_demo(tmp_path, parts=TINY, progress=stop)
    assert list(tmp_path.iterdir()) == []


def test_two_writers_at_once_leave_one_complete_tree(tiny, tmp_path):
    with ThreadPoolExecutor(2) as pool:
        roots = list(pool.map(lambda _: demo.write_demo(tmp_path, parts=TINY, workers=1), range(2)))
    assert [path.name for path in tmp_path.iterdir()] == ["MURA-v1.1"]
    assert digest(roots[0]) == digest(tiny)


def test_a_tree_that_is_not_a_demo_is_never_replaced(tmp_path):
    (tmp_path / "MURA-v1.1" / "train").mkdir(parents=True)
    with pytest.raises(DataError, match=r"not a demo tree.*will not overwrite it.*Give another folder"):
        demo.write_demo(tmp_path, parts=TINY)
    assert (tmp_path / "MURA-v1.1" / "train").is_dir()


def test_a_folder_that_cannot_be_created_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match=r"cannot be written to .*file"):
        demo.write_demo(tmp_path / "file", parts=TINY)


def test_progress_counts_every_study(tmp_path):
    seen: list[tuple[int, int]] = []
    demo.write_demo(tmp_path, parts=TINY, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(n, 11) for n in range(1, 12)]


def test_the_example_study_is_two_different_pngs_and_reproducible():
    images = demo.example_study(0)
    assert len(images) == len(set(images)) == 2
    assert all(data.startswith(b"\x89PNG") for data in images)
    assert demo.example_study(0) == images


def test_the_default_folder_is_in_the_users_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert demo.default_folder(7) == tmp_path / "muralab" / f"demo-v{demo.VERSION}-seed7"


def shortcut_features(path: Path) -> np.ndarray:
    """The grey histogram and the thumbnail of an image: shortcuts that must not predict the label."""
    grey = cv2.imread(str(path), cv2.IMREAD_GRAYSCALE)
    histogram = np.bincount(grey.ravel() >> 2, minlength=64) / grey.size
    thumbnail = cv2.resize(grey, (16, 16), interpolation=cv2.INTER_AREA)
    return np.concatenate([histogram, thumbnail.ravel() / 255.0])


def read_shortcuts(root: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    paths = sorted((root / split / "XR_WRIST").rglob("*.png"))
    return np.stack([shortcut_features(path) for path in paths]), np.array(["positive" in str(p) for p in paths])


@pytest.mark.slow
@pytest.mark.parametrize("c", [0.01, 0.1, 1.0])
def test_histogram_and_thumbnail_do_not_predict_the_label(full, c):
    from sklearn.linear_model import LogisticRegression
    from sklearn.metrics import roc_auc_score
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    model = make_pipeline(StandardScaler(), LogisticRegression(C=c, max_iter=2000)).fit(*read_shortcuts(full, "train"))
    features, labels = read_shortcuts(full, "valid")
    assert roc_auc_score(labels, model.decision_function(features)) <= 0.60

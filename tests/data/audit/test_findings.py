"""Each check of the audit finds its problem in files that have it."""

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageEnhance

from muralab.data.audit.report import Audit, audit_images
from muralab.data.mura import read_index


def found(audit: Audit, kind: str) -> pd.DataFrame:
    return audit.findings[audit.findings["kind"] == kind].reset_index(drop=True)


def noise(low: int, high: int, shape: tuple[int, int] = (40, 48), dtype: type = np.uint8) -> Image.Image:
    return Image.fromarray(np.random.default_rng(5).integers(low, high, shape, dtype=dtype))


def test_a_clean_tree_has_no_findings(audit, table):
    result = audit()
    assert result.findings.empty
    assert (result.n_images, result.n_patients) == (len(table), 28)
    assert "nothing to mention" in result.summary()


def test_a_file_that_is_not_an_image_is_unreadable(audit, table):
    Path(table["path"][3]).write_bytes(b"not an image")
    finding = found(audit(), "unreadable").iloc[0]
    assert (finding["images"], finding["severity"]) == ((table["image"][3],), "warning")
    assert finding["detail"] == "not a PNG, JPEG, TIFF, BMP or DICOM file, but text"


def test_half_a_file_is_truncated(audit, table):
    path = Path(table["path"][3])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert found(audit(), "truncated")["images"].tolist() == [(table["image"][3],)]


def test_equal_files_of_two_patients_are_exact_duplicates(audit, table, positions, copy_file):
    source, target = positions("train", 1)[:2]
    copy_file(source, target)
    finding = found(audit(), "exact duplicate").iloc[0]
    assert finding["images"] == (table["image"][source], table["image"][target])
    assert finding["detail"].startswith("equal files")


def test_the_same_pixels_in_another_file_are_exact_duplicates(audit, table, positions):
    source, target = positions("train", 1)[:2]
    Image.open(table["path"][source]).convert("L").save(table["path"][source])
    Image.open(table["path"][source]).convert("RGB").save(table["path"][target])
    assert found(audit(), "exact duplicate")["detail"][0].startswith("equal pixels")


def test_a_scaled_brightened_recompressed_copy_is_a_near_duplicate(audit, table, positions):
    source, target = positions("train", 0)[:2]
    copy = ImageEnhance.Brightness(Image.open(table["path"][source]).convert("L")).enhance(1.08).resize((96, 80))
    buffer = io.BytesIO()
    copy.save(buffer, "JPEG", quality=80)
    Image.open(buffer).save(table["path"][target])
    assert found(audit(), "near duplicate")["images"].tolist() == [(table["image"][source], table["image"][target])]


def test_an_image_on_both_sides_of_the_split_is_an_error(audit, positions, copy_file):
    copy_file(positions("train", 1)[0], positions("valid", 1)[0])
    finding = found(audit(), "leaking picture").iloc[0]
    assert finding["severity"] == "error"
    assert finding["detail"].endswith("in train and valid")


def test_an_image_with_two_labels_is_an_error(audit, positions, copy_file):
    copy_file(positions("train", 0)[0], positions("train", 1)[0])
    assert found(audit(), "conflicting picture")["detail"][0].endswith("both positive and negative")


def test_a_patient_on_both_sides_is_an_error(table, tmp_path):
    table.loc[table["split"] == "valid", "patient"] = "patient00001"
    finding = found(audit_images(table, folder=tmp_path), "leaking patient").iloc[0]
    assert (finding["severity"], finding["detail"]) == ("error", "patient00001 is in train and valid")


def test_a_study_that_is_positive_and_negative_is_an_error(table, tmp_path):
    folder = Path(table["path"][0]).parent
    shutil.copytree(folder, folder.with_name("study1_negative"))
    for path in folder.with_name("study1_negative").glob("*.png"):
        noise(0, 255).save(path)
    for file in tmp_path.rglob("*.csv"):
        file.unlink()
    index = read_index(tmp_path / "MURA-v1.1", "wrist")
    detail = found(audit_images(index, folder=tmp_path), "conflicting study")["detail"][0]
    assert detail == "train/XR_WRIST/patient00001/study1 is both positive and negative"


@pytest.mark.parametrize(
    ("kind", "image"),
    [
        ("blank", Image.new("L", (48, 40), 7)),
        ("unusual size", noise(0, 255, (40, 900))),
        ("unusual bit depth", noise(0, 65535, dtype=np.uint16)),
        ("unusual brightness", noise(245, 256)),
    ],
)
def test_an_unusual_image_is_noted(audit, table, kind, image):
    image.save(table["path"][0])
    assert table["image"][0] in found(audit(), kind)["images"][0]


def test_unusual_brightness_is_given_with_its_mean(audit, table):
    noise(245, 256).save(table["path"][0])
    assert "mean grey value 250" in found(audit(), "unusual brightness")["detail"][0]


def test_a_tree_of_the_withdrawn_release_is_a_warning(tmp_path, write_tree):
    root = write_tree(tmp_path).rename(tmp_path / "MURA-v1.0")
    finding = found(audit_images(read_index(root, "hand"), folder=tmp_path), "old release").iloc[0]
    assert (finding["severity"], finding["images"]) == ("warning", ())
    assert "named MURA-v1.0" in finding["detail"]


def test_a_renamed_tree_is_audited_again(tmp_path, write_tree):
    root = write_tree(tmp_path).rename(tmp_path / "mymura")
    assert len(found(audit_images(read_index(root, "hand"), folder=tmp_path / "audit"), "old release")) == 1
    root = root.rename(tmp_path / "MURA-v1.1")
    assert found(audit_images(read_index(root, "hand"), folder=tmp_path / "audit"), "old release").empty

from __future__ import annotations

import io
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image, ImageEnhance

from muralab.data.audit import audit as audit_module
from muralab.data.audit.audit import Audit, audit_images
from muralab.data.audit.findings import KINDS
from muralab.data.audit.near_duplicates import groups_of, near_pairs, perceptual_hash
from muralab.data.mura import read_index
from muralab.errors import DataError


@pytest.fixture
def table(tmp_path, write_tree) -> pd.DataFrame:
    return read_index(write_tree(tmp_path, parts=("wrist",), n_train=20, n_valid=8), "wrist")


@pytest.fixture
def audit(table, tmp_path):
    def look() -> Audit:
        return audit_images(table, folder=tmp_path / "audit")

    return look


def _places(table: pd.DataFrame, split: str, label: int) -> list[int]:
    """One place a patient."""
    rows = table[(table["split"] == split) & (table["label"] == label)]
    return rows.drop_duplicates("patient").index.tolist()


def _copy(table: pd.DataFrame, source: int, target: int) -> None:
    shutil.copy(table["path"][source], table["path"][target])


def _found(audit: Audit, kind: str) -> pd.DataFrame:
    return audit.findings[audit.findings["kind"] == kind].reset_index(drop=True)


def test_clean_tree_has_nothing_to_mention(audit, table):
    result = audit()
    assert result.findings.empty
    assert (result.n_images, result.n_patients) == (len(table), 28)
    assert "nothing to mention" in result.summary()


def test_summary_counts_what_was_read(audit):
    assert audit().summary().startswith("56 images of 28 studies and 28 patients were read and hashed (")


def test_file_that_is_no_picture_is_unreadable(audit, table):
    Path(table["path"][3]).write_bytes(b"no picture")
    finding = _found(audit(), "unreadable").iloc[0]
    assert (finding["images"], finding["severity"]) == ((table["image"][3],), "warning")
    assert finding["detail"] == "not a PNG, JPEG or DICOM file"


def test_half_a_file_is_truncated(audit, table):
    path = Path(table["path"][3])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert _found(audit(), "truncated")["images"].tolist() == [(table["image"][3],)]


def test_equal_files_of_two_patients_are_exact_duplicates(audit, table):
    source, target = _places(table, "train", 1)[:2]
    _copy(table, source, target)
    finding = _found(audit(), "exact duplicate").iloc[0]
    assert finding["images"] == (table["image"][source], table["image"][target])
    assert finding["detail"].startswith("equal files")


def test_same_pixels_in_another_file_are_exact_duplicates(audit, table):
    source, target = _places(table, "train", 1)[:2]
    Image.open(table["path"][source]).convert("L").save(table["path"][source])
    Image.open(table["path"][source]).convert("RGB").save(table["path"][target])
    assert _found(audit(), "exact duplicate")["detail"][0].startswith("equal pixels")


def test_scaled_brightened_recompressed_copy_is_a_near_duplicate(audit, table):
    source, target = _places(table, "train", 0)[:2]
    copy = ImageEnhance.Brightness(Image.open(table["path"][source]).convert("L")).enhance(1.08).resize((96, 80))
    buffer = io.BytesIO()
    copy.save(buffer, "JPEG", quality=80)
    Image.open(buffer).save(table["path"][target])
    assert _found(audit(), "near duplicate")["images"].tolist() == [(table["image"][source], table["image"][target])]


def test_picture_on_both_sides_of_the_split_is_an_error(audit, table):
    _copy(table, _places(table, "train", 1)[0], _places(table, "valid", 1)[0])
    finding = _found(audit(), "leaking picture").iloc[0]
    assert finding["severity"] == "error"
    assert finding["detail"].endswith("in train and valid")


def test_picture_with_two_labels_is_an_error(audit, table):
    _copy(table, _places(table, "train", 0)[0], _places(table, "train", 1)[0])
    assert _found(audit(), "conflicting picture")["detail"][0].endswith("both positive and negative")


def test_patient_on_both_sides_is_an_error(table, tmp_path):
    table.loc[table["split"] == "valid", "patient"] = "patient00001"
    finding = _found(audit_images(table, folder=tmp_path), "leaking patient").iloc[0]
    assert (finding["severity"], finding["detail"]) == ("error", "patient00001 is in train and valid")


def test_study_that_is_positive_and_negative_is_an_error(audit, table, tmp_path):
    folder = Path(table["path"][0]).parent
    shutil.copytree(folder, folder.with_name("study1_negative"))
    for path in folder.with_name("study1_negative").glob("*.png"):
        Image.fromarray(np.random.default_rng(5).integers(0, 255, (40, 48), dtype=np.uint8)).save(path)
    for file in tmp_path.rglob("*.csv"):
        file.unlink()
    index = read_index(tmp_path / "MURA-v1.1", "wrist")
    detail = _found(audit_images(index, folder=tmp_path), "conflicting study")["detail"][0]
    assert detail == "train/XR_WRIST/patient00001/study1 is both positive and negative"


def test_odd_pictures_are_noted(audit, table):
    Image.new("L", (48, 40), 7).save(table["path"][0])
    Image.fromarray(np.random.default_rng(5).integers(0, 255, (40, 900), dtype=np.uint8)).save(table["path"][1])
    Image.fromarray(np.random.default_rng(6).integers(0, 65535, (40, 48), dtype=np.uint16)).save(table["path"][2])
    result = audit()
    for place, kind in enumerate(["blank", "unusual size", "unusual bit depth"]):
        assert table["image"][place] in _found(result, kind)["images"][0]


def test_far_too_bright_picture_is_noted(audit, table):
    bright = np.random.default_rng(5).integers(245, 256, (40, 48), dtype=np.uint8)
    Image.fromarray(bright).save(table["path"][0])
    assert "mean grey value 250" in _found(audit(), "unusual brightness")["detail"][0]


def test_tree_of_the_withdrawn_release_is_a_warning(tmp_path, write_tree):
    root = write_tree(tmp_path).rename(tmp_path / "MURA-v1.0")
    finding = _found(audit_images(read_index(root, "hand"), folder=tmp_path), "old release").iloc[0]
    assert (finding["severity"], finding["images"]) == ("warning", ())
    assert "named MURA-v1.0" in finding["detail"]


def test_a_tree_that_was_renamed_as_advised_is_looked_at_again(tmp_path, write_tree):
    root = write_tree(tmp_path).rename(tmp_path / "mymura")
    assert len(_found(audit_images(read_index(root, "hand"), folder=tmp_path / "audit"), "old release")) == 1
    root = root.rename(tmp_path / "MURA-v1.1")
    assert _found(audit_images(read_index(root, "hand"), folder=tmp_path / "audit"), "old release").empty


def test_second_look_reads_no_file(audit, table, monkeypatch):
    _copy(table, *_places(table, "train", 1)[:2])
    first = audit()
    monkeypatch.setattr(audit_module, "read_facts", None)
    second = audit()
    assert first.summary() == second.summary()
    assert second.findings["images"].tolist() == first.findings["images"].tolist()


def test_result_is_looked_for_again_after_a_change(audit, table):
    before = audit()
    Path(table["path"][3]).write_bytes(b"no picture")
    assert audit().counts["unreadable"] == 1
    assert before.counts == dict.fromkeys(KINDS, 0)


def test_digest_sees_bytes_and_labels_and_not_the_order(table, tmp_path):
    def digest(rows: pd.DataFrame, name: str) -> str:
        return audit_images(rows, folder=tmp_path / name).digest

    first = digest(table, "a")
    assert digest(table[::-1], "b") == first
    assert digest(table.assign(label=1 - table["label"]), "c") != first
    path = Path(table["path"][0])
    path.write_bytes(path.read_bytes() + b"\0")
    assert digest(table, "d") != first


def test_progress_ends_at_the_number_of_images(table, tmp_path):
    seen: list[tuple[int, int]] = []
    audit_images(table, folder=tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (len(table), len(table))


def test_empty_table_is_refused(table, tmp_path):
    with pytest.raises(DataError, match="no image to audit"):
        audit_images(table[:0], folder=tmp_path)


def test_folder_that_cannot_be_written_is_an_error(table, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(DataError, match=r"audit cannot be written to .*/file: "):
        audit_images(table, folder=tmp_path / "file")


def test_search_finds_the_pairs_that_all_comparisons_find(monkeypatch):
    monkeypatch.setattr("muralab.data.audit.near_duplicates.BLOCK", 50)
    rng = np.random.default_rng(0)
    base = rng.integers(0, 256, (60, 32, 32), dtype=np.uint8)
    noisy = np.clip(base[:20] + rng.normal(0, 6, (20, 32, 32)), 0, 255).astype(np.uint8)
    thumbnails = np.concatenate([base, noisy])
    hashes = np.array([perceptual_hash(thumbnail) for thumbnail in thumbnails], dtype=np.uint64)
    assert near_pairs(hashes, thumbnails).tolist() == [[i, 60 + i] for i in range(20)]


def test_pairs_become_groups():
    assert groups_of(np.array([[0, 4], [2, 3], [4, 5]])) == [[0, 4, 5], [2, 3]]

"""The synthetic export: DICOM files in folders of a PACS, readable, complete, and without shortcuts in its headers."""

from __future__ import annotations

import csv
import io
from collections import Counter
from pathlib import Path

import cv2
import numpy as np
import pytest

from muralab.data.files import read_image
from muralab.data.scan import scan_folder
from muralab.demo.dataset import draw_views, is_synthetic
from muralab.demo.pacs import write_export
from muralab.demo.pacs_objects import build_picture, study_facts
from muralab.demo.plan import PARTS, plan_images
from muralab.errors import DataError

N_IMAGES = 30


@pytest.fixture
def export(pacs_export) -> Path:
    return pacs_export


def test_it_has_the_pictures_that_were_asked_for_and_objects_without_pixels(export):
    scan = scan_folder(export)
    assert len(scan.pictures) == N_IMAGES
    reasons = Counter(one.reason for one in scan.unused)
    assert set(reasons) == {"DICOMDIR", "presentation state (PR)", "report (SR)"}
    assert all("." not in one.name for one in scan.pictures)


def test_files_lie_in_patient_study_and_series_folders_and_several_devices_wrote_them(export):
    scan = scan_folder(export)
    assert {one.name.count("/") for one in scan.pictures} == {3}
    assert len({one.header.device for one in scan.pictures}) == 3
    assert {one.header.part for one in scan.pictures} == {"hand", "wrist"}
    assert all(one.header.age and one.header.sex and one.header.laterality and one.header.view for one in scan.pictures)


def test_every_study_has_a_label_and_the_identifiers_of_its_headers(export):
    with (export.parent / "labels.csv").open(encoding="utf-8") as file:
        rows = {row["study"]: row for row in csv.DictReader(file)}
    headers = [one.header for one in scan_folder(export).pictures]
    assert {header.study for header in headers} == set(rows)
    for header in headers:
        row = rows[header.study]
        assert (header.accession, header.patient) == (row["accession"], row["patient"])
    assert {row["label"] for row in rows.values()} == {"normal", "abnormal"}


def test_decoded_files_show_what_was_drawn_whatever_the_device(export):
    first = {one.header.study: one for one in reversed(scan_folder(export).pictures)}
    by_device = {}
    for study in plan_images(PARTS, 0, N_IMAGES):
        file = first[study_facts(study, 0).study]
        by_device[file.header.device] = (study, file)
    assert len(by_device) == 3
    for study, file in by_device.values():
        drawn = cv2.imdecode(np.frombuffer(next(draw_views(study)), np.uint8), cv2.IMREAD_GRAYSCALE)
        np.testing.assert_array_equal(read_image(file.path).grey, drawn)


def save(study, png: bytes, seed: int) -> bytes:
    buffer = io.BytesIO()
    build_picture(study, png, view=0, seed=seed).save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def test_the_same_seed_writes_the_same_file_and_another_seed_another():
    (study, *_) = plan_images(PARTS, 0, N_IMAGES)
    png = next(draw_views(study))
    assert save(study, png, 0) == save(study, png, 0) != save(study, png, 1)


def test_it_is_marked_as_synthetic_and_reused(export):
    before = {path: path.stat().st_mtime_ns for path in export.rglob("*")}
    assert write_export(export.parent, n_images=N_IMAGES) == export
    assert {path: path.stat().st_mtime_ns for path in export.rglob("*")} == before
    assert is_synthetic(export.parent)


def test_another_folder_is_never_replaced(tmp_path):
    (tmp_path / "mine.txt").touch()
    with pytest.raises(DataError, match=r"exists and holds other data than this demo\. Give a new folder"):
        write_export(tmp_path, n_images=N_IMAGES)


@pytest.mark.parametrize("n_images", [20, 40, 300, 1000])
def test_a_plan_has_exactly_the_images_that_were_asked_for(n_images):
    studies = plan_images(PARTS, 0, n_images)
    assert sum(study.n_views for study in studies) == n_images
    assert {(study.part, study.label) for study in studies} >= {("wrist", 0), ("wrist", 1)}

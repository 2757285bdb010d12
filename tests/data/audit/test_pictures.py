"""The identities of pictures: equal for copies under any name, and stored with the audit."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
from PIL import Image

from muralab.data.audit.pictures import changed_pictures
from muralab.data.audit.report import Audit


def pictures(audit: Audit) -> pd.DataFrame:
    return audit.pictures.set_index("image")


def test_every_image_has_its_own_identity(audit, table):
    found = pictures(audit())
    assert list(found.index) == sorted(table["image"])
    assert found["pixels"].is_unique
    assert (found["pixels"] == found["group"]).all()
    assert found["hash"].str.fullmatch("[0-9a-f]{16}").all()


def test_a_copy_has_the_pixels_of_its_original(audit, table, positions, copy_file):
    source, target = positions("train", 1)[:2]
    copy_file(source, target)
    found = pictures(audit())
    assert found["pixels"][table["image"][source]] == found["pixels"][table["image"][target]]


def test_near_duplicates_and_their_copies_are_one_group(audit, table, positions, copy_file):
    source, scaled, copy = positions("train", 0)[:3]
    Image.open(table["path"][source]).convert("L").resize((96, 80)).save(table["path"][scaled])
    copy_file(scaled, copy)
    found = pictures(audit())
    names = list(table["image"][[source, scaled, copy]])
    assert found.loc[names, "pixels"].nunique() == 2
    assert set(found.loc[names, "group"]) == {min(found.loc[names, "pixels"])}


def test_an_unreadable_image_has_no_identity(audit, table):
    Path(table["path"][3]).write_bytes(b"not an image")
    found = pictures(audit()).loc[table["image"][3]]
    assert found["file"] != ""
    assert list(found[["pixels", "group", "hash"]]) == ["", "", ""]


def test_blank_images_are_not_told_apart_by_their_hash(audit, table):
    Image.new("L", (48, 40), 7).save(table["path"][0])
    assert pictures(audit())["hash"][table["image"][0]] == ""


def test_a_stored_audit_has_the_same_pictures(audit):
    pd.testing.assert_frame_equal(audit().pictures, audit().pictures)


def test_pictures_whose_bytes_changed_are_found(audit, table):
    before = audit().pictures
    Path(table["path"][5]).write_bytes(Path(table["path"][6]).read_bytes())
    Path(table["path"][7]).unlink()
    assert changed_pictures(before, audit().pictures) == sorted(table["image"][[5, 7]])


def test_pictures_are_not_compared_with_tables_that_do_not_identify_files(audit):
    found = audit().pictures
    assert changed_pictures(found.drop(columns="file"), found) is None
    assert changed_pictures(found.assign(file=""), found) is None

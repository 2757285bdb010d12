"""A manifest gives the table that a MURA tree gives; what is wrong with its rows is one list."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from muralab.data.manifest import is_manifest, read_manifest
from muralab.data.mura import COLUMNS, read_index
from muralab.data.source import DatasetSource
from muralab.errors import DataError, SettingsError
from tests.fixtures.manifests import Rows, rows_of, without, write_csv, write_german_csv, write_parquet

FURTHER = ({"age": 41.5, "device": "Agfa"}, {"age": 7.0, "device": "Siemens"})
WRITERS = {"csv": write_csv, "german": write_german_csv, "parquet": write_parquet}


@pytest.fixture
def tree(tmp_path: Path, write_tree: Any) -> Path:
    root: Path = write_tree(tmp_path, parts=("hand", "wrist"), n_train=12, n_valid=4, lists=False)
    return root


@pytest.fixture
def rows(tree: Path) -> Rows:
    return [row | FURTHER[number % 2] for number, row in enumerate(rows_of(tree))]


def problems_of(path: Path, part: str = "wrist", **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        read_manifest(path, part, **options)
    return str(caught.value)


# The table


@pytest.mark.parametrize("name", WRITERS)
def test_a_manifest_gives_the_rows_of_the_tree(tree: Path, rows: Rows, name: str) -> None:
    manifest = read_manifest(WRITERS[name](tree / f"rows.{name}", rows), "wrist")
    expected = read_index(tree, "wrist").assign(split=[row["split"] for row in rows])
    pd.testing.assert_frame_equal(manifest.index, expected[list(COLUMNS)])


@pytest.mark.parametrize("name", WRITERS)
def test_further_columns_are_facts_about_images(tree: Path, rows: Rows, name: str) -> None:
    facts = read_manifest(WRITERS[name](tree / f"rows.{name}", rows), "wrist").facts
    assert facts["age"].tolist() == [row["age"] for row in rows]
    assert facts["device"].tolist() == [row["device"] for row in rows]
    assert facts.index.tolist() == [row["image"] for row in rows]


def test_facts_follow_their_images_and_not_the_order_of_rows(tree: Path, rows: Rows) -> None:
    shuffled = [rows[place] for place in np.random.default_rng(0).permutation(len(rows))]
    one, other = (read_manifest(write_csv(tree / "rows.csv", table), "wrist") for table in (rows, shuffled))
    pd.testing.assert_frame_equal(one.index, other.index)
    pd.testing.assert_frame_equal(one.facts, other.facts)


def test_facts_of_a_study_are_missing_where_its_images_differ(tree: Path, rows: Rows) -> None:
    facts = read_manifest(write_csv(tree / "rows.csv", rows), "wrist").study_facts
    alone, several = (next(s for s in studies_of(rows) if (len(studies_of(rows)[s]) > 1) == many) for many in (0, 1))
    assert facts.loc[alone].tolist() == [studies_of(rows)[alone][0][name] for name in ("age", "device")]
    assert np.isnan(facts.loc[several, "age"])
    assert facts.loc[several, "device"] == ""


def studies_of(rows: Rows) -> dict[str, Rows]:
    studies: dict[str, Rows] = {}
    for row in rows:
        studies.setdefault(str(row["study"]), []).append(row)
    return studies


def test_columns_are_mapped_and_their_case_does_not_matter(tree: Path, rows: Rows) -> None:
    names = {
        "image": "Datei",
        "label": "fracture",
        "patient": "PATIENT",
        "study": "study",
        "part": "Part",
        "split": "split",
    }
    renamed = [{names[key]: value for key, value in row.items() if key in names} for row in rows]
    path = write_csv(tree / "rows.csv", renamed)
    manifest = read_manifest(path, "wrist", columns={"image": "Datei", "label": "fracture"})
    assert manifest.columns == names
    assert manifest.facts.columns.empty


def test_one_column_may_be_image_and_patient(tree: Path, rows: Rows) -> None:
    path = write_csv(tree / "rows.csv", without(rows, "patient", "study"))
    index = read_manifest(path, "wrist", columns={"patient": "image"}).index
    assert (index["patient"] == index["image"]).all()


@pytest.mark.parametrize("form", ["{image}", "./{image}", "{root}/{image}"])
def test_paths_start_from_the_root(tree: Path, rows: Rows, tmp_path: Path, form: str) -> None:
    moved = [row | {"image": form.format(image=row["image"], root=tree)} for row in rows]
    index = read_manifest(write_csv(tmp_path / "rows.csv", moved), "wrist", root=tree).index
    assert index["image"].tolist() == [row["image"] for row in rows]


def test_backslashes_separate_folders_too(tree: Path, rows: Rows) -> None:
    windows = [row | {"image": str(row["image"]).replace("/", "\\")} for row in rows]
    index = read_manifest(write_csv(tree / "rows.csv", windows), "wrist").index
    assert index["image"].tolist() == [row["image"] for row in rows]


@pytest.mark.parametrize(
    ("normal", "abnormal"),
    [("0", "1"), ("False", "TRUE"), ("negative", "Positive"), ("normal", "abnormal"), ("0,0", "1,0")],
)
def test_labels_are_words_or_numbers(tree: Path, rows: Rows, normal: str, abnormal: str) -> None:
    worded = [row | {"label": (normal, abnormal)[int(str(row["label"]))]} for row in rows]
    index = read_manifest(write_csv(tree / "rows.csv", worded), "wrist").index
    assert index["label"].tolist() == [row["label"] for row in rows]


def test_a_study_name_of_several_patients_counts_within_each(tree: Path, rows: Rows) -> None:
    numbered = [row | {"study": "1"} for row in without(rows, "label")]
    labelled = [row | {"label": int(str(row["patient"])[-1]) % 2} for row in numbered]
    manifest = read_manifest(write_csv(tree / "rows.csv", labelled), "wrist")
    assert set(manifest.index["study"]) == {f"{row['patient']}/1" for row in rows}
    assert "'1' occur with several patients" in " ".join(manifest.notes)


def test_an_image_without_a_study_is_its_own(tree: Path, rows: Rows) -> None:
    unnamed = [row | {"study": ""} for row in rows]
    index = read_manifest(write_csv(tree / "rows.csv", unnamed), "wrist").index
    assert (index["study"] == index["image"]).all()


def test_images_of_other_parts_are_counted(tree: Path, rows: Rows) -> None:
    manifest = read_manifest(write_csv(tree / "rows.csv", [*rows_of(tree, "all")]), "wrist")
    n_hands = len(read_index(tree, "hand"))
    assert manifest.notes == (f"rows.csv: {n_hands} images of other parts are not used ({n_hands} of hand).",)
    assert manifest.parts == ("hand", "wrist")
    assert len(read_manifest(manifest.path, "all").index) == len(rows) + n_hands


def test_parts_are_written_in_any_case_and_may_be_unknown(tree: Path, rows: Rows) -> None:
    parts = ["XR_WRIST", "Wrist", ""]
    mixed = [row | {"part": parts[number % 3]} for number, row in enumerate(rows)]
    manifest = read_manifest(write_csv(tree / "rows.csv", mixed), "all")
    assert manifest.parts == ("unknown", "wrist")


def test_a_manifest_without_parts_is_of_the_wanted_one(tree: Path, rows: Rows) -> None:
    manifest = read_manifest(write_csv(tree / "rows.csv", without(rows, "part")), "elbow")
    assert set(manifest.index["part"]) == {"elbow"}
    assert "all of its" in manifest.notes[0]
    assert "taken as part=elbow" in manifest.notes[0]


def test_a_folder_is_not_a_manifest(tmp_path: Path) -> None:
    (tmp_path / "odd.csv").mkdir()
    (tmp_path / "table").write_text("image,label,patient\n")
    names = ("odd.csv", "absent.csv", "absent", "table", "absent.parquet")
    assert [is_manifest(str(tmp_path / name)) for name in names] == [False, True, False, True, True]


# What is wrong


CHANGES: dict[str, tuple[dict[str, object], str]] = {
    "missing file": ({"image": "gone.png"}, r"row 2: there is no file gone\.png"),
    "no image": ({"image": ""}, "row 2: the image is missing"),
    "no patient": ({"patient": "#NV"}, "row 2: the patient is missing"),
    "shortened": ({"patient": "1,23457E+17"}, r"row 2: the patient 1,23457E\+17 was shortened"),
    "label": ({"label": "maybe"}, "row 2: 'maybe' is not a label"),
    "no label": ({"label": ""}, "row 2: '' is not a label"),
    "split": ({"split": "valid"}, "row 2: 'valid' is not a split"),
    "sets": ({"split": "test"}, "row 3: patient patient00020 is in train, and in test in row 2"),
    "labels": ({"label": 1}, "row 3: study train/XR_WRIST/patient00020/study1_negative has label 0, and 1 in row 2"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_a_wrong_row_is_named_with_its_reason(tree: Path, rows: Rows, name: str) -> None:
    change, message = CHANGES[name]
    own = [row for row in rows if row["patient"] == "patient00020"]  # normal, of several views
    assert len(own) > 1
    others = [row for row in rows if row not in own]
    text = problems_of(write_csv(tree / "rows.csv", [own[0] | change, *own[1:], *others]))
    assert pd.Series([text]).str.contains(message).all(), text
    assert text.startswith(f"The manifest {tree / 'rows.csv'} has 1 problem:")


def test_an_image_named_twice(tree: Path, rows: Rows) -> None:
    text = problems_of(write_csv(tree / "rows.csv", [*rows, rows[0]]))
    assert f"row {len(rows) + 2}: {rows[0]['image']} is also in row 2" in text


def test_every_kind_of_problem_is_shown_and_all_are_counted(tree: Path, rows: Rows) -> None:
    gone = [row | {"image": f"gone{number}.png"} for number, row in enumerate(rows * 4)]
    gone[-1]["label"] = "maybe"
    text = problems_of(write_csv(tree / "rows.csv", [row | {"study": ""} for row in gone]))
    assert f"has {len(gone) + 1} problems:" in text
    assert f"row {len(gone) + 1}: 'maybe' is not a label" in text
    assert "\n  20. row " in text
    assert f"... and {len(gone) + 1 - 20} more" in text
    assert f"Image paths start from {tree}: give root=<folder>" in text


def test_a_column_that_is_missing_or_unknown(tree: Path, rows: Rows) -> None:
    path = write_csv(tree / "rows.csv", [{"fractured": 1, **row} for row in without(rows, "label", "patient")])
    text = problems_of(path, columns={"label": "fracture"})
    assert "lacks 2 columns" in text
    assert "columns=label:fracture: there is no column 'fracture'. Did you mean 'fractured'?" in text
    assert "There is no column patient: name the one that holds it with columns=patient:<name>." in text
    assert "It has: fractured, image, study, part, split, age, device.\nAll go into one option: columns=image:" in text
    assert text.endswith("the column of the images as patient makes each image its own.")


@pytest.mark.parametrize(
    ("part", "message"), [("elbow", r"no part 'elbow'\. It has: wrist \(or all\)"), ("", "no part ''")]
)
def test_an_unknown_part_lists_the_known_ones(tree: Path, rows: Rows, part: str, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_manifest(write_csv(tree / "rows.csv", rows), part)


@pytest.mark.parametrize("part", ["", "../wrist", "a/b"])
def test_a_part_that_cannot_be_a_name(tree: Path, rows: Rows, part: str) -> None:
    with pytest.raises(DataError, match="expected a name of letters"):
        read_manifest(write_csv(tree / "rows.csv", without(rows, "part")), part)


def test_a_file_a_root_or_rows_that_are_missing(tmp_path: Path) -> None:
    assert "does not exist" in problems_of(tmp_path / "absent.csv")
    (tmp_path / "rows.csv").write_text("image,label,patient\n")
    assert "has no rows below its header" in problems_of(tmp_path / "rows.csv")
    assert "is not a folder" in problems_of(tmp_path / "rows.csv", root=tmp_path / "absent")


# The split


def source_of(path: Path, **options: Any) -> DatasetSource:
    return DatasetSource(data=str(path), part="wrist", **options)


@pytest.mark.parametrize("seed", [0, 3])
def test_a_manifest_with_the_trees_test_set_is_split_as_the_tree(tree: Path, rows: Rows, seed: int) -> None:
    ours = source_of(write_csv(tree / "rows.csv", rows), seed=seed).split_of_all[0]
    trees = source_of(tree, seed=seed).split_of_all[0]
    assert (ours.fingerprint, ours.protocol) == (trees.fingerprint, "manifest")
    for (_, mine), (_, theirs) in zip(ours.items(), trees.items()):
        pd.testing.assert_frame_equal(mine.drop(columns="split"), theirs.drop(columns="split"))


def test_a_manifests_own_validation_set_is_kept(tree: Path, rows: Rows) -> None:
    held = {"patient00017", "patient00018"}
    given = [row | {"split": "validation" if row["patient"] in held else row["split"]} for row in rows]
    splits = source_of(write_csv(tree / "rows.csv", given)).split_of_all[0]
    assert set(splits.validation["patient"]) == held


def test_without_a_split_a_fifth_of_the_patients_is_for_testing(tree: Path, rows: Rows) -> None:
    splits = source_of(write_csv(tree / "rows.csv", without(rows, "split"))).split_of_all[0]
    assert splits.protocol == "test_fraction=0.2"
    assert splits.test["patient"].nunique() == 4  # of 16: 2 of each class
    assert splits.validation["patient"].nunique() == 2


def test_every_patient_is_in_one_test_fold(tree: Path, rows: Rows) -> None:
    path = write_csv(tree / "rows.csv", without(rows, "split"))
    splits = [source_of(path, protocol=f"test_folds={fold}/4").split_of_all[0] for fold in (1, 2, 3, 4)]
    patients = [patient for split in splits for patient in split.test["patient"].unique()]
    assert sorted(patients) == sorted({str(row["patient"]) for row in rows})
    assert {split.test.groupby("patient")["label"].max().mean() for split in splits} == {0.5}


@pytest.mark.parametrize(
    ("protocol", "columns", "message"),
    [
        ("test_fraction=0.3", (), r"test_fraction=0\.3: the manifest .* has its own split, in the column split"),
        ("valid-as-test", ("split",), "has no column split. Give test_fraction or test_folds"),
        ("test_folds=6/5", ("split",), "there is no fold 6 of 5"),
    ],
)
def test_a_test_set_that_does_not_fit_the_manifest(
    tree: Path, rows: Rows, protocol: str, columns: tuple[str, ...], message: str
) -> None:
    path = write_csv(tree / "rows.csv", without(rows, *columns))
    with pytest.raises(SettingsError, match=message):
        _ = source_of(path, protocol=protocol).split_of_all


def test_classes_that_sets_lack_are_all_named(tree: Path, rows: Rows) -> None:
    path = write_csv(tree / "rows.csv", [row for row in rows if row["label"]])
    with pytest.raises(DataError, match=r"(?s)1\. The train split has no normal .*3\. The test split has no normal"):
        _ = source_of(path).split_of_all


def test_a_manifest_of_test_images_alone_can_be_evaluated(tree: Path, rows: Rows) -> None:
    path = write_csv(tree / "rows.csv", [row for row in rows if row["split"] == "test"])
    splits = source_of(path, sets=("test",)).split_of_all[0]
    assert (len(splits.train), len(splits.validation)) == (0, 0)
    assert splits.test["label"].nunique() == 2


def test_forty_thousand_rows_are_read_in_seconds(tmp_path: Path) -> None:
    (tmp_path / "0").mkdir()
    for number in range(200):
        (tmp_path / "0" / f"{number}.png").touch()
        (tmp_path / f"{number + 1}").symlink_to(tmp_path / "0")
    rows = [
        {"image": f"{place // 200}/{place % 200}.png", "label": place % 2, "patient": f"p{place // 8 * 2 + place % 2}",
         "study": f"s{place}", "part": "wrist", "split": ("train", "test")[place // 8 % 4 == 0], "age": 20.5}
        for place in range(40_000)
    ]  # fmt: skip
    path, before_s = write_csv(tmp_path / "rows.csv", rows), time.process_time()
    assert len(read_manifest(path, "wrist").index) == 40_000
    assert time.process_time() - before_s < 10  # about one where nothing else runs

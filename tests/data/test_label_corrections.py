"""What readers decided is applied on top of a data set's labels; what is wrong with their table is one list."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from muralab.data.dataset import open_dataset
from muralab.data.mura import read_index
from muralab.data.source import DatasetSource
from muralab.errors import DataError
from tests.fixtures.manifests import rows_of, without, write_csv

NORMAL = "train/XR_WRIST/patient00036/study1_negative"
ABNORMAL = "train/XR_WRIST/patient00035/study1_positive"
OF_ANOTHER_PART = "train/XR_HAND/patient00001/study1_positive"


@pytest.fixture
def tree(tmp_path: Path, write_tree: Any) -> Path:
    root: Path = write_tree(tmp_path, parts=("hand", "wrist"), n_train=24, n_valid=8, lists=False)
    return root


def decided(study: str, label: object, reader: str = "KM", **further: object) -> dict[str, object]:
    return {"study": study, "label": label, "reader": reader, "reason": "", **further}


def corrected(tree: Path, rows: Sequence[Mapping[str, object]], **options: Any) -> DatasetSource:
    path = write_csv(tree.parent / "read.csv", rows)
    given = {"data": str(tree), "part": "wrist", **options}
    return DatasetSource(label_corrections=str(path), **given).checked()


def complaint(tree: Path, rows: Sequence[Mapping[str, object]], **options: Any) -> str:
    with pytest.raises(DataError) as caught:
        corrected(tree, rows, **options)
    return str(caught.value)


def labels_of(source: DatasetSource) -> dict[str, int]:
    return dict(zip(source.index["study"], source.index["label"]))


def test_labels_of_all_images_of_a_study_are_replaced(tree: Path) -> None:
    source = corrected(tree, [decided(ABNORMAL, "normal"), decided(NORMAL, 1)])
    before = dict(read_index(tree, "wrist")[["study", "label"]].to_numpy().tolist())
    assert labels_of(source) == before | {ABNORMAL: 0, NORMAL: 1}
    assert source.corrections is not None
    assert source.corrections.counts() == {"to_abnormal": 1, "to_normal": 1, "confirmed": 0, "without_reader": 0}


def test_the_same_patients_are_tested_with_and_without_corrections(tree: Path) -> None:
    plain = DatasetSource(data=str(tree), part="wrist").split_of_all[0]
    splits = corrected(tree, [decided(ABNORMAL, 0), decided(NORMAL, 1)]).split_of_all[0]
    for (_, ours), (_, theirs) in zip(splits.items(), plain.items()):
        assert ours["image"].tolist() == theirs["image"].tolist()
    assert splits.fingerprint != plain.fingerprint
    again = corrected(tree, [decided(ABNORMAL, 1), decided(NORMAL, 0)])  # both confirmed
    assert again.split_of_all[0].fingerprint == plain.fingerprint


def test_names_as_muras_lists_and_windows_write_them(tree: Path) -> None:
    rows = [decided(f"MURA-v1.1/{ABNORMAL}/", 0), decided(NORMAL.replace("/", "\\"), 1)]
    found = labels_of(corrected(tree, rows))
    assert (found[ABNORMAL], found[NORMAL]) == (0, 1)


def test_rows_of_another_part_are_counted(tree: Path) -> None:
    for data in (tree, write_csv(tree / "rows.csv", [*rows_of(tree), *rows_of(tree, "hand")])):
        source = corrected(tree, [decided(ABNORMAL, 0), decided(OF_ANOTHER_PART, 0)], data=str(data))
        assert source.corrections is not None
        assert source.corrections.n_elsewhere == 1
        assert "rows about other parts: 1" in source.notes[-1]


def test_an_unedited_row_of_the_suspicious_labels_decides_nothing(tree: Path) -> None:
    rows = [decided(ABNORMAL, 0, reader="", rank=1), decided(NORMAL, 0, reader="", rank=2)]
    source = corrected(tree, rows)
    assert source.corrections is not None
    assert source.corrections.decided["study"].tolist() == [ABNORMAL]
    assert "new labels without a reader's name: 1" in source.corrections.sentence()


def test_two_readers_may_agree(tree: Path) -> None:
    source = corrected(tree, [decided(ABNORMAL, 0, reader=""), decided(ABNORMAL, "negative", reader="LM")])
    assert source.corrections is not None
    assert source.corrections.decided[["label", "reader"]].to_numpy().tolist() == [[0, "LM"]]


def test_everything_wrong_is_one_list(tree: Path) -> None:
    rows = [
        decided(ABNORMAL.replace("00035", "00935"), 1),
        decided(ABNORMAL, "perhaps"),
        decided("", 1),
        decided(NORMAL, 1),
        decided(NORMAL, 0, reader="LM"),
        decided("s-abcdefgh234567ab", 1),
    ]
    text = complaint(tree, rows)
    assert text.startswith(f"The table of label corrections {tree.parent / 'read.csv'} has 5 problems:\n  1. row 4: ")
    for line in (
        f"row 2: there is no study {ABNORMAL.replace('00035', '00935')} (did you mean train/XR_WRIST/",
        "row 3: 'perhaps' is not a label",
        "row 4: the study is missing",
        f"row 6: study {NORMAL} has label 0, and 1 in row 5",
        "row 7: s-abcdefgh234567ab is a code",
        "Write the names of studies, not their codes",
    ):
        assert line in text


def test_a_table_that_lacks_a_column_or_is_not_there(tree: Path) -> None:
    assert "There is no column label." in complaint(tree, without([decided(ABNORMAL, 0)], "label"))
    with pytest.raises(DataError, match=r"label_corrections=.*absent\.csv does not exist"):
        DatasetSource(data=str(tree), part="wrist", label_corrections=str(tree / "absent.csv")).checked()


def test_a_set_that_corrections_leave_without_a_class(tree: Path) -> None:
    studies = {str(row["study"]) for row in rows_of(tree) if str(row["study"]).startswith("valid")}
    assert "The test split has no abnormal (1) image" in complaint(tree, [decided(study, 0) for study in studies])


def test_names_of_manifests_that_count_within_a_patient(tree: Path) -> None:
    rows = [row | {"study": "study1"} for row in rows_of(tree)]
    path = write_csv(tree / "rows.csv", rows)
    assert labels_of(corrected(tree, [decided("patient00035/study1", 0)], data=str(path)))["patient00035/study1"] == 0
    assert "there is no study study1" in complaint(tree, [decided("study1", 0)], data=str(path))


def test_what_is_logged_of_them_has_codes(tree: Path, tmp_path: Path) -> None:
    def progress(_: str) -> Any:
        return lambda done, total: None

    source = corrected(tree, [decided(ABNORMAL, 0), decided(NORMAL, 0)])
    dataset = open_dataset(source, image_sizes=[32], cache_folder=tmp_path / "cache", progress=progress)
    assert dataset.key is not None
    rows = dataset.decided_labels().set_index("study")
    assert rows.loc[dataset.key.code("study", ABNORMAL), ["label_before", "label"]].tolist() == [1, 0]
    assert rows.loc[dataset.key.code("study", NORMAL), ["label_before", "label"]].tolist() == [0, 0]
    assert not [name for name in rows.index if "patient" in name]

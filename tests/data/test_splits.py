"""Splits share no patient, keep the class balance and depend on the seed alone."""

from __future__ import annotations

import pandas as pd
import pytest

from muralab.data.mura import read_index
from muralab.data.splits import PROTOCOLS, fingerprint, split_index
from muralab.errors import DataError, SettingsError


def _index(n_train: int = 200, n_valid: int = 40, positive_every: int = 4) -> pd.DataFrame:
    """One study of two images per patient, in two parts."""
    rows = []
    for number in range(n_train + n_valid):
        split, part = ("train" if number < n_train else "valid"), ("hand" if number % 10 < 3 else "wrist")
        study = f"{split}/XR_{part.upper()}/patient{number:05d}/study1"
        label = int(number % positive_every == 0)
        rows += [(split, part, f"patient{number:05d}", study, f"{study}/image{i}.png", label, "") for i in (1, 2)]
    return pd.DataFrame(rows, columns=["split", "part", "patient", "study", "image", "label", "path"])


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_no_patient_is_in_two_splits_and_no_image_is_lost(protocol):
    index = _index()
    splits = split_index(index, protocol=protocol)
    patients = [set(table["patient"]) for _, table in splits.items()]
    assert sum(map(len, patients)) == index["patient"].nunique()
    assert sorted(image for _, table in splits.items() for image in table["image"]) == sorted(index["image"])


@pytest.mark.parametrize(("protocol", "official"), [("valid-as-test", "test"), ("valid-as-validation", "validation")])
def test_official_valid_is_the_set_that_the_protocol_names(protocol, official):
    tables = dict(split_index(_index(), protocol=protocol).items())
    assert set(tables[official]["split"]) == {"valid"}
    assert all(set(table["split"]) == {"train"} for name, table in tables.items() if name != official)


def test_held_out_patients_have_the_pools_share_of_labels_and_parts():
    validation = split_index(_index(), validation_fraction=0.2).validation
    assert validation["patient"].nunique() == 40
    assert validation["label"].mean() == pytest.approx(0.25)
    assert (validation["part"] == "hand").mean() == pytest.approx(0.3, abs=0.05)


def test_three_of_twenty_patients_are_for_validation_by_default():
    assert split_index(_index()).validation["patient"].nunique() == 30


def test_the_studys_protocol_holds_out_a_tenth_for_testing():
    splits = split_index(_index(), protocol="valid-as-validation", validation_fraction=0.4)
    assert splits.test["patient"].nunique() == 20


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_folds_of_validation_share_no_patient_and_leave_the_test_set_alone(protocol):
    usual = split_index(_index(), protocol=protocol)
    folds = [split_index(_index(), protocol=protocol, validation_fold=(number, 4)) for number in (1, 2, 3, 4)]
    validated = [set(fold.validation["patient"]) for fold in folds]
    assert set.union(*validated) == set(usual.train["patient"]) | set(usual.validation["patient"])
    assert sum(map(len, validated)) == len(set.union(*validated))
    for fold, patients in zip(folds, validated):
        assert fold.test["image"].tolist() == usual.test["image"].tolist()
        assert not patients & set(fold.train["patient"])
        assert fold.validation["label"].mean() == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize("seed", range(5))
def test_a_patient_with_one_abnormal_study_is_held_out_among_the_abnormal(seed):
    normal = _index(positive_every=1000).assign(label=0)
    second = normal.assign(image=normal["image"] + "b", study=normal["study"] + "b")
    second["label"] = (second["patient"].str[-1] == "0").astype(int)
    held_out = split_index(pd.concat([normal, second]), seed=seed, validation_fraction=0.2).validation
    assert held_out.groupby("patient")["label"].max().sum() == 4  # of 20 among the 200


def test_the_seed_decides_which_patients_are_held_out():
    index = _index()
    first, again, other = (split_index(index, seed=seed) for seed in (1, 1, 2))
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert first.validation["image"].tolist() == again.validation["image"].tolist()


def test_a_split_does_not_depend_on_the_order_of_rows():
    index = _index()
    assert split_index(index.sample(frac=1, random_state=0)).fingerprint == split_index(index).fingerprint


def test_the_fingerprint_ignores_order_and_covers_every_column():
    index = _index(20, 4)
    base = fingerprint(index)
    assert fingerprint(index[::-1]) == base
    assert len(base) <= 36
    for column in ("image", "label", "patient", "split"):
        changed = index.astype({column: object})
        changed.loc[len(index) - 1, column] = "x"
        assert fingerprint(changed) != base


def test_train_rows_of_patients_in_valid_are_left_out_with_a_warning():
    index = _index()
    index.loc[index["patient"] == "patient00003", "patient"] = "patient00210"
    with pytest.warns(UserWarning, match=r"1 patients are in both .* 2 train images are left out"):
        splits = split_index(index)
    assert "patient00210" not in set(splits.train["patient"]) | set(splits.validation["patient"])
    assert "patient00210" in set(splits.test["patient"])


def test_an_empty_class_is_an_error_with_split_class_and_counts():
    index = _index()
    index = index[(index["split"] == "train") | (index["label"] == 0)]
    with pytest.raises(DataError, match=r"test split has no abnormal \(1\) image: 60 normal and 0 abnormal"):
        split_index(index)


def test_two_patients_of_a_class_are_enough():
    index = _index(40, 8, positive_every=1)
    index.loc[~index["patient"].isin(["patient00001", "patient00002", "patient00041"]), "label"] = 0
    assert all(table["label"].nunique() == 2 for _, table in split_index(index, validation_fraction=0.05).items())


def test_an_unknown_protocol_suggests_the_nearest():
    with pytest.raises(SettingsError, match="Did you mean 'valid-as-validation'"):
        split_index(_index(), protocol="valid_as_validation")


@pytest.mark.parametrize("fraction", [0.0, 1.0, float("nan")])
def test_an_impossible_fraction_is_rejected(fraction):
    with pytest.raises(SettingsError, match="must be between 0 and 1"):
        split_index(_index(), validation_fraction=fraction)


def test_a_negative_seed_is_rejected():
    with pytest.raises(SettingsError, match="seed must be 0 or more, received -1"):
        split_index(_index(), seed=-1)


@pytest.mark.parametrize("missing", ["train", "valid"])
def test_a_missing_folder_is_named(missing):
    index = _index()
    with pytest.raises(DataError, match=f"no image in {missing}/: a split needs both"):
        split_index(index[index["split"] != missing])


def test_the_tiny_tree_splits_under_both_protocols(tiny_tree):
    index = read_index(tiny_tree, "all")
    assert all(len(table) > 0 for protocol in PROTOCOLS for _, table in split_index(index, protocol=protocol).items())


@pytest.mark.parametrize(("protocol", "n_test"), [("test_fraction=0.2", 48), ("test_folds=3/5", 48)])
def test_a_drawn_test_set_has_the_share_of_labels_and_parts(protocol, n_test):
    splits = split_index(_index(), protocol=protocol, validation_fraction=0.25)
    assert splits.test["patient"].nunique() == n_test
    assert splits.validation["patient"].nunique() == n_test
    assert splits.test["label"].mean() == pytest.approx(0.25)
    assert (splits.test["part"] == "hand").mean() == pytest.approx(0.3, abs=0.05)


@pytest.mark.parametrize(
    "protocol", ["test_folds=0/5", "test_folds=6/5", "test_folds=1/1", "test_folds=5", "test_share=0.2"]
)
def test_a_test_set_that_cannot_be_drawn_is_rejected(protocol):
    with pytest.raises(SettingsError, match=r"there is no fold|Unknown protocol"):
        split_index(_index(), protocol=protocol)


def test_sets_that_are_not_needed_may_be_empty():
    index = _index().query("split == 'valid'").assign(split="test")
    splits = split_index(index, protocol="manifest", needed=("test",))
    assert [len(table) for _, table in splits.items()] == [0, 0, len(index)]

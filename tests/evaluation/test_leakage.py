"""The leakage check: what counts as seen, within a tree and across trees, and what is left for a comparison."""

from __future__ import annotations

import pandas as pd
import pytest

from muralab.evaluation.leakage import Leakage, find_known_leakage, find_leakage, too_few, unseen_studies

COLUMNS = ["image", "patient", "pixels", "group", "hash", "set"]
TEST = pd.DataFrame([("a/1.png", "a", "p1", "p1", "h1"), ("b/1.png", "b", "p2", "p2", "h2")], columns=COLUMNS[:-1])


def sets(*rows: tuple[str, ...]) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=COLUMNS)


def test_a_model_that_has_seen_other_patients_and_pictures_leaks_nothing() -> None:
    found = find_leakage(TEST, sets(("c/1.png", "c", "p3", "p3", "h3", "train")), same_tree=True)
    assert (found.counts, found.n_images, found.sentence()) == ({}, 0, "")


@pytest.mark.parametrize("name", ["train", "validation"])
def test_another_image_of_the_patient_counts_within_a_tree(name: str) -> None:
    other = sets(("a/2.png", "a", "p3", "p3", "h3", name))
    assert find_leakage(TEST, other, same_tree=True).counts == {name: 1}
    assert find_leakage(TEST, other).counts == {}, "in another tree, a patient of that name is another person"


def test_equal_pixels_under_an_equal_name_show_that_the_tree_is_the_same() -> None:
    other = sets(("a/2.png", "a", "p3", "p3", "h3", "train"), ("b/1.png", "b", "p2", "p2", "h2", "test"))
    assert find_leakage(TEST, other).set_of_patient == {"a": "train"}


@pytest.mark.parametrize(
    "seen",
    [("x.png", "x", "p1", "p0", "h9", "train"), ("x.png", "x", "p0", "p1", "h9", "train"),
     ("x.png", "x", "p9", "p9", "h1", "train")],
    ids=["equal pixels", "a near-duplicate of the same tree", "an equal perceptual hash"],
)  # fmt: skip
def test_a_picture_counts_under_any_name(seen: tuple[str, ...]) -> None:
    assert find_leakage(TEST, sets(seen)).set_of_patient == {"a": "train"}


def test_within_a_tree_an_equal_hash_is_not_enough() -> None:
    other = sets(("x.png", "x", "p9", "p9", "h1", "train"))
    assert find_leakage(TEST, other, same_tree=True).counts == {}


def test_unknown_pictures_are_not_equal() -> None:
    unknown = TEST.assign(pixels="", group="", hash="")
    assert find_leakage(unknown, sets(("x.png", "x", "", "", "", "train"))).counts == {}
    assert find_leakage(
        TEST[["image", "patient"]], sets(("a/1.png", "a", "", "", "", "train")), same_tree=True
    ).n_images


def test_in_another_tree_leakage_is_not_known_without_pictures() -> None:
    named = sets(("a/1.png", "a", "", "", "", "train"))
    whole = sets(("x.png", "x", "p1", "p1", "h1", "train"), ("y.png", "y", "", "", "", "test"))
    assert find_known_leakage(TEST, named, same_tree=False) is None
    assert find_known_leakage(TEST[["image", "patient"]], whole, same_tree=False) is None
    assert find_known_leakage(TEST, named, same_tree=True).counts == {"train": 1}
    assert find_known_leakage(TEST, whole, same_tree=False).counts == {"train": 1}


def test_the_test_set_of_a_run_is_not_what_its_model_has_seen() -> None:
    assert find_leakage(TEST, sets(("a/1.png", "a", "p1", "p1", "h1", "test"))).counts == {}


def test_trained_on_is_worse_than_selected_on() -> None:
    both = sets(("a/2.png", "a", "p3", "p3", "h3", "validation"), ("a/3.png", "a", "p4", "p4", "h4", "train"))
    found = find_leakage(TEST, both, same_tree=True)
    assert found.counts == {"train": 1}
    assert found.sentence("version 2") == (
        "of the 2 evaluated images, version 2 has seen 1: 1 of patients that it was trained on"
    )


def test_all_images_of_a_patient_are_leaked_with_one() -> None:
    views = pd.concat([TEST, TEST.assign(image=TEST["image"].str.replace("1", "2"), pixels="q", group="q", hash="")])
    found = find_leakage(views, sets(("x.png", "x", "p1", "p1", "h1", "train")))
    assert (found.n_images, found.share) == (2, 0.5)


def test_a_study_is_unseen_where_no_model_has_seen_its_patient() -> None:
    table = pd.DataFrame({"study": ["s1", "s2", "s3"], "patient": ["a", "b", "c"]})
    leakages = [Leakage(evaluated=table, set_of_patient={name: "train"}) for name in ("a", "c")]
    assert unseen_studies(table, leakages) == ["s2"]


@pytest.mark.parametrize(("n_abnormal", "enough"), [(10, True), (9, False)])
def test_a_comparison_needs_ten_patients_of_each_class(n_abnormal: int, enough: bool) -> None:
    patients = [f"p{number}" for number in range(20 + n_abnormal)]
    table = pd.DataFrame({"patient": patients, "label": [0] * 20 + [1] * n_abnormal})
    assert (too_few(table) == "") == enough
    assert enough or "29 patients are left that no model has seen (20 with a normal and 9 with an abnormal study)" in (
        too_few(table)
    )

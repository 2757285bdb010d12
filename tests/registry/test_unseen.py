"""A comparison with the champion counts only patients that neither model has seen."""

from __future__ import annotations

import shutil

import pandas as pd
import pytest

from muralab.data.mura import read_index
from muralab.registry.gate import Margins
from muralab.tracking import rebuild_split
from tests.registry.conftest import log_run
from tests.registry.test_promote import Registry, reevaluate, registry  # noqa: F401

WIDE = Margins(objective=1)
OWN = {"muralab.split_fingerprint": "own"}


@pytest.fixture
def split(tree) -> pd.DataFrame:
    """The split of the champion's run: the tree's official folders, with an identity for every picture."""
    index = read_index(tree, "wrist")
    pixels = [f"{row:016x}" for row in range(len(index))]
    sets = index["split"].map({"train": "train", "valid": "test"})
    return index[["image", "patient"]].assign(pixels=pixels, group=pixels, hash="", set=sets)


def seen_first(split: pd.DataFrame, n_patients: int, name: str = "train") -> pd.DataFrame:
    """Another split of the same tree, in which some of the test patients are in another set."""
    patients = sorted(split.loc[split["set"] == "test", "patient"].unique())[:n_patients]
    return split.assign(set=split["set"].mask(split["patient"].isin(patients), name))


def crown(registry: Registry, train_run, split: pd.DataFrame) -> str:  # noqa: F811
    return registry.crown(train_run(0.6, split=split))


@pytest.mark.parametrize(("name", "verb"), [("train", "trained"), ("validation", "selected")])
def test_leaked_patients_are_left_out(registry, train_run, split, name, verb):  # noqa: F811
    crown(registry, train_run, split)
    version = registry.add(train_run(2.0, split=seen_first(split, 12, name), **OWN))
    done = registry.promote(version, margins=WIDE)
    assert done.decision.accepted
    n_images = int((seen_first(split, 12, name)["set"] == name).sum() - (split["set"] == name).sum())
    assert f"version {version} has seen {n_images}: {n_images} of patients that it was {verb} on" in str(done.decision)
    assert "28 of 40 patients, those that neither has seen (14 with a normal, 14 with an abnormal study)" in str(
        done.decision
    )


def test_what_the_champion_has_seen_is_left_out_too(registry, train_run, split):  # noqa: F811
    champion = crown(registry, train_run, seen_first(split, 8))
    done = registry.promote(registry.add(train_run(2.0, split=split, **OWN)), margins=WIDE)
    assert f"version {champion} has seen" in str(done.decision)
    assert "Left for the comparison: 32 of 40 patients" in str(done.decision)


def test_too_few_unseen_patients_refuse_the_candidate_with_the_count(registry, train_run, split):  # noqa: F811
    champion = crown(registry, train_run, split)
    version = registry.add(train_run(2.0, split=seen_first(split, 22), **OWN))
    done = registry.promote(version, margins=WIDE)
    assert not done.decision.accepted
    assert "18 of 40 patients, those that neither has seen" in str(done.decision)
    assert "That is too few: a comparison needs 10 patients of each class." in str(done.decision)
    assert "Train the candidate under the champion's split" in str(done.decision) or "Train both" in str(done.decision)
    assert registry.holder("champion") == champion


def test_copies_of_test_images_under_other_names_are_leaked(registry, train_run, split):  # noqa: F811
    crown(registry, train_run, split)
    copies = split[split["set"] == "test"].drop_duplicates("patient")[:6].assign(set="train", patient="other")
    copies["image"] = [f"train/XR_WRIST/other/study1/image{number}.png" for number in range(6)]
    version = registry.add(train_run(2.0, split=pd.concat([split, copies]), **OWN))
    assert "Left for the comparison: 34 of 40 patients" in str(registry.promote(version, margins=WIDE).decision)


def test_an_unknown_candidate_is_refused(registry, train_run, split):  # noqa: F811
    version = registry.add(train_run(2.0, n_test=30, **OWN))
    newer = crown(registry, train_run, split)
    (reason,) = registry.promote(version, margins=WIDE).decision.reasons
    expected = f"It is not known whether it, version {version}, was trained on the test images of version {newer}: "
    assert reason.startswith(expected)


def test_an_unknown_champion_is_noted(registry, train_run, split, reevaluate):  # noqa: F811
    reevaluate(0.2)
    champion = registry.crown(train_run(0.6, n_test=30, **OWN))
    decision = registry.promote(registry.add(train_run(2.0, split=split)), margins=WIDE).decision
    assert decision.accepted
    assert f"What the champion, version {champion}, was trained on is not known" in decision.reasons[0]


def test_a_version_whose_run_is_gone_has_the_split_of_its_tags(registry, train_run, split, tree, reevaluate):  # noqa: F811
    calls = reevaluate(0.2)
    tags = {"muralab.part": "wrist", "muralab.protocol": "valid-as-validation", "muralab.seed": "5"}
    fingerprint = rebuild_split(registry.store, tags, tree).fingerprint
    champion = registry.crown("f" * 32, **tags, **{"muralab.split_fingerprint": fingerprint})
    decision = registry.promote(registry.add(train_run(2.0, split=split)), margins=WIDE).decision
    assert f"version {champion} has seen 79: 79 of patients that it was selected on" in str(decision)
    assert (decision.accepted, calls) == (False, [])


def test_the_older_model_answers_for_unseen_patients_only(registry, train_run, split, reevaluate):  # noqa: F811
    calls = reevaluate(0.2)
    champion = registry.crown(train_run(0.6, n_test=30, split=seen_first(split, 10), **OWN))
    done = registry.promote(registry.add(train_run(2.0, split=split)), margins=WIDE)
    assert [version for version, _ in calls] == [champion]
    assert done.reevaluated["patient"].nunique() == 30
    assert "Left for the comparison: 30 of 40 patients" in str(done.decision)


def test_a_split_that_was_not_logged_is_made_again(registry, train_run, tree):  # noqa: F811
    tags = {"muralab.protocol": "valid-as-validation", "muralab.seed": "5"}
    fingerprint = rebuild_split(registry.store, {"muralab.part": "wrist", **tags}, tree).fingerprint
    registry.crown(train_run(0.6))
    version = registry.add(train_run(2.0, **tags, **{"muralab.split_fingerprint": fingerprint}))
    done = registry.promote(version, margins=WIDE)
    assert not done.decision.accepted, "its validation set is the champion's test set"
    assert f"version {version} has seen 79: 79 of patients that it was selected on" in str(done.decision)


def test_a_copy_of_the_tree_without_logged_pictures_is_not_known_to_be_unseen(
    registry,  # noqa: F811
    split,
    tree,
    store,
    tmp_path,
    reevaluate,  # noqa: F811
):
    """An older run's split can be made again on its own tree, which does not show that the test set is a copy of it."""
    reevaluate(2.0)
    copy = tmp_path / "copy"
    shutil.copytree(tree, copy)
    tags = {"muralab.protocol": "valid-as-validation", "muralab.seed": "5"}
    fingerprint = rebuild_split(store, {"muralab.part": "wrist", **tags}, copy).fingerprint
    version = registry.add(log_run(store, copy, 2.0, digest="c", **tags, **{"muralab.split_fingerprint": fingerprint}))
    changed = split.assign(image=split["image"].str.replace("train/", "more/"))  # so the trees' splits differ
    registry.crown(log_run(store, tree, 0.6, split=changed))
    decision = registry.promote(version, margins=WIDE).decision
    assert not decision.accepted
    assert str(decision).startswith(f"refused: It is not known whether it, version {version}, was trained on")


def test_a_champion_that_was_registered_without_a_run_is_re_evaluated(registry, train_run, split, reevaluate):  # noqa: F811
    reevaluate(0.2)
    champion = registry.crown("")
    decision = registry.promote(registry.add(train_run(2.0, split=split)), margins=WIDE).decision
    assert decision.reasons[0].startswith(f"What the champion, version {champion}, was trained on is not known")


@pytest.mark.parametrize("change", ["no sets", "no rows", "no training images"])
def test_a_damaged_split_does_not_show_that_nothing_was_seen(registry, train_run, split, change):  # noqa: F811
    """Another run's test set, and a split table that was cut off or changed: what was seen is not known."""
    damaged = {"no sets": split.drop(columns="set"), "no rows": split.iloc[:0]}
    version = registry.add(train_run(2.0, n_test=30, split=damaged.get(change, split[split["set"] == "test"]), **OWN))
    crown(registry, train_run, split)
    (reason,) = registry.promote(version, margins=WIDE).decision.reasons
    assert reason.startswith(f"It is not known whether it, version {version}, was trained on the test images of")

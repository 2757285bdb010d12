"""The plan of the synthetic tree: sizes, label noise and class balance."""

from __future__ import annotations

from collections import Counter, defaultdict

import numpy as np
import pytest

from muralab.demo.plan import LABEL_NOISE, PARTS, plan_studies


def patient_of(folder: str) -> str:
    return folder.split("/")[2]


def test_the_plan_has_the_documented_size():
    wrist = [study for study in plan_studies(PARTS, 0) if study.part == "wrist"]
    images = Counter[str]()
    for study in wrist:
        images[study.split] += study.n_views
    assert 430 <= images["train"] <= 480
    assert sum(study.split == "valid" for study in wrist) >= 95


def test_studies_have_1_to_4_views():
    assert {study.n_views for study in plan_studies(PARTS, 0)} == {1, 2, 3, 4}


def test_patients_are_disjoint_between_splits_and_some_have_several_studies():
    studies_of: dict[str, set[str]] = defaultdict(set)
    splits_of: dict[str, set[str]] = defaultdict(set)
    for study in plan_studies(PARTS, 0):
        studies_of[patient_of(study.folder)].add(study.folder)
        splits_of[patient_of(study.folder)].add(study.split)
    assert {len(splits) for splits in splits_of.values()} == {1}
    assert {len(studies) for studies in studies_of.values()} == {1, 2, 3}


@pytest.mark.parametrize("split", ["train", "valid"])
def test_label_noise_has_the_stated_rate(split):
    studies = [study for study in plan_studies(PARTS[:1], 0) if study.split == split]
    wrong = sum(study.is_mislabelled for study in studies)
    assert wrong == round(LABEL_NOISE[split] * len(studies)) > 0


def test_wrist_is_more_balanced_in_valid_than_in_train():
    studies = [study for study in plan_studies(PARTS, 0) if study.part == "wrist"]
    share = {s: np.mean([study.label for study in studies if study.split == s]) for s in ("train", "valid")}
    assert 0.37 < share["train"] < share["valid"] < 0.52

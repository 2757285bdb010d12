"""Groups of studies: enough patients in each, and nothing that identifies one."""

from __future__ import annotations

import pandas as pd

from muralab.evaluation.study_groups import group_studies, shown_groupings
from tests.models import predictions

TABLE = predictions(1.0, n_patients=60)
PATIENT = TABLE["patient"].str[1:].astype(int)


def test_numbers_become_thirds_without_their_extremes() -> None:
    groups = group_studies(TABLE.assign(age=PATIENT + 20), ["age"])
    thirds = {"below 39.6667": 20, "39.6667 to below 59.3333": 20, "59.3333 and above": 20}
    assert groups["age"].value_counts().to_dict() == thirds
    assert not groups["age"].str.contains("79").any()


def test_a_value_of_few_patients_is_not_shown() -> None:
    names = ["Mustermann" if patient == 3 else "clinic" for patient in PATIENT]
    assert set(group_studies(TABLE.assign(site=names), ["site"])["site"]) == {"clinic", "other"}


def test_only_groupings_with_enough_patients_of_both_classes_are_shown() -> None:
    site = ["A" if patient < 30 else "B" for patient in PATIENT]
    device = ["X" if patient % 2 else "Y" for patient in PATIENT]
    groups = group_studies(TABLE.assign(site=site, device=device), ["site", "device"])
    assert shown_groupings(TABLE.drop_duplicates("study"), groups) == ["part", "number of views", "site"]


def test_missing_values_are_a_group() -> None:
    groups = group_studies(TABLE.assign(sex=["F" if patient < 40 else "" for patient in PATIENT]), ["sex"])
    assert groups["sex"].value_counts().to_dict() == {"F": 40, "not stated": 20}
    assert isinstance(groups, pd.DataFrame)

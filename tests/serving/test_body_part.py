"""BodyPartExamined against a model's part: a warning for a contradiction, none where the file says nothing."""

from __future__ import annotations

import pytest

from muralab.serving.body_part import contradiction


@pytest.mark.parametrize("value", ["WRIST", "wrist", "L WRIST", "WRIST_LT", "Handgelenk re.", "POIGNET", "LWRIST"])
def test_a_wrist_is_no_contradiction_to_a_model_of_wrists(value: str) -> None:
    assert contradiction(value, "wrist") == ""


@pytest.mark.parametrize("value", ["", "EXTREMITY", "UP_EXM", "HAND/WRIST", "X", "1234", "Schmidt"])
def test_a_value_that_names_no_single_known_part_says_nothing(value: str) -> None:
    assert contradiction(value, "wrist") == ""


@pytest.mark.parametrize(
    ("value", "part"), [("HAND", "hand"), ("CHEST", "not of the arm"), ("ÉPAULE", "shoulder"), ("UPPER ARM", "humerus")]
)
def test_another_part_is_named_without_quoting_the_file(value: str, part: str) -> None:
    warning = f"the file names another body part ({part}) than this model's (wrist)"
    assert contradiction(f"{value} of Mustermann", "wrist") == warning


def test_a_model_of_all_parts_is_contradicted_by_what_mura_lacks() -> None:
    assert contradiction("HAND", "all") == ""
    assert contradiction("KNEE", "all") == "the file names another body part (not of the arm) than this model's (all)"


@pytest.mark.parametrize("part", ["", "hip"])
def test_a_model_of_an_unknown_part_is_never_contradicted(part: str) -> None:
    assert contradiction("CHEST", part) == ""

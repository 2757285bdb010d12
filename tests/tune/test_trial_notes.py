"""The description of a trial's run."""

from __future__ import annotations

import math

import pytest

from muralab.trial import TrialSpec
from muralab.tune.trial_names import short_keys, trial_title
from muralab.tune.trial_notes import ended_note, running_note

SEARCHED = ["full.lr", "augment.zoom"]
SPEC = TrialSpec(
    name="cnn-01",
    recipe="cnn",
    table="",
    cache_folder="",
    folder="",
    overrides={"full.epochs": 12},
    drawn={"full.lr": 3e-5, "augment.zoom": 0.2},
)


def epochs(*full: float) -> list[dict[str, float]]:
    """One upper epoch, and a full one per objective."""
    return [{"phase": 1, "val_study_auroc": 0.6}, *({"phase": 2, "val_study_auroc": value} for value in full)]


@pytest.mark.parametrize(
    ("how", "reason", "expected"),
    [
        ("finished", "", "**Finished** after 4 epochs."),
        ("pruned", "", "**Pruned** in epoch 3 of 12 of the full phase: its objective, projected"),
        ("stopped", "", "**Stopped** in epoch 3 of 12 of the full phase: the time budget was over."),
        ("failed", "Traceback\nValueError: no `such` shape", "full phase: `ValueError: no 'such' shape`"),
    ],
)
def test_the_outcome_comes_first(how: str, reason: str, expected: str) -> None:
    first = ended_note(SPEC, SEARCHED, epochs(0.7, 0.9, 0.8), how, reason).splitlines()[0]
    assert expected in first
    assert first.endswith("Best `val_study_auroc`: **0.900**, in epoch 3 (full phase).")


def test_searched_values_stand_beside_the_recipes_own() -> None:
    note = running_note(SPEC, SEARCHED)
    assert "| `full.lr` | **3e-5** | 0.001 |" in note
    assert "| `augment.zoom` | **0.2** | 0.15 |" in note


def test_the_epochs_of_both_phases_are_told_apart() -> None:
    note = ended_note(SPEC, SEARCHED, epochs(0.7, 0.8), "finished", "")
    assert "Epochs 1 to 1 train a warm-up (upper phase), 2 to 3 the whole network (full phase)." in note


def test_a_trial_without_an_epoch_or_a_defined_objective_has_no_best() -> None:
    assert ended_note(SPEC, SEARCHED, [], "failed", "").startswith(
        "**Failed** before its first epoch ended: `no reason"
    )
    undefined = [{"phase": 2, "val_study_auroc": math.nan}]
    assert "Best" not in ended_note(SPEC, SEARCHED, undefined, "finished", "")


def test_a_run_is_named_by_the_first_of_many_values() -> None:
    drawn = {f"augment.{name}": 0.1 for name in ("zoom", "shift", "noise", "blur", "gamma")}
    spec = TrialSpec(name="cnn-02", recipe="cnn", table="", cache_folder="", folder="", drawn=drawn)
    assert trial_title(spec, list(drawn)) == "cnn-02 · zoom 0.1 · shift 0.1 · noise 0.1 · blur 0.1 …"


def test_keys_with_one_name_keep_their_group() -> None:
    assert short_keys(["full.lr", "upper.lr", "augment.zoom"]) == {
        "full.lr": "full.lr", "upper.lr": "upper.lr", "augment.zoom": "zoom"
    }  # fmt: skip

"""The tables of the page: every figure under its level, set and source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score, log_loss

from muralab.report import (
    Context,
    Entry,
    Trial,
)
from muralab.report.entries import STUDY_METRICS
from muralab.report.judge import judge
from muralab.report.references import references_for, study_accuracies
from muralab.report.sections import (
    agreement_table,
    error_table,
    image_table,
    study_table,
    subgroup_table,
    trials_table,
)
from muralab.report.tables import Table, frame_table

MakeEntry = Callable[..., Entry]
MakePredictions = Callable[..., pd.DataFrame]
N_RESAMPLES = 100


def test_study_table_labels_both_protocols(entry: MakeEntry, context: Context) -> None:
    ours, theirs = study_table([entry()], context).groups
    assert "valid-as-test" in ours.remark
    assert "image by image" in theirs.remark
    assert "image level" in ours.remark
    assert "image level" in theirs.remark


def test_study_rows_hold_the_published_figures(context: Context) -> None:
    last = study_table([], context).groups[1].rows[-1]
    assert [cell.text for cell in last] == [
        "InceptionV3 + add gate", "full", "0.332", "0.404", "0.375", "0.863", "0.845", "0.849",
    ]  # fmt: skip


def test_dash_carries_its_reason() -> None:
    table = Table(columns=["a"])
    cells = [table.value(float("nan"), "too few"), table.value(float("nan"), "too few"), table.value(1.0, "unused")]
    assert [(cell.text, cell.note) for cell in cells] == [("–", 1), ("–", 1), ("1.000", 0)]
    assert table.notes == ["too few"]


def test_a_run_that_trained_nothing_says_so(entry: MakeEntry, context: Context) -> None:
    judged_again = entry(summary={"test_loss": 0.6, "test_accuracy": 0.7}, history=pd.DataFrame())
    notes = study_table([judged_again], context).notes
    assert "this run trained nothing: it judged a model that another run trained" in notes
    assert not any("did not reach" in note for note in notes)


def test_image_figures_are_sklearns_at_half_without_a_temperature(entry: MakeEntry) -> None:
    one = judge(entry(skill=0.5), image_metrics=STUDY_METRICS, n_resamples=N_RESAMPLES)
    assert one.predictions is not None
    labels, p = one.predictions["label"], 1 / (1 + np.exp(-one.predictions["logit"]))
    shown = {row[0].text: row[1].text for row in image_table([one]).groups[0].rows}
    assert shown["F1"] == f"{f1_score(labels, p >= 0.5):.3f}"
    assert shown["Log loss"] == f"{log_loss(labels, p):.3f}"


def official(context: Context, protocol: str, **changes: object) -> Context:
    """A real wrist tree with the study's official valid set."""
    counts = pd.DataFrame({"set": ["train", "validation", "test"], "images": [8000, 659, 659]})
    values = {"synthetic": False, "protocol": protocol, "split_counts": counts, **changes}
    return replace(context, **values)  # type: ignore[arg-type]


def test_the_studys_accuracies_stand_beside_ours_of_the_same_kind(context: Context) -> None:
    found, words = study_accuracies(official(context, "valid-as-test"))
    assert found["inception_add_gate"] == 0.84522
    assert "on which the study also chose" in words
    assert study_accuracies(official(context, "valid-as-validation"))[0]["inception_add_gate"] == 0.84939


@pytest.mark.parametrize("changes", [{"synthetic": True}, {"part": "hand"}, {"protocol": "valid-as-test / other"}])
def test_the_studys_accuracies_stand_nowhere_else(context: Context, changes: dict[str, object]) -> None:
    assert study_accuracies(replace(official(context, "valid-as-test"), **changes)) == ({}, "")  # type: ignore[arg-type]
    fewer = context.split_counts.assign(images=100)
    assert study_accuracies(official(context, "valid-as-test", split_counts=fewer)) == ({}, "")


def test_small_subgroup_has_a_reason_instead_of_an_interval(entry: MakeEntry, predictions: MakePredictions) -> None:
    table = subgroup_table(judge(entry(test=predictions(1.0, n_patients=6))), n_resamples=N_RESAMPLES)
    assert any("too few" in note for note in table.notes)


def test_errors_are_the_most_confident_first(entry: MakeEntry) -> None:
    table = error_table(judge(entry(skill=0.1), n_resamples=N_RESAMPLES))
    assert table is not None
    wrong = [float(row[2].text) for row in table.groups[0].rows]
    assert wrong == sorted(wrong, reverse=True)
    assert all(row[1].text == "normal" for row in table.groups[0].rows)


def test_model_agrees_with_its_copy(entry: MakeEntry) -> None:
    twins = [judge(entry(name), n_resamples=N_RESAMPLES) for name in ("a", "b")]
    table = agreement_table(twins)
    assert table is not None
    assert table.groups[0].rows[0][2].text == "1.000"
    assert agreement_table(twins[:1]) is None


def test_trial_without_objective_comes_last(trials: list[Trial]) -> None:
    failed = replace(trials[0], name="failed", objective=float("nan"))
    table = trials_table([failed, trials[1]])
    assert [row[1].text for row in table.groups[0].rows] == ["good-1", "failed"]
    assert table.notes == ["the trial ended before its first epoch was judged"]


def test_every_reference_has_level_set_and_source() -> None:
    for part in ("wrist", "hand", "all", "knee"):
        assert all(r.level and r.set_name and r.source and r.value for r in references_for(part))
    assert any(r.what.startswith("Kappa, hand") for r in references_for("hand"))


def test_long_frame_counts_what_it_hides() -> None:
    table = frame_table(pd.DataFrame({"n": range(12)}), limit=10)
    assert len(table.groups[0].rows) == 10
    assert table.notes == ["2 more rows are not shown"]

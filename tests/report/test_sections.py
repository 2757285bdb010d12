"""The tables of the page: every figure under its level, set and source."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pandas as pd

from muralab.report import (
    Context,
    Entry,
    Trial,
)
from muralab.report.judge import judge
from muralab.report.references import references_for
from muralab.report.sections import agreement_table, error_table, study_table, subgroup_table, trials_table
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


def test_small_subgroup_has_a_reason_instead_of_an_interval(entry: MakeEntry, predictions: MakePredictions) -> None:
    table = subgroup_table(judge(entry(test=predictions(1.0, n_patients=6))), n_resamples=N_RESAMPLES, seed=0)
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

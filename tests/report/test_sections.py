"""The tables of the page: every value with its level, set and source."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import f1_score, log_loss

from muralab.report.references import STUDY_ROWS, references_for, study_accuracies
from muralab.report.sections import (
    agreement_table,
    error_sentence,
    error_table,
    image_metrics_table,
    phase_table,
    study_metrics_table,
    subgroup_note,
    subgroup_table,
    trials_table,
)
from muralab.report.tables import Table, frame_table

OTHER_SIZES = pd.DataFrame({"set": ["validation"], "images": [658]})


@pytest.fixture
def studys_data(context):
    """A report on the wrist study's own data, in its protocol."""
    counts = pd.DataFrame({"set": ["train", "validation", "test"], "images": [8000, 659, 900]})
    return replace(context, synthetic=False, protocol="valid-as-validation", split_counts=counts)


def test_the_studys_rows_name_both_protocols_and_what_the_study_is(build_model, studys_data) -> None:
    ours, theirs = phase_table([build_model()], studys_data).groups
    assert "valid-as-validation" in ours.remark
    assert "an unpublished course report by D. Fountas on MURA wrists" in theirs.remark
    assert "probably split by image" in theirs.remark
    assert "inferred" in theirs.remark
    assert "image level" in ours.remark
    assert "image level" in theirs.remark


def test_study_rows_are_the_published_values(studys_data) -> None:
    last = phase_table([], studys_data).groups[1].rows[-1]
    assert [cell.text for cell in last] == [
        "InceptionV3 + add gate", "full", "0.332", "0.404", "0.375", "0.863", "0.845", "0.849",
    ]  # fmt: skip


@pytest.mark.parametrize(
    "change",
    [{"synthetic": True}, {"part": "hand"}, {"protocol": "valid-as-test"}, {"split_counts": OTHER_SIZES}],
)
def test_the_studys_rows_are_shown_only_on_its_own_data(studys_data, change) -> None:
    assert len(phase_table([], replace(studys_data, **change)).groups) == 1


@pytest.mark.parametrize("row", STUDY_ROWS, ids=lambda row: f"{row.title} {row.phase}")
def test_published_losses_and_accuracies_are_plausible(row) -> None:
    values = [value for value in vars(row).values() if isinstance(value, float) and not np.isnan(value)]
    assert len(values) == (6 if row.phase == "full" else 4)
    assert all(0.3 < value < 0.9 for value in values)


def test_the_relabelled_test_losses_of_the_study_are_marked(studys_data) -> None:
    table = phase_table([], studys_data)
    marked = {row[0].text for row in table.groups[1].rows if row[4].note and "inferred" in table.notes[row[4].note - 1]}
    assert marked == {"custom CNN", "custom CNN + self-attention"}


def test_train_values_are_those_of_evaluation_mode_or_say_that_they_are_not(build_model, context) -> None:
    evaluated = {"full_eval_train_loss": 0.41, "full_eval_train_accuracy": 0.83}
    summary = build_model().training.summary | evaluated
    table = phase_table([build_model(training={"summary": summary})], context)
    upper, full = table.groups[0].rows
    assert (full[2].text, full[2].note, full[5].text, full[5].note) == ("0.410", 0, "0.830", 0)
    assert upper[2].text == "0.500"
    assert "while training: on augmented images" in table.notes[upper[2].note - 1]


def test_a_run_that_trained_nothing_has_the_reason(build_model, context) -> None:
    training = {"summary": {"test_loss": 0.6, "test_accuracy": 0.7}, "history": pd.DataFrame()}
    notes = phase_table([build_model(training=training)], context).notes
    assert "this run trained nothing: it evaluated a model that another run trained" in notes
    assert not any("did not reach" in note for note in notes)


def test_study_metrics_are_at_the_fitted_threshold(build_model) -> None:
    table = study_metrics_table([build_model(skill=0.5)])
    first, second, *_ = table.groups[0].rows
    assert (first[1].text, first[1].small) == ("0.450", "max-kappa")
    assert second[0].text == "AUROC"
    assert second[1].small.startswith("[0.")


def test_image_metrics_are_uncalibrated_at_one_half(build_model) -> None:
    model = build_model(skill=0.5)
    labels, p = model.test["label"], 1 / (1 + np.exp(-model.test["logit"]))
    shown = {row[0].text: row[1].text for row in image_metrics_table([model]).groups[0].rows}
    assert shown["F1"] == f"{f1_score(labels, p >= 0.5):.3f}"
    assert shown["Log loss"] == f"{log_loss(labels, p):.3f}"


def test_subgroups_are_parts_and_numbers_of_views(build_model) -> None:
    table = subgroup_table(build_model())
    assert [[row[0].text for row in group.rows] for group in table.groups] == [["wrist"], ["2 views"]]
    assert [cell.text for cell in table.groups[0].rows[0][1:4]] == ["40", "40", "20"]


def test_a_small_subgroup_has_a_reason_instead_of_an_interval(build_model, build_predictions) -> None:
    table = subgroup_table(build_model(test=build_predictions(1.0, n_patients=6)))
    assert any("6 patients are too few" in note for note in table.notes)


def test_errors_are_sorted_by_confidence(build_model) -> None:
    rows = error_table(build_model(skill=0.1)).groups[0].rows
    wrong = [float(row[2].text) for row in rows]
    assert wrong == sorted(wrong, reverse=True)
    assert all(row[1].text == "normal" for row in rows)


def test_a_model_agrees_with_its_copy(build_model) -> None:
    twins = [build_model("a"), build_model("b")]
    table = agreement_table(twins)
    assert table is not None
    assert table.groups[0].rows[0][2].text == "1.000"
    assert agreement_table(twins[:1]) is None


def test_models_on_different_studies_have_a_reason_instead_of_agreement(build_model, build_predictions) -> None:
    renamed = build_predictions(1.0).replace({"study": r"^valid"}, "other", regex=True)
    table = agreement_table([build_model("a"), build_model("b", test=renamed)])
    assert table is not None
    assert table.notes == ["the two models were tested on different studies"]


def test_common_errors_are_counted(build_model) -> None:
    model = build_model(skill=0.1)
    n_wrong = int((model.studies()["called"] != (model.studies()["label"] == 1)).sum())
    expected = f"Of 40 test studies, all 2 models are wrong on {n_wrong}; at least one is wrong on {n_wrong}."
    assert error_sentence([model, replace(model, name="copy")]) == expected


def official(context, protocol, **changes):
    """A real wrist data set with the study's official valid set."""
    counts = pd.DataFrame({"set": ["train", "validation", "test"], "images": [8000, 659, 659]})
    return replace(context, **{"synthetic": False, "protocol": protocol, "split_counts": counts, **changes})


def test_the_studys_accuracies_of_a_comparable_set_are_found(context) -> None:
    found, caption = study_accuracies(official(context, "valid-as-test"))
    assert found["inception_add_gate"] == 0.84522
    assert "on which the study also selected" in caption
    assert study_accuracies(official(context, "valid-as-validation"))[0]["inception_add_gate"] == 0.84939


@pytest.mark.parametrize("changes", [{"synthetic": True}, {"part": "hand"}, {"protocol": "valid-as-test / other"}])
def test_other_sets_are_not_comparable(context, changes) -> None:
    assert study_accuracies(replace(official(context, "valid-as-test"), **changes)) == ({}, "")


def test_a_valid_set_of_another_size_is_not_comparable(context) -> None:
    fewer = context.split_counts.assign(images=100)
    assert study_accuracies(official(context, "valid-as-test", split_counts=fewer)) == ({}, "")


def test_a_trial_without_an_objective_comes_last(trials) -> None:
    failed = replace(trials[0], name="failed", objective=float("nan"))
    table = trials_table([failed, trials[1]])
    assert [row[1].text for row in table.groups[0].rows] == ["good-1", "failed"]
    assert table.notes == ["the trial ended before its first epoch was evaluated"]


@pytest.mark.parametrize("part", ["wrist", "hand", "all", "knee"])
def test_every_reference_has_level_set_and_source(part) -> None:
    assert all(r.level and r.set_name and r.source and r.value for r in references_for(part))


def test_references_of_a_part_include_its_own() -> None:
    assert any(r.what.startswith("Kappa, hand") for r in references_for("hand"))


def test_a_dash_has_its_reason() -> None:
    table = Table(columns=["a"])
    cells = [table.value(float("nan"), "too few"), table.value(float("nan"), "too few"), table.value(1.0, "unused")]
    assert [(cell.text, cell.note) for cell in cells] == [("–", 1), ("–", 1), ("1.000", 0)]
    assert table.notes == ["too few"]


def test_the_hidden_rows_of_a_long_frame_are_counted() -> None:
    table = frame_table(pd.DataFrame({"n": range(12)}), limit=10)
    assert len(table.groups[0].rows) == 10
    assert table.notes == ["2 more rows are not shown"]


def test_every_column_with_enough_patients_is_a_grouping(build_model, build_predictions) -> None:
    model = build_model(test=build_predictions(1.0, n_patients=60))
    studies = model.predictions()["study"].unique()
    groups = pd.DataFrame({"study": studies, "part": "wrist", "number of views": "2 views"})
    groups["sex"] = ["F" if place < 30 else "M" for place in range(60)]
    groups["site"] = ["A" if place < 3 else "B" for place in range(60)]
    table = subgroup_table(model, groups)
    assert [group.heading for group in table.groups] == ["by part", "by number of views", "by sex"]
    assert [row[0].text for row in table.groups[2].rows] == ["F", "M"]
    assert "4 subgroups with 16 intervals, not adjusted for their number" in subgroup_note(table)


def test_a_table_of_few_intervals_needs_no_note(build_model) -> None:
    assert subgroup_note(subgroup_table(build_model())) == ""

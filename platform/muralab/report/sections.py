"""The tables of a report: loss and accuracy by phase, metrics by model, subgroups, errors, trials, references."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from muralab.evaluation.evaluated_model import NOT_TESTED, EvaluatedModel
from muralab.evaluation.gallery import hardest_studies
from muralab.evaluation.metrics import METRICS, evaluate
from muralab.evaluation.predictions import Level
from muralab.evaluation.study_groups import MISSING, group_studies, shown_groupings
from muralab.report.context import Context, SearchTrial
from muralab.report.references import (
    STUDY_NAME,
    STUDY_PROTOCOL,
    STUDY_ROWS,
    StudyRow,
    is_studys_data,
    references_for,
)
from muralab.report.results_table import PHASES, not_tested, phases_of
from muralab.report.sentences import number
from muralab.report.shown_trials import left_out, rank, shown_trials
from muralab.report.tables import Cell, Group, Row, Table, frame_table

NOT_GIVEN = "the study gives no test value after the upper phase"
WHILE_TRAINING = "measured while training: on augmented images, with dropout, averaged over the epoch"
N_WORST = 6
FEW_INTERVALS = 10
"""With fewer intervals in the table of subgroups there is no note on their number."""


def phase_table(models: Sequence[EvaluatedModel], context: Context) -> Table:
    """Loss and accuracy by phase, image level; with the rows of the wrist study where the data are its data."""
    sets = ["train", "val", "test"]
    table = Table(columns=["model", "phase", *sets, *sets], spans=[("", 2), ("loss", 3), ("accuracy", 3)], left=(0, 1))
    data = "SYNTHETIC demo data" if context.synthetic else "real data"
    source = f"{data}, {context.part}, protocol {context.protocol}, split by patient"
    ours = [_our_row(table, model, phase) for model in models for phase in phases_of(model)]
    table.groups.append(Group(rows=ours, heading="This report", remark=f"{source}; image level", css="ours"))
    if is_studys_data(context):
        theirs = [_their_row(table, row) for row in STUDY_ROWS]
        remark = f"{STUDY_NAME}; MURA v1.1, wrist, {STUDY_PROTOCOL}; image level"
        table.groups.append(Group(rows=theirs, heading="The study", remark=remark, css="reference"))
    return table


def _our_row(table: Table, model: EvaluatedModel, phase: str) -> Row:
    cells, summary = [table.text(model.title), table.text(phase)], model.training.summary
    for measure in ("loss", "accuracy"):
        value, evaluated = model.training.train_value(phase, measure)
        cells.append(table.value(value, _untrained(model, phase), note="" if evaluated else WHILE_TRAINING))
        cells.append(table.value(summary.get(f"{phase}_val_{measure}", math.nan), _untrained(model, phase)))
        kept = phase == model.training.tested_phase
        tested = summary.get(f"test_{measure}", math.nan) if kept else math.nan
        cells.append(table.value(tested, NOT_TESTED if kept else not_tested(model)))
    return cells


def _untrained(model: EvaluatedModel, phase: str) -> str:
    """Why there is no value at the end of a phase."""
    if any(f"{one}_train_loss" in model.training.summary for one in PHASES) or len(model.training.history):
        return f"the trial did not reach the end of its {phase} phase"
    return "this run trained nothing: it evaluated a model that another run trained"


def _their_row(table: Table, row: StudyRow) -> Row:
    losses = [table.value(value, NOT_GIVEN) for value in (row.train_loss, row.validation_loss)]
    losses.append(table.value(row.test_loss, NOT_GIVEN, note=row.test_loss_note))
    accuracies = (row.train_accuracy, row.validation_accuracy, row.test_accuracy)
    shown = [*losses, *(table.value(value, NOT_GIVEN) for value in accuracies)]
    return [table.text(row.title), table.text(row.phase), *shown]


def study_metrics_table(models: Sequence[EvaluatedModel]) -> Table:
    """One column per model: metrics of test studies at its own threshold, with patient-clustered intervals."""
    table = Table(columns=["study level", *(model.title for model in models)])
    thresholds = [table.text("threshold and its rule"), *(_threshold(model) for model in models)]
    table.groups.append(Group(rows=[thresholds, *_metric_rows(table, models, "study")]))
    return table


def image_metrics_table(models: Sequence[EvaluatedModel]) -> Table:
    """One column per model: metrics of single test images at 0.5, uncalibrated, with patient-clustered intervals."""
    table = Table(columns=["image level", *(model.title for model in models)])
    table.groups.append(Group(rows=_metric_rows(table, models, "image")))
    return table


def _threshold(model: EvaluatedModel) -> Cell:
    fitted = model.calibration
    if model.is_pooled:
        return Cell(text="each fold's own")
    if fitted is None or fitted.reason:
        rule = "not fitted"
    elif fitted.sensitivity_bound is not None:
        rule = f"{fitted.rule}, lower bound {number(fitted.sensitivity_bound)}"
    else:
        rule = f"{fitted.rule}, on validation only" if ">=" in fitted.rule else fitted.rule
    return Cell(text=number(model.threshold), small=rule)


def _metric_rows(table: Table, models: Sequence[EvaluatedModel], level: Level) -> list[Row]:
    return [
        [table.text(metric.title), *(_interval_cell(table, model, name, level) for model in models)]
        for name, metric in METRICS.items()
    ]


def _interval_cell(table: Table, model: EvaluatedModel, metric: str, level: Level = "study") -> Cell:
    return table.interval(model.intervals(level=level).get(metric), model.problem() or "undefined")


def subgroup_table(model: EvaluatedModel, groups: pd.DataFrame | None = None) -> Table:
    """One model by part, by number of views and by every other grouping with enough patients, on test studies.

    Args:
        model: with test predictions.
        groups: the groups of its studies; None: part and number of views, from the predictions.

    Raises:
        DataError: the model has no test predictions that can be evaluated.
    """
    metrics = [name for name, metric in METRICS.items() if metric.by_subgroup]
    table = Table(columns=["subgroup", "studies", "patients", "abnormal", *(METRICS[name].title for name in metrics)])
    groups = group_studies(model.predictions()) if groups is None else groups
    studies = model.studies()[["study", "patient", "label"]].merge(groups, on="study", how="left")
    for column in shown_groupings(model.studies(), groups):
        rows = []
        for value, chosen in studies.groupby(studies[column].fillna(MISSING)):
            counts = (len(chosen), chosen["patient"].nunique(), int(chosen["label"].sum()))
            subgroup = model.on(chosen["study"].tolist())
            cells = [_interval_cell(table, subgroup, name) for name in metrics]
            rows.append([table.text(value), *(table.text(f"{count:,}") for count in counts), *cells])
        table.groups.append(Group(rows=rows, heading=f"by {column.replace('_', ' ')}"))
    return table


def subgroup_note(table: Table) -> str:
    """How to read many intervals at once; empty for a table of few."""
    rows = [row for group in table.groups for row in group.rows]
    n_intervals = sum(bool(cell.small) for row in rows for cell in row)
    if n_intervals < FEW_INTERVALS:
        return ""
    return (
        f"{len(rows)} subgroups with {n_intervals} intervals, not adjusted for their number: of 95% intervals about "
        f"one in twenty does not contain its true value, so expect {max(1, round(n_intervals / 20))} or so here. A "
        "subgroup that stands out is a hypothesis to test on other patients."
    )


def agreement_table(models: Sequence[EvaluatedModel]) -> Table | None:
    """Kappa between the calls of each pair of models on their common studies; None with fewer than two models."""
    usable = [model for model in models if model.problem() is None]
    if len(usable) < 2:
        return None
    table = Table(columns=["agreement of calls (kappa)", *(model.title for model in usable)])
    rows = [[table.text(a.title), *(_agreement(table, a, b) for b in usable)] for a in usable]
    table.groups.append(Group(rows=rows))
    return table


def _agreement(table: Table, a: EvaluatedModel, b: EvaluatedModel) -> Cell:
    if a is b:
        return table.text("·")
    both = a.studies()[["study", "called"]].merge(b.studies()[["study", "called"]], on="study")
    if both.empty:
        return table.value(math.nan, "the two models were tested on different studies")
    first, second = both["called_x"].to_numpy(int), both["called_y"].to_numpy(float)
    kappa = evaluate(first, second, names=["kappa"])["kappa"]
    return table.value(kappa, "one of the two models gives every study the same call")


def error_sentence(models: Sequence[EvaluatedModel]) -> str:
    """How many studies all models get wrong, and how many at least one; empty with fewer than two models."""
    usable = [model.studies().set_index("study") for model in models if model.problem() is None]
    if len(usable) < 2:
        return ""
    wrong = pd.concat([s["called"] != (s["label"] == 1) for s in usable], axis=1, join="inner")
    every, some = int(wrong.all(axis=1).sum()), int(wrong.any(axis=1).sum())
    return (
        f"Of {len(wrong)} test studies, all {len(usable)} models are wrong on {every}; at least one is wrong on {some}."
    )


def error_table(model: EvaluatedModel, *, n_worst: int = N_WORST) -> Table:
    """The most confident errors and the studies nearest to the threshold, by name.

    Raises:
        DataError: the model has no test predictions that can be evaluated.
    """
    table = Table(columns=["study", "label", "probability", "views"], left=(0, 1))
    for heading, studies in hardest_studies(model).items():
        rows = [_study_row(table, row) for row in studies.head(n_worst).to_dict("records")]
        table.groups.append(Group(rows=rows, heading=heading))
    return table


def _study_row(table: Table, row: dict[str, object]) -> Row:
    return [
        table.text(row["study"], "id"),
        table.text("abnormal" if row["label"] == 1 else "normal"),
        table.text(number(float(str(row["calibrated"])))),
        table.text(row["n_views"]),
    ]


def trials_table(trials: Sequence[SearchTrial]) -> Table:
    """The trials of the search, best first within its recipe; of very many, those that the figures show."""
    shown = shown_trials(trials)
    table = Table(
        caption=left_out(trials),
        columns=["recipe", "trial", "status", "epochs", "objective", "searched values"],
        left=(0, 1, 2, 5),
    )
    for recipe in dict.fromkeys(trial.recipe for trial in shown):
        own = sorted((trial for trial in shown if trial.recipe == recipe), key=rank)
        table.groups.append(Group(rows=[_trial_row(table, trial) for trial in own]))
    return table


def _trial_row(table: Table, trial: SearchTrial) -> Row:
    values = ", ".join(f"{key} {_short(value)}" for key, value in trial.values.items()) or "none: the recipe as it is"
    return [
        table.text(trial.recipe),
        table.text(trial.name),
        table.text(trial.status.lower()),
        table.text(trial.epochs),
        table.value(trial.objective, "the trial ended before its first epoch was evaluated"),
        table.text(values, "values"),
    ]


def _short(value: float | str) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def audit_errors(context: Context) -> str:
    """The audit's errors, such as `leaking picture (5)`; empty where it found none or was not run."""
    found = pd.DataFrame() if context.audit is None else context.audit[1]
    if not {"kind", "severity", "findings"} <= set(found.columns):
        return ""
    errors = found[found["severity"] == "error"]
    return ", ".join(f"{kind} ({count})" for kind, count in zip(errors["kind"], errors["findings"]))


def reference_table(part: str) -> Table:
    """Published numbers, each with level, set and source."""
    rows = [[r.what, r.value, r.level, r.set_name, r.source] for r in references_for(part)]
    return frame_table(pd.DataFrame(rows, columns=["metric", "value", "level", "set", "source"]))

"""The tables of a report: the study's, the operating points, parts and views, agreement, errors, the search."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import pandas as pd

from muralab.errors import DataError
from muralab.evaluation.bootstrap import Interval
from muralab.evaluation.gallery import hardest_studies
from muralab.evaluation.metrics import METRICS, evaluate
from muralab.report.entries import STUDY_METRICS, Context, Entry, Trial
from muralab.report.judge import Judged, study_intervals
from muralab.report.references import STUDY_PROTOCOL, STUDY_ROWS, StudyRow, references_for
from muralab.report.results import phases_of
from muralab.report.sentences import number
from muralab.report.tables import Cell, Group, Row, Table, frame_table
from muralab.training.phases import PHASES

AFTER_FULL = "test is looked at after the full phase only"
NOT_GIVEN = "the study gives no test figure after the upper phase"
GROUP_METRICS = ("auroc", "kappa", "sensitivity", "specificity")
N_WORST = 6


def study_table(entries: Sequence[Entry], context: Context) -> Table:
    """The study's table: ours above, the study's own rows below, each group under its level, set and protocol."""
    sets = ["train", "val", "test"]
    table = Table(columns=["model", "phase", *sets, *sets], spans=[("", 2), ("loss", 3), ("accuracy", 3)], left=(0, 1))
    data = "SYNTHETIC demo data" if context.synthetic else "real data"
    source = f"{data}, {context.part}, protocol {context.protocol}, split by patient"
    ours = [_our_row(table, entry, phase) for entry in entries for phase in phases_of(entry)]
    table.groups.append(Group(rows=ours, heading="This report", remark=f"{source}; image level", css="ours"))
    theirs = [_their_row(table, row) for row in STUDY_ROWS]
    remark = f"MURA v1.1, wrist, {STUDY_PROTOCOL}; image level"
    table.groups.append(Group(rows=theirs, heading="The study", remark=remark, css="reference"))
    return table


def _our_row(table: Table, entry: Entry, phase: str) -> Row:
    cells = [table.text(entry.title), table.text(phase)]
    for measure in ("loss", "accuracy"):
        for set_name in ("train", "val"):
            value = entry.summary.get(f"{phase}_{set_name}_{measure}", math.nan)
            cells.append(table.value(value, _untrained(entry, phase)))
        tested = entry.summary.get(f"test_{measure}", math.nan) if phase == "full" else math.nan
        cells.append(table.value(tested, AFTER_FULL if phase == "upper" else "this model has not met the test set"))
    return cells


def _untrained(entry: Entry, phase: str) -> str:
    """Why there is no figure of a phase's end."""
    if any(f"{one}_train_loss" in entry.summary for one in PHASES) or len(entry.history):
        return f"the trial did not reach the end of its {phase} phase"
    return "this run trained nothing: it judged a model that another run trained"


def _their_row(table: Table, row: StudyRow) -> Row:
    losses = (row.train_loss, row.validation_loss, row.test_loss)
    accuracies = (row.train_accuracy, row.validation_accuracy, row.test_accuracy)
    return [table.text(row.title), table.text(row.phase), *(table.value(v, NOT_GIVEN) for v in (*losses, *accuracies))]


def operating_table(judged: Sequence[Judged]) -> Table:
    """A model a column, on test studies at its own threshold, with patient-clustered intervals."""
    table = Table(columns=["study level", *(one.entry.title for one in judged)])
    thresholds = [table.text("threshold, by its rule"), *(_threshold(one.entry) for one in judged)]
    rows = [_metric_row(table, metric, [(one, one.intervals) for one in judged]) for metric in STUDY_METRICS]
    table.groups.append(Group(rows=[thresholds, *rows]))
    return table


def image_table(judged: Sequence[Judged]) -> Table:
    """A model a column, on single test images at 0.5 and without a temperature, with patient-clustered intervals."""
    table = Table(columns=["image level", *(one.entry.title for one in judged)])
    rows = [_metric_row(table, metric, [(one, one.images) for one in judged]) for metric in STUDY_METRICS]
    table.groups.append(Group(rows=rows))
    return table


def _threshold(entry: Entry) -> Cell:
    fitted = entry.calibration
    rule = "not fitted" if fitted is None or fitted.reason else fitted.rule
    return Cell(text=number(entry.threshold), small=rule)


def _metric_row(table: Table, metric: str, found: Sequence[tuple[Judged, Mapping[str, Interval]]]) -> Row:
    cells = [table.interval(intervals.get(metric), one.reason or "undefined") for one, intervals in found]
    return [table.text(METRICS[metric].title), *cells]


def subgroup_table(judged: Judged, *, n_resamples: int) -> Table:
    """One model by part and by number of views, on test studies."""
    table = Table(
        columns=["subgroup", "studies", "patients", "abnormal", "AUROC", "kappa", "sensitivity", "specificity"]
    )
    if judged.studies is None:
        return table
    studies = judged.studies.assign(views=judged.studies["n_views"].clip(upper=4))
    for column, heading in (("part", "by part"), ("views", "by number of views")):
        rows = [
            _subgroup_row(table, judged, _group_name(column, value), chosen, n_resamples=n_resamples)
            for value, chosen in studies.groupby(column)
        ]
        table.groups.append(Group(rows=rows, heading=heading))
    return table


def _group_name(column: str, value: object) -> str:
    if column == "part":
        return str(value)
    return "4 views or more" if value == 4 else f"{value} view{'' if value == 1 else 's'}"


def _subgroup_row(table: Table, judged: Judged, name: str, studies: pd.DataFrame, *, n_resamples: int) -> Row:
    predictions = judged.predictions
    chosen = predictions[predictions["study"].isin(studies["study"])] if predictions is not None else pd.DataFrame()
    reason = "undefined in this subgroup"
    try:
        intervals = study_intervals(judged.entry, chosen, metrics=GROUP_METRICS, n_resamples=n_resamples)
    except DataError as error:
        intervals, reason = {}, str(error)
    counts = (len(studies), studies["patient"].nunique(), int(studies["label"].sum()))
    cells = [table.interval(intervals.get(metric), reason) for metric in GROUP_METRICS]
    return [table.text(name), *(table.text(f"{count:,}") for count in counts), *cells]


def agreement_table(judged: Sequence[Judged]) -> Table | None:
    """Kappa between each two models' calls on the studies that both judged; None with fewer than two models."""
    usable = [one for one in judged if one.studies is not None]
    if len(usable) < 2:
        return None
    table = Table(columns=["calls agree (kappa)", *(one.entry.title for one in usable)])
    rows = [[table.text(a.entry.title), *(_agreement(table, a, b) for b in usable)] for a in usable]
    table.groups.append(Group(rows=rows))
    return table


def _agreement(table: Table, a: Judged, b: Judged) -> Cell:
    if a is b:
        return table.text("·")
    assert a.studies is not None
    assert b.studies is not None
    both = a.studies[["study", "called"]].merge(b.studies[["study", "called"]], on="study")
    if both.empty:
        return table.value(math.nan, "the two models were tested on different studies")
    first, second = both["called_x"].to_numpy(int), both["called_y"].to_numpy(float)
    kappa = evaluate(first, second, names=["kappa"])["kappa"]
    return table.value(kappa, "one of the two calls every study the same")


def error_table(judged: Judged, *, n_worst: int = N_WORST) -> Table | None:
    """The most confident errors and the studies nearest the threshold, by name; None without studies."""
    if judged.studies is None:
        return None
    groups = hardest_studies(judged.studies, judged.entry.threshold)
    table = Table(columns=["study", "label", "probability", "views"], left=(0, 1))
    for heading, rows in groups.items():
        table.groups.append(
            Group(rows=[_study_row(table, row) for row in rows.head(n_worst).to_dict("records")], heading=heading)
        )
    return table


def _study_row(table: Table, row: dict[str, object]) -> Row:
    label = "abnormal" if row["label"] == 1 else "normal"
    return [
        table.text(row["study"], "id"),
        table.text(label),
        table.text(number(float(str(row["calibrated"])))),
        table.text(row["n_views"]),
    ]


def trials_table(trials: Sequence[Trial]) -> Table:
    """Every trial of the search, best first within its recipe."""
    table = Table(columns=["recipe", "trial", "status", "epochs", "objective", "searched values"], left=(0, 1, 2, 5))
    recipes = list(dict.fromkeys(trial.recipe for trial in trials))
    for recipe in recipes:
        own = [trial for trial in trials if trial.recipe == recipe]
        own.sort(key=lambda trial: math.inf if math.isnan(trial.objective) else -trial.objective)
        table.groups.append(Group(rows=[_trial_row(table, trial) for trial in own]))
    return table


def _trial_row(table: Table, trial: Trial) -> Row:
    values = ", ".join(f"{key} {_short(value)}" for key, value in trial.values.items()) or "the recipe unchanged"
    objective = table.value(trial.objective, "the trial ended before its first epoch was judged")
    words = [
        table.text(trial.recipe),
        table.text(trial.name),
        table.text(trial.status.lower()),
        table.text(trial.epochs),
    ]
    return [*words, objective, table.text(values, "values")]


def _short(value: float | str) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def audit_errors(context: Context) -> str:
    """What the audit calls an error, such as `5 of leaking picture`; empty where it found none or did not run."""
    found = pd.DataFrame() if context.audit is None else context.audit[1]
    if not {"kind", "severity", "findings"} <= set(found.columns):
        return ""
    errors = found[found["severity"] == "error"]
    return ", ".join(f"{kind} ({count})" for kind, count in zip(errors["kind"], errors["findings"]))


def reference_table(part: str) -> Table:
    """Published numbers, each with level, set and source."""
    rows = [[r.what, r.value, r.level, r.set_name, r.source] for r in references_for(part)]
    return frame_table(pd.DataFrame(rows, columns=["figure", "value", "level", "set", "source"]))


def all_wrong(judged: Sequence[Judged]) -> str:
    """How many studies every model gets wrong, and how many at least one; empty with fewer than two models."""
    usable = [one.studies.set_index("study") for one in judged if one.studies is not None]
    if len(usable) < 2:
        return ""
    wrong = pd.concat([s["called"] != (s["label"] == 1) for s in usable], axis=1, join="inner")
    every, some = int(wrong.all(axis=1).sum()), int(wrong.any(axis=1).sum())
    return (
        f"Of {len(wrong)} test studies, all {len(usable)} models are wrong on {every}; at least one is wrong on {some}."
    )

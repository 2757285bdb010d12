"""The results as data: one row a recipe and phase, level and set named in every column."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pandas as pd

from muralab.report.entries import Entry
from muralab.report.judge import Judged, judge
from muralab.training.phases import PHASES

JUDGED = ("auroc", "kappa")
SUMMARISED = (("train", "train"), ("validation", "val"))
LEARNED = ("loss", "accuracy")


def results_table(entries: Sequence[Entry], *, n_resamples: int = 2000) -> pd.DataFrame:
    """The study's table and the study-level figures, as written to results.csv.

    Losses (without class weights) and accuracies (at 0.5) are at image level, AUROC and kappa at study level with
    patient-clustered 95 % intervals; kappa is at the threshold fitted on validation studies. Test figures stand in
    the full row alone; a figure that does not exist is NaN, and `note` says why.

    Args:
        entries: one a recipe.
        n_resamples: of the patients, for the intervals.
    """
    rows = []
    for entry in entries:
        judged = {
            set_name: judge(entry, set_name=set_name, metrics=JUDGED, n_resamples=n_resamples)
            for set_name in ("validation", "test")
        }
        rows += [_row(entry, phase, judged) for phase in phases_of(entry)]
    return pd.DataFrame(rows)


def phases_of(entry: Entry) -> tuple[str, ...]:
    """The rows of an entry in the study's table: a network from scratch has a full row only."""
    return PHASES[1:] if entry.from_scratch else PHASES


def _row(entry: Entry, phase: str, judged: dict[str, Judged]) -> dict[str, object]:
    row: dict[str, object] = {"recipe": entry.name, "phase": phase, "run_id": entry.run_id}
    for measure in LEARNED:
        for set_name, prefix in SUMMARISED:
            row[f"{set_name}_image_{measure}"] = entry.summary.get(f"{phase}_{prefix}_{measure}", math.nan)
        tested = entry.summary.get(f"test_{measure}", math.nan)
        row[f"test_image_{measure}"] = tested if phase == "full" else math.nan
    for set_name, result in judged.items():
        row |= _judged_columns(set_name, result, phase, entry)
    full = phase == "full"
    row["threshold"] = entry.threshold if full else math.nan
    row["test_studies"] = judged["test"].n_studies if full else 0
    row["test_patients"] = judged["test"].n_patients if full else 0
    row["note"] = _note(judged["test"], full)
    return row


def _judged_columns(set_name: str, judged: Judged, phase: str, entry: Entry) -> dict[str, float]:
    columns = {}
    for metric in JUDGED:
        interval = judged.intervals.get(metric) if phase == "full" else None
        name = f"{set_name}_study_{metric}"
        fallback = entry.summary.get(f"{phase}_val_study_{metric}", math.nan) if set_name == "validation" else math.nan
        columns[name] = fallback if interval is None else interval.estimate
        columns[f"{name}_low"] = math.nan if interval is None else interval.low
        columns[f"{name}_high"] = math.nan if interval is None else interval.high
    return columns


def _note(test: Judged, full: bool) -> str:
    if not full:
        return "test is looked at after the full phase only"
    reasons = [test.reason, *(f"{name}: {i.reason}" for name, i in test.intervals.items() if i.reason)]
    return "; ".join(reason for reason in reasons if reason)

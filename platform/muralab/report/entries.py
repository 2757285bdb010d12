"""What a report is made from: plain values, read from runs by the caller."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

import pandas as pd

from muralab.evaluation.calibration import Calibration

# The judged metrics, all that there are, in the order of the tables; the first two, at study level, make the headline.
STUDY_METRICS = (
    "auroc",
    "kappa",
    "sensitivity",
    "specificity",
    "balanced_accuracy",
    "accuracy",
    "f1",
    "average_precision",
    "brier",
    "log_loss",
    "ece",
)


@dataclass(frozen=True, kw_only=True, eq=False)
class Entry:
    """One evaluated model: the best trial of a recipe."""

    name: str
    """The recipe's name, such as `inception_add_gate`."""
    title: str
    """The same for people, such as `InceptionV3 + add gate`."""
    run_id: str
    resolved: Mapping[str, str] = field(default_factory=dict)
    """Every value that the trial ran with."""
    history: pd.DataFrame = field(default_factory=pd.DataFrame)
    """Index: global epoch from 1; columns train_loss, train_accuracy, val_loss, val_accuracy, val_auroc,
    val_study_auroc, phase (1 or 2), lr."""
    summary: Mapping[str, float] = field(default_factory=dict)
    """End-of-phase values: upper_train_loss, ..., full_val_accuracy, test_loss, test_accuracy."""
    from_scratch: bool = False
    """A network without an upper phase of its own has a full row only, as in the study."""
    validation: pd.DataFrame | None = None
    """Predictions of the validation set, an image a row."""
    test: pd.DataFrame | None = None
    """Predictions of the test set, an image a row; None for a trial that never met it."""
    calibration: Calibration | None = None
    """Temperatures and threshold fitted on validation; None judges at 0.5, uncalibrated."""
    objective: float = math.nan
    """The validation value the trial was chosen by; up is good."""

    @property
    def threshold(self) -> float:
        """The operating point on the calibrated study probability."""
        return 0.5 if self.calibration is None else float(self.calibration.threshold)

    @property
    def temperature(self) -> float:
        """The study temperature."""
        return 1.0 if self.calibration is None else float(self.calibration.study_temperature)

    @property
    def selection_score(self) -> float:
        """What decides the winner: the objective, or else the validation AUROC on studies. Never a test figure."""
        if not math.isnan(self.objective):
            return self.objective
        value = self.summary.get("full_val_study_auroc", math.nan)
        if math.isnan(value) and "val_study_auroc" in self.history:
            value = float(self.history["val_study_auroc"].max())
        return value


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One trial of the search, evaluated or not."""

    recipe: str
    name: str
    run_id: str
    status: str
    epochs: int
    objective: float
    values: Mapping[str, float | str] = field(default_factory=dict)
    """The searched values alone."""


@dataclass(frozen=True, kw_only=True)
class Context:
    """What a whole report has in common: data, protocol, machine."""

    title: str
    part: str
    data: str
    """`demo`, or the path of the tree."""
    synthetic: bool
    protocol: str
    seed: int
    image_size: int | str
    weights: str
    """In words, such as `random (no ImageNet weights could be had)`."""
    split_counts: pd.DataFrame
    """Columns set, studies, patients, images, abnormal."""
    fingerprint: str
    unreadable: Mapping[str, str] | None
    """Image -> reason; these were left out. None where it is not known."""
    commit: str
    created: datetime
    machine: str
    notes: Sequence[str] = ()
    objective: str = "val_study_auroc"
    statements: Sequence[str] = ()
    """What was decided or found with these models, in sentences that can be quoted; they stand on top."""
    comparison: bool = False
    """Recipes over seeds: the statements are the result, and no single model was chosen."""
    audit: tuple[str, pd.DataFrame] | None = None
    """A paragraph and a table of findings."""

    @property
    def counted(self) -> pd.DataFrame:
        """`split_counts` under words that say what is counted."""
        return self.split_counts.rename(columns={"abnormal": "abnormal images"})


def winner_of(entries: Sequence[Entry]) -> Entry | None:
    """The entry that validation chose, or the only one; None where no score of several is known: order is no choice."""
    scored = [entry for entry in entries if not math.isnan(entry.selection_score)]
    if scored:
        return max(scored, key=lambda entry: entry.selection_score)
    return entries[0] if len(entries) == 1 else None

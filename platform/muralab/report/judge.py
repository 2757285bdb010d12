"""An entry's predictions -> its study-level figures, at its own temperature and threshold. S studies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pandas as pd

from muralab.errors import DataError
from muralab.evaluation.bootstrap import Interval, bootstrap
from muralab.evaluation.predictions import check_predictions, level_rows, to_studies
from muralab.report.entries import STUDY_METRICS, Entry

N_RESAMPLES = 2000
NEVER_TESTED = "this model has not met the test set"
NO_VALIDATION = "no validation predictions were kept"


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """One entry on one set: its studies with calibrated probabilities, and intervals; or why there are none."""

    entry: Entry
    predictions: pd.DataFrame | None = None
    studies: pd.DataFrame | None = None
    """`to_studies` with two more columns: calibrated (probability) and called (bool, at the threshold)."""
    intervals: Mapping[str, Interval] = field(default_factory=dict)
    """By metric, study level."""
    images: Mapping[str, Interval] = field(default_factory=dict)
    """By metric, image level: at 0.5 and without a temperature, as in the study's table."""
    reason: str | None = None

    @property
    def n_studies(self) -> int:
        """How many studies were judged."""
        return 0 if self.studies is None else len(self.studies)

    @property
    def n_patients(self) -> int:
        """How many patients they belong to."""
        return 0 if self.studies is None else int(self.studies["patient"].nunique())


def judge(
    entry: Entry,
    *,
    set_name: str = "test",
    metrics: Sequence[str] = STUDY_METRICS,
    image_metrics: Sequence[str] = (),
    n_resamples: int = N_RESAMPLES,
) -> Judged:
    """Judge one entry on studies; predictions that are missing or unusable become a reason, never a number.

    Args:
        entry: the model, with its calibration.
        set_name: "test" or "validation".
        metrics: names of the metrics to bound, on studies.
        image_metrics: likewise on images; none unless asked.
        n_resamples: patients are drawn this many times.
    """
    predictions = entry.test if set_name == "test" else entry.validation
    if predictions is None:
        return Judged(entry=entry, reason=NEVER_TESTED if set_name == "test" else NO_VALIDATION)
    try:
        check_predictions(predictions)
        intervals = study_intervals(entry, predictions, metrics=metrics, n_resamples=n_resamples)
        images = {}
        if image_metrics:
            images = bootstrap(predictions, level="image", metrics=image_metrics, n_resamples=n_resamples)
    except DataError as error:
        return Judged(entry=entry, reason=str(error))
    return Judged(
        entry=entry,
        predictions=predictions,
        studies=calibrated_studies(entry, predictions),
        intervals=intervals,
        images=images,
    )


def study_intervals(
    entry: Entry, predictions: pd.DataFrame, *, metrics: Sequence[str], n_resamples: int
) -> dict[str, Interval]:
    """Patient-clustered intervals on studies, at the entry's own temperature and threshold."""
    return bootstrap(
        predictions,
        level="study",
        metrics=list(metrics),
        threshold=entry.threshold,
        temperature=entry.temperature,
        n_resamples=n_resamples,
    )


def calibrated_studies(entry: Entry, predictions: pd.DataFrame) -> pd.DataFrame:
    """One row a study: `to_studies` with `calibrated` and `called` [S]."""
    studies = to_studies(predictions)
    calibrated = level_rows(predictions, level="study", temperature=entry.temperature)["probability"]
    return studies.assign(calibrated=calibrated, called=calibrated >= entry.threshold)

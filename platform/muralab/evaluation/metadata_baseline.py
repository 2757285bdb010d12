"""How well metadata alone tell abnormal from normal studies: a baseline that sees no pixel.

What such a baseline reaches above chance, a network may reach in the same way: from the size of a scan, the device, or
the number of views. Binned logistic regression: every column is cut into a few bins, one coefficient each, so that any
monotone or U-shaped relation of a single column counts. Shapes: S studies.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from muralab.evaluation.evaluated_model import CHANCE_AUROC, EvaluatedModel
from muralab.evaluation.intervals import ClusteredSample, Interval, Resampled, metric_interval, resample
from muralab.evaluation.paired_difference import difference_interval
from muralab.evaluation.weighted_sums import Floats

IMAGE_FEATURES = {
    "width": "width",
    "height": "height",
    "aspect": "aspect ratio",
    "brightness": "mean grey value",
    "spread": "spread of grey values",
    "n_bytes": "file size",
}
"""Measured on each image; a study has the mean over its views -> title."""
N_VIEWS = "number of views"
MAX_BINS = 8
STUDIES_PER_BIN = 15
MAX_CATEGORIES = 30
"""A column of text with more values than this says who it is rather than how it was made."""
FOLDS = 5
STRENGTH = 0.5
"""Inverse of the penalty of the regression, as scikit-learn counts."""


@dataclass(frozen=True, kw_only=True, eq=False)
class MetadataBaseline:
    """The AUROC of metadata alone, on studies that they were not fitted on."""

    auroc: Interval
    alone: pd.DataFrame
    """One row per column by itself, best first: metadata (its title), auroc, low, high."""
    resampled: Resampled
    """Of all columns together, for paired differences."""

    @property
    def beats_chance(self) -> bool:
        """Whether the lower bound of the AUROC lies above 0.5."""
        return bool(self.auroc.low > CHANCE_AUROC)

    def difference_to(self, model: EvaluatedModel) -> Interval | None:
        """How much a model's AUROC exceeds the baseline's on the same studies; None on other studies."""
        theirs = model.resampled()
        same = np.array_equal(theirs.sample.labels, self.resampled.sample.labels)
        return difference_interval(theirs, self.resampled, "auroc") if same else None

    def table(self) -> pd.DataFrame:
        """All columns together, then each alone."""
        together = {"metadata": "all together", **_bounds(self.auroc)}
        return pd.concat([pd.DataFrame([together]), self.alone], ignore_index=True)


def study_metadata(images: pd.DataFrame, measures: pd.DataFrame, columns: Sequence[str] = ()) -> pd.DataFrame:
    """What is known of each study besides its pixels.

    Args:
        images: one row per image: image, study, patient, label, and the columns.
        measures: image, width and height (px), n_bytes, brightness and spread (grey levels).
        columns: further columns, such as device or site: numbers are averaged over views, of text the first counts.

    Returns:
        One row per study, sorted by study: study, patient, label, and one column per feature, named for people.
    """
    measured = measures.set_index("image").reindex(images["image"]).reset_index(drop=True)
    measured["aspect"] = measured["width"] / measured["height"].where(measured["height"] > 0)
    rows = images.reset_index(drop=True)
    studies = rows["study"]
    found = rows.groupby("study", sort=True)[["patient", "label"]].first()
    for name, title in IMAGE_FEATURES.items():
        found[title] = measured[name].groupby(studies).mean()
    found[N_VIEWS] = rows.groupby("study").size()
    for name in columns:
        stated = rows[name].notna() & (rows[name].astype(str).str.strip() != "")
        numbers = pd.to_numeric(rows[name].where(stated), errors="coerce")
        if stated.any() and numbers[stated].notna().all():
            found[name] = numbers.groupby(studies).mean()
        else:
            found[name] = rows[name].astype(str).where(stated, "").groupby(studies).first()
    return found.reset_index()


def features_of(studies: pd.DataFrame) -> list[str]:
    """The features of `study_metadata` that can tell anything: not constant, and not a name of their own per study."""
    chosen = []
    for name in studies.columns.drop(["study", "patient", "label"]):
        n_values = studies[name].nunique()
        if n_values > 1 and (pd.api.types.is_numeric_dtype(studies[name]) or n_values <= MAX_CATEGORIES):
            chosen.append(str(name))
    return chosen


def fit_on_train(studies: pd.DataFrame, test: Sequence[str]) -> MetadataBaseline | None:
    """Fit the baseline on all studies but the test set's, and evaluate it there.

    Args:
        studies: from `study_metadata`, of all sets.
        test: studies of the test set.

    Returns:
        None where no feature varies, or one of the two parts lacks a class.
    """
    held_out = studies["study"].isin(set(test)).to_numpy()
    return _baseline(studies, [(~held_out, held_out)])


def cross_validate(studies: pd.DataFrame, *, seed: int = 0) -> MetadataBaseline | None:
    """Fit and evaluate the baseline on all studies in turn, in folds by patient.

    Args:
        studies: from `study_metadata`.
        seed: of the folds.

    Returns:
        None where no feature varies, or there are fewer patients of a class than folds.
    """
    from sklearn.model_selection import StratifiedGroupKFold

    by_class = studies.groupby("label")["patient"].nunique()
    if len(by_class) < 2 or by_class.min() < FOLDS:
        return None
    folds = StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed)
    parts = []
    for train, test in folds.split(studies, studies["label"], studies["patient"]):
        masks = [np.isin(np.arange(len(studies)), chosen) for chosen in (train, test)]
        parts.append((masks[0], masks[1]))
    return _baseline(studies, parts)


def _baseline(studies: pd.DataFrame, parts: Sequence[tuple[np.ndarray, np.ndarray]]) -> MetadataBaseline | None:
    """The baseline over pairs of (rows to fit, rows to evaluate)."""
    features = features_of(studies)
    fit_labels = [set(studies["label"][fit]) for fit, _ in parts]
    evaluated = np.any([test for _, test in parts], axis=0)
    if not features or min(map(len, fit_labels)) < 2 or studies["label"][evaluated].nunique() < 2:
        return None

    def resampled(chosen: Sequence[str]) -> Resampled:
        probabilities = np.full(len(studies), np.nan)
        for fit, test in parts:
            probabilities[test] = _predict(studies, list(chosen), fit, test)
        rows = studies[["label", "patient"]].assign(probability=probabilities)[evaluated].reset_index(drop=True)
        return resample(ClusteredSample(rows), ["auroc"])

    together = resampled(features)
    single = {name: metric_interval(resampled([name]), "auroc") for name in features}
    alone = pd.DataFrame([{"metadata": name, **_bounds(found)} for name, found in single.items()])
    return MetadataBaseline(
        auroc=metric_interval(together, "auroc"),
        alone=alone.sort_values("auroc", ascending=False, kind="stable", ignore_index=True),
        resampled=together,
    )


def _predict(studies: pd.DataFrame, features: list[str], fit: np.ndarray, test: np.ndarray) -> Floats:
    """Probabilities of the test rows from a regression on the others."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.preprocessing import OneHotEncoder

    bins = pd.DataFrame({name: _cut(studies[name], fit) for name in features})
    encoder = OneHotEncoder(handle_unknown="ignore")
    regression = LogisticRegression(C=STRENGTH, class_weight="balanced", max_iter=1000)
    regression.fit(encoder.fit_transform(bins[fit]), studies["label"][fit])
    return np.asarray(regression.predict_proba(encoder.transform(bins[test]))[:, 1], dtype=np.float64)


def _cut(values: pd.Series, fit: np.ndarray) -> pd.Series:
    """The bin of each value, as text: quantiles of the rows to fit for numbers, the value itself for text."""
    if not pd.api.types.is_numeric_dtype(values):
        return values.astype(str)
    known = values[fit].dropna().to_numpy(dtype=np.float64)
    n_bins = int(np.clip(len(known) // STUDIES_PER_BIN, 2, MAX_BINS))
    edges = np.unique(np.quantile(known, np.linspace(0, 1, n_bins + 1)[1:-1])) if len(known) else np.array([])
    places = np.searchsorted(edges, values.to_numpy(dtype=np.float64), side="right")
    return pd.Series(np.where(values.isna(), "missing", places.astype(str)), index=values.index)


def _bounds(interval: Interval) -> dict[str, float]:
    return {"auroc": interval.estimate, "low": interval.low, "high": interval.high}

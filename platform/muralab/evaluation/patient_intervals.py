"""Intervals of the built-in metrics from what single patients add to them, one method for each kind of metric.

- A share of rows (sensitivity, specificity, accuracy): Wilson's score interval with the effective number of rows,
  from the jackknife over patients; with few informative patients, as if each patient were one observation.
- Functions of shares (kappa, balanced accuracy, F1): from the intervals of sensitivity, specificity and prevalence.
- AUROC: Newcombe's score interval with the effective numbers of patients, inflated by the jackknife's variance.
- Mean losses (Brier score, log loss): Student's t on the logarithmic scale for each class, combined with prevalence.
- Average precision: the jackknife and Student's t on the logistic scale.

Each interval has a width where nothing was wrong (or right): such a bound is approximate, and its reason says so. Only
Clopper and Pearson's bound of a share of independent rows is exact.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import log

import numpy as np

from muralab.evaluation.interval_formulas import (
    Bounds,
    auroc_bounds,
    combine_bounds,
    exact_lower_bound,
    hanley_mcneil_variance,
    jackknife_variance,
    kish_number,
    logit_bounds,
    mean_loss_bounds,
    normal_quantile,
    shrink,
    student_quantile,
    welch_df,
    wilson_bounds,
)
from muralab.evaluation.metrics import METRICS
from muralab.evaluation.patient_sums import ABNORMAL, NORMAL, PatientSums
from muralab.evaluation.weighted_sums import Floats, Sums

Found = tuple[float, float, str | None]
"""Lower bound, upper bound, and how they were found if not in the usual way."""
Jackknifed = tuple[float, Floats]
"""An estimate, and its values without each patient (or, for average precision, each group of patients)."""

LOSS_AT_CHANCE = {"brier": 0.25, "log_loss": log(2)}
SHARES = ("sensitivity", "specificity")


def share_interval(metric: str, patients: PatientSums, jackknifed: Jackknifed, confidence: float) -> Found:
    """Sensitivity, specificity or accuracy."""
    (share, without), (rows, right) = jackknifed, _rows_and_right(metric, patients)
    if share in (0, 1) and rows.max() == 1:
        n = len(rows)
        bound = exact_lower_bound(n, confidence)
        if share == 1:
            return bound, 1.0, f"exact bound for {n} patients without an error, one row each"
        return 0.0, 1 - bound, f"exact bound for {n} patients without a success, one row each"
    low, high = wilson_bounds(share, _effective_rows(rows, right, without, confidence), confidence)
    if share in (0, 1):
        what = "error" if share == 1 else "success"
        return low, high, f"approximate bound (score interval) for {len(rows)} patients without a single {what}"
    return low, high, None


def _rows_and_right(metric: str, patients: PatientSums) -> tuple[Floats, Floats]:
    """Rows that enter a share, and those called correctly, of each patient that has any; [P'] each."""
    sums = {"abnormal": patients.of_class(ABNORMAL), "normal": patients.of_class(NORMAL)}.get(
        METRICS[metric].needs, patients.own
    )
    has = sums.total > 0
    return sums.total[has], (METRICS[metric].values(sums)[has] * sums.total[has])


def _effective_rows(rows: Floats, right: Floats, without: Floats, confidence: float) -> float:
    """How many independent rows are worth as much as these."""
    share, n_patients = right.sum() / rows.sum(), kish_number(rows)
    if rows.max() == 1 or not 0 < share < 1:
        return n_patients
    student = (student_quantile(confidence, n_patients - 1) / normal_quantile(confidence)) ** 2
    estimated = student * jackknife_variance(without) / (share * (1 - share))
    n_informative = min(int((right > 0).sum()), int((right < rows).sum()))
    return min(1 / shrink(estimated, 1 / n_patients, n_informative), float(rows.sum()))


def shares_interval(metric: str, patients: PatientSums, jackknifed: Jackknifed, confidence: float) -> Found:
    """A function of sensitivity, specificity and prevalence; rows of both classes are needed."""
    del jackknifed
    left_out, prevalence = patients.without_each, _prevalence(patients)
    each = {name: (_share(name, patients), METRICS[name].values(left_out)) for name in SHARES}
    bounds = [share_interval(name, patients, found, confidence)[:2] for name, found in each.items()]
    estimates = np.array([*(share for share, _ in each.values()), prevalence])
    without = np.stack([*(values for _, values in each.values()), left_out.positives / left_out.total])
    low, high = combine_bounds(
        lambda x: _metric_of_shares(metric, x),
        estimates,
        np.array([*bounds, _prevalence_bounds(patients, confidence)]),
        _correlation(without),
    )
    perfect = estimates[0] == estimates[1] == 1
    why = "approximate bound (from those of sensitivity and specificity): there is not a single error"
    return low, high, why if perfect else None


def _share(metric: str, patients: PatientSums) -> float:
    rows, right = _rows_and_right(metric, patients)
    return float(right.sum() / rows.sum())


def _prevalence(patients: PatientSums) -> float:
    return float(patients.rows[:, ABNORMAL].sum() / patients.rows.sum())


def _prevalence_bounds(patients: PatientSums, confidence: float) -> Bounds:
    """As if rows of a patient always had one label, as they mostly have."""
    return wilson_bounds(_prevalence(patients), patients.effective_number(), confidence)


def _metric_of_shares(metric: str, shares: Floats) -> float:
    sensitivity, specificity, prevalence = shares
    normal = 1 - prevalence
    cells = [normal * specificity, normal * (1 - specificity), prevalence * (1 - sensitivity), prevalence * sensitivity]
    return float(METRICS[metric].values(Sums(np.array([cells])))[0])


def _correlation(without: Floats) -> Floats:
    """Correlation of K estimates from their jackknife values [K, P]; 0 where one does not vary."""
    deviations = np.nan_to_num(without - np.nanmean(without, axis=1, keepdims=True))
    covariance = deviations @ deviations.T
    scale = np.sqrt(np.outer(np.diag(covariance), np.diag(covariance)))
    found: Floats = np.divide(covariance, scale, out=np.zeros_like(covariance), where=scale > 0)
    np.fill_diagonal(found, 1.0)
    return found


def auroc_interval(metric: str, patients: PatientSums, jackknifed: Jackknifed, confidence: float) -> Found:
    """The AUROC."""
    del metric
    auroc, without = jackknifed
    n_abnormal, n_normal = patients.effective_number(ABNORMAL), patients.effective_number(NORMAL)
    if patients.is_constant:
        return auroc, auroc, "all probabilities are equal"
    if auroc in (0, 1):
        low, high = auroc_bounds(auroc, n_abnormal, n_normal, 1.0, confidence)
        what = "every abnormal row is ranked above every" if auroc == 1 else "no abnormal row is ranked above any"
        return low, high, f"approximate bound (score interval): {what} normal one"
    df = welch_df(without, patients.with_abnormal, n_abnormal, n_normal)
    student = (student_quantile(confidence, df) / normal_quantile(confidence)) ** 2
    known = hanley_mcneil_variance(auroc, n_abnormal, n_normal)
    # With very unequal patients, or few errors, a handful of them make up nearly all of the variance.
    contributing = kish_number((without - without.mean()) ** 2)
    n_informative = min(contributing, *patients.n_misranked())
    inflation = shrink(student * jackknife_variance(without) / known, 1.0, n_informative)
    return (*auroc_bounds(auroc, n_abnormal, n_normal, inflation, confidence), None)


def loss_interval(metric: str, patients: PatientSums, jackknifed: Jackknifed, confidence: float) -> Found:
    """A mean loss: from that of either class and their prevalence, since the rarer class decides."""
    del jackknifed
    prevalence, parts = _prevalence(patients), []
    for label in (NORMAL, ABNORMAL):
        sums = patients.of_class(label)
        has = sums.total > 0
        losses, chance = METRICS[metric].values(sums)[has], LOSS_AT_CHANCE[metric]
        parts.append(mean_loss_bounds(losses, sums.total[has], at_chance=chance, confidence=confidence))
    estimates = np.array([parts[0][0], parts[1][0], prevalence])
    bounds = np.array([parts[0][1:], parts[1][1:], _prevalence_bounds(patients, confidence)])
    low, high = combine_bounds(lambda x: float((1 - x[2]) * x[0] + x[2] * x[1]), estimates, bounds, np.eye(3))
    return max(low, 0.0), high, None


def average_precision_interval(metric: str, patients: PatientSums, jackknifed: Jackknifed, confidence: float) -> Found:
    """Average precision."""
    del metric
    value, without = jackknifed
    low, high = logit_bounds(
        value,
        jackknife_variance(without),
        chance=_prevalence(patients),
        n=min(patients.effective_number(label) for label in (ABNORMAL, NORMAL)),
        confidence=confidence,
    )
    why = "approximate bound: every abnormal row is ranked above every normal one"
    return low, high, why if value == 1 else None


INTERVAL_OF_METHOD: Mapping[str, Callable[[str, PatientSums, Jackknifed, float], Found]] = {
    "share": share_interval,
    "shares": shares_interval,
    "auroc": auroc_interval,
    "loss": loss_interval,
    "jackknife": average_precision_interval,
}

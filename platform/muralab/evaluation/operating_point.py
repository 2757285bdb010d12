"""The operating point: the threshold for "abnormal", and the band in which the answer should be "uncertain".

Both are fitted on calibrated probabilities of *studies*. Shapes: S studies, G groups of equal probability.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike

from muralab.errors import DataError, SettingsError, nearest
from muralab.evaluation.weighted_sums import Floats, checked_arrays
from muralab.serving.scaling import logit, sigmoid

RULES = ("max-kappa", "youden", "sensitivity>=0.9")
"""The threshold rules; the last one accepts any share above 0 and up to 1."""

PRIOR_PATIENTS = 100
"""How many patients of the rarer class the calibrated probabilities count for beside the labels (`label_weight`).

Chosen by simulation (bench/threshold.py) among 25 to 400.
"""
SENSITIVITY_CONFIDENCE = 0.95
"""Share of fits whose threshold reaches the sensitivity of "sensitivity>=x" on new patients."""
BAND_SHARE = 0.2
"""Share of the studies that are answered "uncertain": those nearest to the threshold.

A share, because it holds on new studies: a band that is chosen by its error rate on the validation studies is chosen
by their noise as well (bench/calibration.py).
"""
MIN_STUDIES = 50
"""With fewer studies the share of new ones inside the band is too uncertain."""


def operating_threshold(
    labels: ArrayLike, probabilities: ArrayLike, rule: str = "max-kappa", *, patients: ArrayLike | None = None
) -> float:
    """The threshold that a rule chooses from S studies; a probability at or above it is abnormal.

    "max-kappa" and "youden": the threshold that is best for the labels follows the noise of a small validation set; the
    one that would be best if the calibrated probabilities were true hardly varies, but rests on the calibration. Their
    mean in log-odds is taken, in which the labels have the weight `label_weight`. Each of the two lies halfway between
    two neighbouring probabilities; if several are equally good, it is the one nearest to 0.5 (the lower of two).

    "sensitivity>=x" takes the highest such threshold whose `sensitivity_bound` is at least x, so that the sensitivity
    on new patients is at least x in 95% of fits.

    Args:
        labels: 0 or 1, shape [S].
        probabilities: calibrated, shape [S].
        rule: one of `RULES`.
        patients: of the studies, [S]; None: each study is of another patient.

    Raises:
        DataError: one class only, all probabilities are equal, or one is missing.
        SettingsError: an unknown rule, a share outside (0, 1], or too few abnormal patients for it.
    """
    wanted = check_rule(rule)
    reason = degenerate_reason(labels, probabilities)
    if reason is not None:
        raise DataError(f"No threshold can be fitted: {reason}.")
    y, p = checked_arrays(labels, probabilities)
    if wanted is not None:
        check_patients(y, patients, rule)
        thresholds, tp, _ = _counts(y.astype(np.float64), p)
        bounds = _lower_bounds(tp / tp[-1], independent_patients(y, patients))
        return float(thresholds[np.argmax(bounds >= wanted)])
    observed, expected = (best_threshold(chances, p, rule) for chances in (y.astype(np.float64), p))
    weight = label_weight(y, patients)
    return float(sigmoid(weight * logit(observed) + (1 - weight) * logit(expected)))


def label_weight(labels: ArrayLike, patients: ArrayLike | None = None) -> float:
    """The weight, from 0 to 1, of the labels beside the calibrated probabilities in "max-kappa" and "youden".

    n / (n + `PRIOR_PATIENTS`) with n patients of the rarer class.

    Args:
        labels: 0 or 1, shape [S].
        patients: of the studies, [S]; None: each study is of another patient.
    """
    y = np.asarray(labels)
    n = min(independent_patients(y, patients), independent_patients(1 - y, patients))
    return n / (n + PRIOR_PATIENTS)


def best_threshold(chances: Floats, probabilities: Floats, rule: str) -> float:
    """The best threshold of "max-kappa" or "youden" if each study is abnormal with its chance, shape [S].

    The chances are the labels, or probabilities.
    """
    thresholds, tp, fp = _counts(chances, probabilities)
    score = _kappas(tp, fp) if rule == "max-kappa" else tp / tp[-1] - fp / fp[-1]
    best = thresholds[score >= score.max() - 1e-12]
    return float(min(best, key=lambda t: (abs(t - 0.5), t)))


def _counts(chances: Floats, probabilities: Floats) -> tuple[Floats, Floats, Floats]:
    """Falling thresholds, with the expected numbers of abnormal and of normal studies above each, three times [G]."""
    order = np.argsort(-probabilities, kind="stable")
    falling = probabilities[order]
    last = np.append(np.diff(falling) != 0, True)  # of each group of equal probability
    tp, fp = np.cumsum(chances[order])[last], np.cumsum(1 - chances[order])[last]
    return _midpoints(falling[last]), tp, fp


def check_rule(rule: str) -> float | None:
    """The required sensitivity of "sensitivity>=x"; None for the other rules.

    Raises:
        SettingsError: an unknown rule, or a share outside (0, 1].
    """
    name, found, share = rule.partition(">=")
    if not found:
        if rule not in RULES[:2]:
            raise SettingsError(f"Unknown threshold rule '{rule}'. {nearest(rule, RULES)} Rules: {', '.join(RULES)}.")
        return None
    if name.strip() != "sensitivity":
        raise SettingsError(f"The threshold rule '{rule}' uses '{name.strip()}'; only 'sensitivity>=x' is supported.")
    try:
        wanted = float(share)
    except ValueError:
        wanted = np.nan
    if not 0 < wanted <= 1:
        raise SettingsError(f"The threshold rule '{rule}' needs a share above 0 and up to 1, such as sensitivity>=0.9.")
    return wanted


def sensitivity_bound(
    labels: ArrayLike, probabilities: ArrayLike, threshold: float, patients: ArrayLike | None = None
) -> float:
    """Lower 95% confidence bound (one-sided, Clopper-Pearson) of the sensitivity at a threshold on new patients.

    It also holds for a threshold chosen from these studies by this bound: the share of new abnormal studies below the
    k-th lowest of n has a Beta(k, n + 1 - k) distribution, whatever the distribution of the probabilities.

    Args:
        labels: 0 or 1, shape [S], some of them 1.
        probabilities: calibrated, shape [S].
        threshold: the operating point.
        patients: of the studies, [S]; None: each study is of another patient.
    """
    y, p = checked_arrays(labels, probabilities)
    found = np.asarray([np.mean(p[y == 1] >= threshold)])
    return float(_lower_bounds(found, independent_patients(y, patients))[0])


def independent_patients(labels: ArrayLike, patients: ArrayLike | None) -> float:
    """How many independent abnormal studies these are worth if all studies of a patient are found or missed together.

    Kish's effective number of the patients with abnormal studies; their number if each has one such study.

    Args:
        labels: 0 or 1, shape [S].
        patients: of the studies, [S]; None: each study is of another patient.
    """
    from muralab.evaluation.interval_formulas import kish_number

    y = np.asarray(labels)
    if patients is None:
        return float((y == 1).sum())
    _, sizes = np.unique(np.asarray(patients)[y == 1], return_counts=True)
    return kish_number(sizes.astype(np.float64))


def check_patients(labels: ArrayLike, patients: ArrayLike | None, rule: str) -> None:
    """Refuse a sensitivity that no threshold can guarantee with so few abnormal patients.

    Args:
        labels: of validation studies, 0 or 1, shape [S].
        patients: of the studies, [S]; None: each study is of another patient.
        rule: one of `RULES`.

    Raises:
        SettingsError: an unknown rule, or too few abnormal patients; names how many are needed.
    """
    wanted = check_rule(rule)
    n_independent = independent_patients(labels, patients)
    if wanted is None or (n_independent and _lower_bounds(np.ones(1), n_independent)[0] >= wanted):
        return
    y = np.asarray(labels)
    n_patients = int((y == 1).sum()) if patients is None else len(set(np.asarray(patients)[y == 1].tolist()))
    miss = 1 - SENSITIVITY_CONFIDENCE
    needed = f"at least {math.ceil(math.log(miss) / math.log(wanted))}" if wanted < 1 else "infinitely many"
    possible = math.floor(100 * miss ** (1 / n_independent)) / 100 if n_independent else 0.0
    lower = f" sensitivity>={possible:g} or lower," if possible else ""
    raise SettingsError(
        f"The threshold rule '{rule}' must hold on new patients in {SENSITIVITY_CONFIDENCE:.0%} of fits, which needs "
        f"{needed} abnormal validation patients; there {'is' if n_patients == 1 else 'are'} {n_patients}"
        f"{'' if n_independent == n_patients else f', worth {n_independent:.1f} with one study each'}. "
        f"Give{lower} max-kappa or youden, or more data."
    )


def _lower_bounds(shares: Floats, n: float) -> Floats:
    """One-sided Clopper-Pearson lower bounds of observed shares of n, which need not be whole."""
    from scipy.special import betaincinv

    found = np.maximum(n * shares, 1e-12)
    return np.where(shares > 0, betaincinv(found, n * (1 - shares) + 1, 1 - SENSITIVITY_CONFIDENCE), 0.0)


def degenerate_reason(labels: ArrayLike, probabilities: ArrayLike) -> str | None:
    """Why nothing can be fitted on these studies, or None.

    Raises:
        DataError: a label or probability is missing or out of range.
    """
    y, p = checked_arrays(labels, probabilities)
    if len(y) < 2:
        return f"there are {len(y)} validation studies"
    if y.min() == y.max():
        return f"all {len(y)} validation studies are {'abnormal' if y[0] else 'normal'}"
    if p.min() == p.max():
        return f"all {len(p)} validation studies have the same probability, {p[0]:.3f}"
    return None


def _kappas(tp: Floats, fp: Floats) -> Floats:
    n_abnormal, n_normal = tp[-1], fp[-1]
    total = n_abnormal + n_normal
    called = tp + fp
    by_chance = (called * n_abnormal + (total - called) * n_normal) / total**2
    agreed = (tp + n_normal - fp) / total
    return np.asarray((agreed - by_chance) / (1 - by_chance))


def _midpoints(falling: Floats) -> Floats:
    """Midpoints between each of G falling probabilities and the next lower one (0 below the last)."""
    below = np.append(falling[1:], 0.0)
    # If two neighbours differ in the last bit only, the midpoint is rounded; it must not equal the lower one.
    return np.asarray(np.minimum(np.maximum((falling + below) / 2, np.nextafter(below, 1)), falling))


def risk_coverage(labels: ArrayLike, probabilities: ArrayLike, threshold: float) -> tuple[Floats, Floats, Floats]:
    """Error rate of the studies that are answered when those nearest to the threshold (in logits) are not.

    Args:
        labels: 0 or 1, shape [S].
        probabilities: calibrated, shape [S].
        threshold: the operating point.

    Returns:
        Three arrays of G points, from all studies answered to the farthest one only, with studies of equal distance
        kept together: coverage (share answered), risk (error rate among them), distance (of the nearest one answered).

    Raises:
        DataError: no studies, or a label or probability is missing or out of range.
    """
    y, p = checked_arrays(labels, probabilities)
    if not len(y):
        raise DataError("A risk-coverage curve needs at least one study.")
    distances = np.abs(logit(p) - logit(threshold))
    order = np.argsort(distances, kind="stable")
    wrong = ((p >= threshold) != (y == 1))[order]
    distances = distances[order]
    starts = np.flatnonzero(np.append(True, np.diff(distances) > 1e-9))
    answered = len(y) - starts
    errors = np.cumsum(wrong[::-1])[::-1][starts]
    return answered / len(y), errors / answered, distances[starts]


def uncertain_band(probabilities: ArrayLike, threshold: float) -> tuple[float, float] | None:
    """The band of probabilities around the threshold in which the model should say "uncertain".

    It is symmetric in logits and contains `BAND_SHARE` of the studies, or the largest smaller share where several have
    the same distance from the threshold.

    Args:
        probabilities: calibrated, shape [S].
        threshold: the operating point.

    Returns:
        Its lower and upper end; None if there are under `MIN_STUDIES`, or all nearest ones have the same distance.
    """
    distances = np.sort(np.abs(logit(probabilities) - logit(threshold)))
    if len(distances) < MIN_STUDIES:
        return None
    gaps = np.diff(distances)[: int(BAND_SHARE * len(distances) + 1e-9)]
    separated = np.flatnonzero(gaps > 1e-9)
    if not len(separated):
        return None
    last = int(separated[-1])
    half_width = (distances[last] + distances[last + 1]) / 2
    middle = logit(threshold)
    low, high = 1 / (1 + np.exp(half_width - middle)), 1 / (1 + np.exp(-half_width - middle))
    return float(low), float(high)

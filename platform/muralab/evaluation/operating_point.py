"""The operating point: the threshold for "abnormal", and the band in which the answer should be "uncertain".

Both are fitted on calibrated probabilities of *studies*. Shapes: S studies, G groups of equal probability.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from muralab.errors import DataError, SettingsError, nearest
from muralab.evaluation.weighted_sums import Floats, SortedScores, checked_arrays

RULES = ("max-kappa", "youden", "sensitivity>=0.9")
"""The threshold rules; the last one accepts any share above 0 and up to 1."""

RISK_TARGET = 0.75
"""The band is wide enough when the error rate outside it is at most this share of the error rate of all studies.

With two normal score distributions and `MAX_ABSTAINED`, a model with an AUROC of 0.8 just reaches it.
"""
MAX_ABSTAINED = 0.3
"""Largest share of the studies that may be answered "uncertain"."""
MIN_STUDIES = 50
"""With fewer studies the risk-coverage curve is too coarse to choose a band from."""


def operating_threshold(labels: ArrayLike, probabilities: ArrayLike, rule: str = "max-kappa") -> float:
    """The threshold that a rule chooses from S studies; a probability at or above it is abnormal.

    It lies halfway between two neighbouring probabilities. If several are equally good, "max-kappa" and "youden" take
    the one nearest to 0.5 (the lower of two), and "sensitivity>=x" takes the highest.

    Args:
        labels: 0 or 1, shape [S].
        probabilities: calibrated, shape [S].
        rule: one of `RULES`.

    Raises:
        DataError: one class only, all probabilities are equal, or one is missing.
        SettingsError: an unknown rule, or a share outside (0, 1].
    """
    wanted = check_rule(rule)
    reason = degenerate_reason(labels, probabilities)
    if reason is not None:
        raise DataError(f"No threshold can be fitted: {reason}.")
    scores = SortedScores(labels, probabilities)
    _, normal, found = scores.unweighted().ranking
    tp, fp = found[0], np.cumsum(normal[0])
    thresholds = _midpoints(scores.probabilities[scores.starts])
    sensitivity = tp / tp[-1]
    if wanted is not None:
        return float(thresholds[np.argmax(sensitivity >= wanted)])
    score = _kappas(tp, fp) if rule == "max-kappa" else sensitivity - fp / fp[-1]
    best = thresholds[score >= score.max() - 1e-12]
    return float(min(best, key=lambda t: (abs(t - 0.5), t)))


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
    distances = np.abs(_logit(p) - _logit(np.asarray(threshold)))
    order = np.argsort(distances, kind="stable")
    wrong = ((p >= threshold) != (y == 1))[order]
    distances = distances[order]
    starts = np.flatnonzero(np.append(True, np.diff(distances) > 1e-9))
    answered = len(y) - starts
    errors = np.cumsum(wrong[::-1])[::-1][starts]
    return answered / len(y), errors / answered, distances[starts]


def uncertain_band(labels: ArrayLike, probabilities: ArrayLike, threshold: float) -> tuple[float, float] | None:
    """The band of probabilities around the threshold in which the model should say "uncertain".

    It is the narrowest band, symmetric in logits, outside of which the error rate falls to `RISK_TARGET` of that of all
    studies, with at most `MAX_ABSTAINED` of the studies inside.

    Returns:
        Its lower and upper end; None if there is no such band, no study is wrong, or there are under `MIN_STUDIES`.

    Raises:
        DataError: as `risk_coverage`.
    """
    coverage, risk, distance = risk_coverage(labels, probabilities, threshold)
    enough = (risk <= RISK_TARGET * risk[0]) & (coverage >= 1 - MAX_ABSTAINED - 1e-12)
    if np.size(labels) < MIN_STUDIES or risk[0] == 0 or not enough.any():
        return None
    first = int(np.argmax(enough))  # at least 1: the risk of all studies is above the target
    half_width = (distance[first - 1] + distance[first]) / 2
    middle = _logit(np.asarray(threshold))
    low, high = 1 / (1 + np.exp(half_width - middle)), 1 / (1 + np.exp(-half_width - middle))
    return float(low), float(high)


def _logit(probabilities: Floats) -> Floats:
    clipped = np.clip(probabilities, 1e-12, 1 - 1e-12)
    return np.asarray(np.log(clipped) - np.log1p(-clipped))

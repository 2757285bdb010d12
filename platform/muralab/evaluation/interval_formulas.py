"""Formulas of confidence intervals for few patients: plain numbers in, plain bounds out.

They hold where the bootstrap does not: it draws only errors that it has seen, so it is too narrow with few patients or
few errors, and has no width without any. A score interval (Wilson 1927) takes its variance from the value at the bound
instead, so it has a width at 0 and 1 too. Clusters enter as an effective number of rows or patients, estimated
variances with Student's t. `bench.interval_coverage` measures how often these intervals contain the true value.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from scipy.optimize import brentq
from scipy.special import expit, logit, ndtr, ndtri, stdtrit

from muralab.evaluation.weighted_sums import Floats

Bounds = tuple[float, float]

UNSEEN_LOSS_PATIENTS = 4
"""For how many patients at chance, not seen in the sample, the upper bound of a mean loss allows; more would make it
too wide below an AUROC of 0.95, fewer too narrow at 0.99 (bench.interval_coverage)."""


def kish_number(sizes: Floats) -> float:
    """Effective number of clusters: how many of equal size carry as much information as these (Kish 1965).

    Rows of one cluster are taken to be equal.

    Args:
        sizes: rows of each cluster; empty clusters do not count.
    """
    total = float((sizes**2).sum())
    return float(sizes.sum()) ** 2 / total if total else 0.0


def normal_quantile(confidence: float) -> float:
    """How many standard errors a bound of this confidence lies from the estimate."""
    return float(ndtri((1 + confidence) / 2))


def student_quantile(confidence: float, df: float) -> float:
    """`normal_quantile` for a standard error that was estimated with `df` degrees of freedom, at least 1."""
    return float(stdtrit(max(df, 1.0), (1 + confidence) / 2))


def jackknife_variance(without: Floats) -> float:
    """Variance of an estimate from its values without each cluster in turn; undefined ones do not count."""
    defined = without[~np.isnan(without)]
    n = len(defined)
    return float((n - 1) / n * ((defined - defined.mean()) ** 2).sum()) if n else np.nan


def welch_df(without: Floats, abnormal: np.ndarray, n_abnormal: float, n_normal: float) -> float:
    """Degrees of freedom of a jackknife variance to which both classes add (Satterthwaite 1946).

    Args:
        without: the estimate without each patient, [P].
        abnormal: which patients have abnormal rows, [P].
        n_abnormal: effective number of the patients with abnormal rows.
        n_normal: that of the patients with normal rows.
    """
    square = (without - np.nanmean(without)) ** 2
    parts = float(np.nansum(square[abnormal])), float(np.nansum(square[~abnormal]))
    total = sum(parts)
    if total <= 0:
        return min(n_abnormal, n_normal) - 1
    return total**2 / sum(v**2 / max(n - 1, 1.0) for v, n in zip(parts, (n_abnormal, n_normal), strict=True))


def shrink(estimated: float, prior: float, n_informative: float) -> float:
    """Shrink a variance that was estimated from few informative patients towards that of one observation per patient.

    Args:
        estimated: from the sample.
        prior: as if each patient were one observation.
        n_informative: patients whose rows vary, such as those with an error.
    """
    weight = n_informative / (n_informative + 1)
    return weight * estimated + (1 - weight) * prior


def wilson_bounds(share: float, n: float, confidence: float) -> Bounds:
    """Score interval of a share of n independent observations; n need not be whole (Wilson 1927)."""
    z = normal_quantile(confidence)
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * np.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(float(centre - half), 0.0), min(float(centre + half), 1.0)


def exact_lower_bound(n_patients: int, confidence: float) -> float:
    """Clopper and Pearson's lower bound of a share that was 1 in n independent observations."""
    return float(((1 - confidence) / 2) ** (1 / n_patients))


def hanley_mcneil_variance(auroc: float, n_abnormal: float, n_normal: float) -> float:
    """Variance of an AUROC of independent observations, with the mean class size in its terms (Newcombe 2006)."""
    n = (n_abnormal + n_normal) / 2 - 1
    spread = 1 + n * (1 - auroc) / (2 - auroc) + n * auroc / (1 + auroc)
    return auroc * (1 - auroc) * spread / (n_abnormal * n_normal)


def auroc_bounds(auroc: float, n_abnormal: float, n_normal: float, inflation: float, confidence: float) -> Bounds:
    """Score interval of an AUROC: the values whose own variance explains the distance to the estimate (Newcombe 2006).

    Args:
        auroc: the estimate.
        n_abnormal: effective number of patients with abnormal rows.
        n_normal: that of patients with normal rows.
        inflation: what the variance is multiplied by.
        confidence: of the interval.
    """
    z = normal_quantile(confidence)

    def excess(value: float) -> float:
        return (auroc - value) ** 2 - z * z * inflation * hanley_mcneil_variance(value, n_abnormal, n_normal)

    def bound(end: float) -> float:
        near = auroc + (end - auroc) * 1e-9
        return float(brentq(excess, near, end)) if excess(near) < 0 < excess(end) else end

    return bound(0.0) if auroc > 0 else 0.0, bound(1.0) if auroc < 1 else 1.0


def combine_bounds(f: Callable[[Floats], float], estimates: Floats, bounds: Floats, correlation: Floats) -> Bounds:
    """Bounds of a function of several estimates from their own bounds (MOVER; Zou and Donner 2008).

    The function may be nonlinear, but must be monotone in each argument within its bounds.

    Args:
        f: the function.
        estimates: its arguments, [K].
        bounds: of each argument, [K, 2].
        correlation: of the estimates, [K, K].
    """
    value = f(estimates)
    moved = np.zeros_like(bounds)
    for argument, end in np.ndindex(*bounds.shape):
        changed = estimates.copy()
        changed[argument] = bounds[argument, end]
        moved[argument, end] = f(changed) - value
    rising = np.where(moved[:, 1] >= moved[:, 0], 1.0, -1.0)
    found = []
    for sign, steps in ((-1, moved.min(axis=1)), (1, moved.max(axis=1))):
        steps = steps * rising
        found.append(value + sign * np.sqrt(max(float(steps @ correlation @ steps), 0.0)))
    return float(found[0]), float(found[1])


def mean_loss_bounds(
    losses: Floats, sizes: Floats, *, at_chance: float, confidence: float
) -> tuple[float, float, float]:
    """Mean loss over the rows of patients, with bounds on the logarithmic scale.

    Losses are skewed: a sample without a confident error says little about how rare and how large they are. The upper
    bound therefore allows for a few more patients at chance (`UNSEEN_LOSS_PATIENTS`).

    Args:
        losses: each patient's mean, [P].
        sizes: each patient's number of rows, [P], above 0.
        at_chance: the loss of a probability of 0.5.
        confidence: of the interval.

    Returns:
        Mean, lower bound, upper bound.
    """
    weights = sizes / sizes.sum()
    n = kish_number(sizes)
    mean = float(weights @ losses)
    variance = float(((weights / np.maximum(1 - weights, 1e-12)) ** 2 * (losses - mean) ** 2).sum())
    quantile = student_quantile(confidence, n - 1)
    unseen = np.sqrt(UNSEEN_LOSS_PATIENTS) * quantile * at_chance / (n + 1)
    if mean <= 0:
        return mean, mean, float(mean + unseen)
    step = quantile * np.sqrt(variance) / mean
    return mean, float(mean * np.exp(-step)), float(mean + np.hypot(mean * np.expm1(step), unseen))


def logit_bounds(value: float, variance: float, *, chance: float, n: float, confidence: float) -> Bounds:
    """Bounds of a value in [0, 1] on the logistic scale; the lower one also allows for one more patient at chance.

    Args:
        value: the estimate.
        variance: of the estimate.
        chance: its value for a model that guesses.
        n: effective number of deciding patients.
        confidence: of the interval.
    """
    quantile = student_quantile(confidence, n - 1)
    low = high = value
    if 0 < value < 1:
        step = quantile * np.sqrt(variance) / (value * (1 - value))
        low, high = (float(expit(logit(value) + sign * step)) for sign in (-1, 1))
    unseen = quantile * max(value - chance, 0.0) / (n + 1)
    return float(value - np.hypot(value - low, unseen)), high


def bca_bounds(estimate: float, values: Floats, without: Floats, confidence: float) -> tuple[float, float]:
    """Bias-corrected and accelerated bounds of an interval.

    Args:
        estimate: the value of the original rows.
        values: that of each resample, [R], all defined.
        without: that without each patient (or group of patients), [P].
        confidence: of the interval, between 0 and 1.
    """
    below = (np.mean(values < estimate) + np.mean(values <= estimate)) / 2  # ties count half
    margin = 0.5 / len(values)
    bias = ndtri(np.clip(below, margin, 1 - margin))
    acceleration = _acceleration(without[~np.isnan(without)])
    tail = ndtri((1 - confidence) / 2)
    shares = []
    for end in (bias + tail, bias - tail):
        # Past its pole the formula changes sign; only extremely skewed values get there, and their bound is the last.
        stretch = max(1 - acceleration * end, 1e-6)
        shares.append(ndtr(bias + end / stretch))
    low, high = np.quantile(values, shares)
    return float(low), float(high)


def _acceleration(without: Floats) -> float:
    """A sixth of the skewness of the patients' influence."""
    influence = without.mean() - without
    spread = float((influence**2).sum())
    return float((influence**3).sum()) / (6 * spread**1.5) if spread > 1e-24 else 0.0

"""Two recipes, each trained with several seeds: how much better is one, over patients and over seeds?

A single pair of models says nothing about the recipes: another seed gives another pair. Here patients and seeds are
resampled together (a crossed bootstrap): every resample draws patients once for all models, and draws seeds, and takes
the mean over these of the paired differences. Few seeds resampled spread too little, by the factor of a variance
divided by k instead of k - 1 and by taking the normal for Student's distribution; the seeds' deviations are stretched
by both. What is noise of a patient under one seed counts to both draws, so the interval is cautious: in simulations
with 2 to 5 seeds and 150 patients, 95 % intervals held the truth in 96 % to 100 % of 300 sets, in the more of them the
less seeds differed. Shapes: R resamples, K seeds, P patients.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import pandas as pd

from muralab.errors import SettingsError
from muralab.evaluation.bca import draw_patients
from muralab.evaluation.bootstrap import MIN_DEFINED, MIN_PATIENTS, Interval, Sample, check_same_images, resample
from muralab.evaluation.metrics import METRICS, check_metrics, undefined_reason
from muralab.evaluation.predictions import Level, level_rows
from muralab.evaluation.weighted_sums import Floats


@dataclass(frozen=True, kw_only=True, eq=False)
class Scored:
    """One trained model on the test set, with what its own validation studies fitted."""

    predictions: pd.DataFrame
    threshold: float = 0.5
    temperature: float = 1.0


@dataclass(frozen=True, kw_only=True)
class SeedsDifference:
    """How much one recipe exceeds another in a metric, as a - b."""

    interval: Interval
    """Of the mean over seeds, over patients and seeds."""
    by_seed: tuple[float, ...]
    """The paired difference of each seed, [K]."""
    mean_a: float
    """Mean over seeds of the metric of `a`."""
    mean_b: float

    @property
    def n_seeds(self) -> int:
        """K."""
        return len(self.by_seed)

    @property
    def seed_spread(self) -> float:
        """Standard deviation of the differences between seeds; NaN with one."""
        return float(np.std(self.by_seed, ddof=1)) if self.n_seeds > 1 else math.nan


def seeds_difference(
    a: Sequence[Scored],
    b: Sequence[Scored],
    *,
    level: Level = "study",
    metric: str = "auroc",
    n_resamples: int = 2000,
    seed: int = 0,
    confidence: float = 0.95,
) -> SeedsDifference:
    """The paired difference of two recipes over the same seeds and test patients.

    Args:
        a: the models of the one recipe, a seed each.
        b: those of the other, in the same order of seeds.
        level: "image" or "study".
        metric: a name in `METRICS`.
        n_resamples: draws of patients and seeds.
        seed: of the draws.
        confidence: of the interval.

    Raises:
        DataError: predictions that cannot be judged, or of different images.
        SettingsError: no or unequal numbers of seeds, or the name is no metric.
    """
    check_metrics([metric])
    if not a or len(a) != len(b):
        raise SettingsError(f"Both recipes need the same seeds, at least one; got {len(a)} and {len(b)} models.")
    models = [*a, *b]
    samples = [_sample(one, models[0], level) for one in models]
    weights = draw_patients(samples[0].n_patients, n_resamples, seed)
    values = np.stack([found[metric] for found in resample(samples, [metric], weights)])
    estimates = np.array([sample.estimate(metric) for sample in samples])
    by_seed = estimates[: len(a)] - estimates[len(a) :]
    resampled = _over_seeds((values[: len(a)] - values[len(a) :]).T, seed, confidence)
    return SeedsDifference(
        interval=_interval(metric, samples[0], float(by_seed.mean()), resampled, confidence),
        by_seed=tuple(float(one) for one in by_seed),
        mean_a=float(estimates[: len(a)].mean()),
        mean_b=float(estimates[len(a) :].mean()),
    )


def _sample(one: Scored, first: Scored, level: Level) -> Sample:
    rows = level_rows(one.predictions, level=level, temperature=one.temperature)
    check_same_images(one.predictions, first.predictions)
    return Sample(rows.sort_values(str(level), kind="stable"), one.threshold)


def _over_seeds(differences: Floats, seed: int, confidence: float) -> Floats:
    """Means over drawn seeds of differences [R, K], each with its own draw of seeds, [R]."""
    n_resamples, n_seeds = differences.shape
    if n_seeds == 1:
        return differences[:, 0]
    drawn = np.random.default_rng([seed, 1]).integers(n_seeds, size=(n_resamples, n_seeds))
    centre = differences.mean(axis=1, keepdims=True)
    deviations = np.take_along_axis(differences - centre, drawn, axis=1).mean(axis=1)
    return np.asarray(centre[:, 0] + stretch(n_seeds, confidence) * deviations)


def stretch(n_seeds: int, confidence: float = 0.95) -> float:
    """By how much the deviations of K >= 2 resampled seeds are too small for an interval of this confidence."""
    share = (1 + confidence) / 2
    z, df = NormalDist().inv_cdf(share), n_seeds - 1
    if df == 1:
        t = math.tan(math.pi * (share - 0.5))
    elif df == 2:
        t = (2 * share - 1) / math.sqrt(2 * share * (1 - share))
    else:  # Cornish and Fisher's expansion: within 1 % from three degrees of freedom on
        t = (
            z
            + (z**3 + z) / (4 * df)
            + (5 * z**5 + 16 * z**3 + 3 * z) / (96 * df**2)
            + (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / (384 * df**3)
        )
    return math.sqrt(n_seeds / df) * t / z


def _interval(metric: str, sample: Sample, estimate: float, resampled: Floats, confidence: float) -> Interval:
    defined = resampled[~np.isnan(resampled)]
    reason = undefined_reason(metric, sample.labels, sample.probabilities) or METRICS[metric].no_interval
    if reason is None and sample.n_patients < MIN_PATIENTS:
        reason = f"{sample.n_patients} patients are too few for an interval (at least {MIN_PATIENTS})"
    if reason is None and len(defined) < MIN_DEFINED * len(resampled):
        reason = f"{metric} is undefined in {1 - len(defined) / len(resampled):.0%} of the resamples"
    low = high = math.nan
    if reason is None:
        tail = (1 - confidence) / 2
        low, high = (float(end) for end in np.quantile(defined, (tail, 1 - tail)))
    return Interval(estimate=estimate, low=low, high=high, level=confidence, n_resamples=len(defined), reason=reason)

"""Compare recipes over seeds: how much better is one, over test patients and over training seeds?

A single pair of models does not compare two recipes: another seed gives another pair. Here patients and seeds are
resampled together (a crossed bootstrap): every resample draws patients once for all models, draws seeds, and takes the
mean over these of the paired differences. Resampling K seeds underestimates their spread, because it divides the
variance by K instead of K - 1 and assumes a normal instead of Student's distribution; the seeds' deviations are
stretched by both factors. The noise of a patient under one seed is counted in both draws, so the interval is
conservative: in simulations with 3 and 5 seeds and 150 patients, 95% intervals contained the true value in 98% to
100% of 60 sets, more often the less the seeds differed (`bench.seeds`). With few patients or few errors it is
widened as the interval of one pair of models is.

Two seeds do not show how much seeds vary: an honest interval over seeds would be more than three times as wide as with
three (`stretch`), and would resolve nothing. With fewer than MIN_SEEDS, therefore, only patients are resampled, every
seed has its own interval, and the conclusion is about the trained models, not about the recipes.

Several comparisons with one recipe are adjusted by Holm's method (1979); the p of a comparison is that at which its
interval just touches 0. Shapes: R resamples, K seeds, P patients.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from muralab.errors import SettingsError
from muralab.evaluation.evaluated_model import EvaluatedModel
from muralab.evaluation.intervals import CONFIDENCE, ClusteredSample, Interval, Resampled, no_interval_reason
from muralab.evaluation.metrics import check_metrics, main_metrics
from muralab.evaluation.paired_difference import Widening, check_same_images, find_widening
from muralab.evaluation.weighted_sums import Floats
from muralab.trial import TrialSpec

P_STEPS = 20
"""Of the bisection that finds p: to 1e-6."""
MIN_SEEDS = 3
"""Fewest seeds over which an interval also covers the spread of seeds."""


@dataclass(frozen=True, kw_only=True)
class SeedsDifference:
    """How much one recipe exceeds another in a metric, as a - b."""

    interval: Interval
    """Of the mean over seeds, over patients and seeds; with fewer than MIN_SEEDS over patients alone."""
    by_seed: tuple[Interval, ...]
    """The paired difference of each seed over patients, [K]."""
    p: float
    """The largest 1 - confidence at which the interval contains 0, two-sided; with fewer than MIN_SEEDS that of the
    seed whose interval comes closest to containing it, 1 where seeds differ in sign. NaN without an interval."""
    mean_a: float
    """Mean over seeds of the metric of `a`."""
    mean_b: float
    """Mean over seeds of the metric of `b`."""

    @property
    def n_seeds(self) -> int:
        """K."""
        return len(self.by_seed)

    @property
    def seed_spread(self) -> float:
        """Standard deviation of the differences between seeds; NaN with one seed."""
        return float(np.std([one.estimate for one in self.by_seed], ddof=1)) if self.n_seeds > 1 else math.nan

    @property
    def covers_seeds(self) -> bool:
        """Whether the interval covers the spread of seeds, and not only of patients."""
        return self.n_seeds >= MIN_SEEDS


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """One recipe compared with another over the same seeds."""

    recipe: str
    against: str
    seeds: tuple[int, ...]
    differences: Mapping[str, SeedsDifference]
    """Metric -> recipe minus the other, on test studies."""
    n_comparisons: int = 1
    """How many recipes are compared with the same one."""
    adjusted_p: Mapping[str, float]
    """Metric -> p after Holm's adjustment for these comparisons."""


def seeds_difference(
    a: Sequence[EvaluatedModel], b: Sequence[EvaluatedModel], *, metric: str = "auroc"
) -> SeedsDifference:
    """The paired difference of two recipes over the same seeds and test patients, at study level.

    Args:
        a: models of one recipe, one per seed.
        b: models of the other, in the same order of seeds.
        metric: a name in `METRICS`.

    Raises:
        DataError: predictions cannot be evaluated, or are of different images.
        SettingsError: no or unequal numbers of seeds, or the name is not a metric.
    """
    check_metrics([metric])
    if not a or len(a) != len(b):
        raise SettingsError(f"Both recipes need the same seeds, at least one; got {len(a)} and {len(b)} models.")
    for model in [*a[1:], *b]:
        check_same_images(model.predictions(), a[0].predictions())
    return difference_over_seeds([model.resampled() for model in a], [model.resampled() for model in b], metric)


def difference_over_seeds(
    a: Sequence[Resampled], b: Sequence[Resampled], metric: str, *, seed: int = 0, confidence: float = CONFIDENCE
) -> SeedsDifference:
    """`seeds_difference` of models that are already resampled.

    Args:
        a: resampled metrics of one recipe's models, one per seed.
        b: those of the other, of the same rows, resampled with the same draws.
        metric: one of the resampled metrics.
        seed: of the draws of seeds.
        confidence: of the interval.
    """
    values = np.stack([x.values[metric] - y.values[metric] for x, y in zip(a, b, strict=True)], axis=1)
    estimates = [x.sample.estimate(metric) - y.sample.estimate(metric) for x, y in zip(a, b, strict=True)]
    pairs = list(zip(a, b, strict=True))
    alone = [_Draws(values[:, [k]], seed, estimates[k], find_widening([pair], metric)) for k, pair in enumerate(pairs)]
    of_all = values if len(a) >= MIN_SEEDS else values.mean(axis=1, keepdims=True)
    whole = _Draws(of_all, seed, float(np.mean(estimates)), find_widening(pairs, metric))
    interval = whole.interval(metric, a[0].sample, confidence)
    p = whole.p() if len(a) >= MIN_SEEDS else _joint_p(alone)
    return SeedsDifference(
        interval=interval,
        by_seed=tuple(draws.interval(metric, a[0].sample, confidence) for draws in alone),
        p=p if interval.reason is None else math.nan,
        mean_a=float(np.mean([one.sample.estimate(metric) for one in a])),
        mean_b=float(np.mean([one.sample.estimate(metric) for one in b])),
    )


class _Draws:
    """Resampled differences [R, K]: their interval at any confidence, and its p."""

    def __init__(self, differences: Floats, seed: int, estimate: float, widening: Widening) -> None:
        self.estimate, self.widening = estimate, widening
        self.n_resamples, self.n_seeds = differences.shape
        drawn = np.random.default_rng([seed, 1]).integers(self.n_seeds, size=differences.shape)
        centre = differences.mean(axis=1, keepdims=True)
        # A resample in which a value is undefined is NaN in both: it is left out of the quantiles.
        self.centre = centre[:, 0]
        self.deviations = np.take_along_axis(differences - centre, drawn, axis=1).mean(axis=1)

    @property
    def defined(self) -> int:
        """Resamples in which the difference is defined."""
        return int(np.count_nonzero(~np.isnan(self.centre)))

    def bounds(self, confidence: float) -> tuple[float, float]:
        """Percentiles, the deviations between seeds stretched for this confidence, all widened for few patients."""
        factor = stretch(self.n_seeds, confidence) if self.n_seeds > 1 else 1.0
        values = self.centre + factor * self.deviations
        tail = (1 - confidence) / 2
        low, high = np.nanquantile(values, (tail, 1 - tail))
        return self.widening.apply((float(low), float(high)), self.estimate, confidence)

    def interval(self, metric: str, sample: ClusteredSample, confidence: float) -> Interval:
        """The interval at one confidence, or the reason why there is none."""
        reason = no_interval_reason(metric, sample, self.defined / self.n_resamples)
        low, high = (math.nan, math.nan) if reason is not None else self.bounds(confidence)
        return Interval(
            estimate=self.estimate, low=low, high=high, level=confidence, n_resamples=self.defined, reason=reason
        )

    def p(self) -> float:
        """The largest 1 - confidence at which the interval contains 0, not below one resample's share."""
        if not self.defined:
            return math.nan
        low_p, high_p = 1 / self.n_resamples, 1.0
        if not _contains_zero(self.bounds(1 - low_p)):
            return float(low_p)
        for _ in range(P_STEPS):
            middle = (low_p + high_p) / 2
            low_p, high_p = (middle, high_p) if _contains_zero(self.bounds(1 - middle)) else (low_p, middle)
        return high_p


def _contains_zero(bounds: tuple[float, float]) -> bool:
    return bounds[0] <= 0 <= bounds[1]


def _joint_p(alone: Sequence[_Draws]) -> float:
    """That every single seed differs in the same direction: the largest of their p (intersection-union test)."""
    if len({np.sign(draws.estimate) for draws in alone}) > 1:
        return 1.0
    return max(draws.p() for draws in alone)


def stretch(n_seeds: int, confidence: float = CONFIDENCE) -> float:
    """Factor by which the deviations of K >= 2 resampled seeds must grow for an interval of this confidence."""
    from scipy.stats import norm, t

    share, df = (1 + confidence) / 2, n_seeds - 1
    return float(np.sqrt(n_seeds / df) * t.ppf(share, df) / norm.ppf(share))


def holm(p: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment of several p; a NaN counts as a comparison and stays NaN."""
    adjusted, largest = [math.nan] * len(p), 0.0
    for rank, place in enumerate(sorted(range(len(p)), key=lambda place: (math.isnan(p[place]), p[place]))):
        if not math.isnan(p[place]):
            largest = max(largest, min(1.0, (len(p) - rank) * p[place]))
            adjusted[place] = largest
    return adjusted


def compare_models(
    models: Mapping[str, EvaluatedModel], specs: Sequence[TrialSpec], recipes: Sequence[str]
) -> list[Comparison]:
    """Compare every recipe with the first one, over the seeds that both have.

    Args:
        models: name of the trial -> its model.
        specs: these trials.
        recipes: in the order in which they were given.

    Returns:
        No comparison for a recipe that shares no finished seed with the first: see `comparison_text.unpaired`.
    """
    return _adjusted(_compare_with_first(models, specs, recipes))


def _adjusted(comparisons: Sequence[Comparison]) -> list[Comparison]:
    """The same with their p adjusted for their number."""
    by_metric = {
        metric: holm([one.differences[metric].p for one in comparisons])
        for metric in (comparisons[0].differences if comparisons else ())
    }
    return [
        replace(
            one, n_comparisons=len(comparisons), adjusted_p={name: found[place] for name, found in by_metric.items()}
        )
        for place, one in enumerate(comparisons)
    ]


def _compare_with_first(
    models: Mapping[str, EvaluatedModel], specs: Sequence[TrialSpec], recipes: Sequence[str]
) -> list[Comparison]:
    found = {(spec.recipe, spec.seed): models[spec.name] for spec in specs}
    comparisons = []
    for recipe in recipes[1:]:
        seeds = tuple(
            sorted({s for name, s in found if name == recipe} & {s for name, s in found if name == recipes[0]})
        )
        if not seeds:
            continue
        pair = [[found[name, seed] for seed in seeds] for name in (recipe, recipes[0])]
        differences = {metric: seeds_difference(*pair, metric=metric) for metric in main_metrics()}
        own_p = {metric: one.p for metric, one in differences.items()}
        comparisons.append(
            Comparison(recipe=recipe, against=recipes[0], seeds=seeds, differences=differences, adjusted_p=own_p)
        )
    return comparisons

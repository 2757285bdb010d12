"""Compare recipes over seeds: how much better is one, over test patients and over training seeds?

A single pair of models does not compare two recipes: another seed gives another pair. Here patients and seeds are
resampled together (a crossed bootstrap): every resample draws patients once for all models, draws seeds, and takes the
mean over these of the paired differences. Resampling K seeds underestimates their spread, because it divides the
variance by K instead of K - 1 and assumes a normal instead of Student's distribution; the seeds' deviations are
stretched by both factors. The noise of a patient under one seed is counted in both draws, so the interval is
conservative: in simulations with 2 to 5 seeds and 150 patients, 95 % intervals contained the true value in 96 % to
100 % of 300 sets, more often the less the seeds differed. Shapes: R resamples, K seeds, P patients.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from muralab.data.dataset import Dataset
from muralab.errors import SettingsError
from muralab.evaluation.bootstrap import (
    CONFIDENCE,
    ClusteredSample,
    Interval,
    Resampled,
    check_same_images,
    no_interval_reason,
)
from muralab.evaluation.evaluated_model import EvaluatedModel
from muralab.evaluation.metrics import METRICS, check_metrics, main_metrics
from muralab.evaluation.weighted_sums import Floats
from muralab.recipe import Recipe
from muralab.report.sentences import number, with_bounds
from muralab.trial import TrialSpec


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
    """Mean over seeds of the metric of `b`."""

    @property
    def n_seeds(self) -> int:
        """K."""
        return len(self.by_seed)

    @property
    def seed_spread(self) -> float:
        """Standard deviation of the differences between seeds; NaN with one seed."""
        return float(np.std(self.by_seed, ddof=1)) if self.n_seeds > 1 else math.nan


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """One recipe compared with another over the same seeds."""

    recipe: str
    against: str
    seeds: tuple[int, ...]
    differences: Mapping[str, SeedsDifference]
    """Metric -> recipe minus the other, on test studies."""


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
    by_seed = np.array([x.sample.estimate(metric) - y.sample.estimate(metric) for x, y in zip(a, b, strict=True)])
    values = np.stack([x.values[metric] - y.values[metric] for x, y in zip(a, b, strict=True)], axis=1)
    resampled = _draw_seeds(values, seed, confidence)
    return SeedsDifference(
        interval=_percentile_interval(metric, a[0].sample, float(by_seed.mean()), resampled, confidence),
        by_seed=tuple(float(one) for one in by_seed),
        mean_a=float(np.mean([one.sample.estimate(metric) for one in a])),
        mean_b=float(np.mean([one.sample.estimate(metric) for one in b])),
    )


def _draw_seeds(differences: Floats, seed: int, confidence: float) -> Floats:
    """Means over drawn seeds of differences [R, K]; every resample draws its own seeds, [R]."""
    n_resamples, n_seeds = differences.shape
    if n_seeds == 1:
        return differences[:, 0]
    drawn = np.random.default_rng([seed, 1]).integers(n_seeds, size=(n_resamples, n_seeds))
    centre = differences.mean(axis=1, keepdims=True)
    deviations = np.take_along_axis(differences - centre, drawn, axis=1).mean(axis=1)
    return np.asarray(centre[:, 0] + stretch(n_seeds, confidence) * deviations)


def stretch(n_seeds: int, confidence: float = CONFIDENCE) -> float:
    """By which factor the deviations of K >= 2 resampled seeds are too small for an interval of this confidence."""
    from scipy.stats import norm, t

    share, df = (1 + confidence) / 2, n_seeds - 1
    return float(np.sqrt(n_seeds / df) * t.ppf(share, df) / norm.ppf(share))


def _percentile_interval(
    metric: str, sample: ClusteredSample, estimate: float, values: Floats, confidence: float
) -> Interval:
    defined = values[~np.isnan(values)]
    reason = no_interval_reason(metric, sample, len(defined) / len(values))
    low = high = math.nan
    if reason is None:
        tail = (1 - confidence) / 2
        low, high = (float(bound) for bound in np.quantile(defined, (tail, 1 - tail)))
    return Interval(estimate=estimate, low=low, high=high, level=confidence, n_resamples=len(defined), reason=reason)


def compare_models(
    models: Mapping[str, EvaluatedModel], specs: Sequence[TrialSpec], recipes: Sequence[str]
) -> list[Comparison]:
    """Compare every recipe with the first one, over the seeds that both have.

    Args:
        models: name of the trial -> its model.
        specs: these trials.
        recipes: in the order of the request.

    Returns:
        No comparison for a recipe that shares no finished seed with the first: see `unpaired`.
    """
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
        comparisons.append(Comparison(recipe=recipe, against=recipes[0], seeds=seeds, differences=differences))
    return comparisons


def unpaired(comparisons: Sequence[Comparison], recipes: Sequence[str], failures: Mapping[str, str]) -> list[str]:
    """One sentence for each recipe that could not be compared with the first.

    Args:
        comparisons: those of the other recipes.
        recipes: in the order of the request.
        failures: trial, named after its recipe -> why it failed.
    """
    compared = {one.recipe for one in comparisons}
    sentences = []
    for recipe in [name for name in recipes[1:] if name not in compared]:
        reasons = [
            reason.strip().splitlines()[-1].rstrip(".")
            for trial, reason in failures.items()
            if trial.rpartition("-seed")[0] in (recipe, recipes[0]) and reason.strip()
        ]
        why = f"; the first failure: {reasons[0]}" if reasons else ""
        sentences.append(f"{recipe} is not compared: it has no finished seed in common with {recipes[0]}{why}.")
    return sentences


def budget(recipes: Mapping[str, Recipe]) -> str:
    """The training budget of each recipe as text; one budget where all recipes share it."""
    each = {name: f"{r.upper.epochs} + {r.full.epochs} epochs at {r.image_size} px" for name, r in recipes.items()}
    if len(set(each.values())) == 1:
        return f"one budget ({next(iter(each.values()))})"
    return "each recipe's own budget (" + "; ".join(f"{name}: {text}" for name, text in each.items()) + ")"


def comparison_sentence(comparison: Comparison, recipes: Mapping[str, Recipe], dataset: Dataset) -> str:
    """The paired difference with its interval and its conditions, in a sentence that can be quoted.

    Args:
        comparison: of two recipes.
        recipes: name -> recipe as it was trained.
        dataset: the data set whose test set was used.
    """
    name = main_metrics()[0]
    found = comparison.differences[name]
    pair = {recipe: recipes[recipe] for recipe in (comparison.recipe, comparison.against)}
    titles = [recipe.summary for recipe in pair.values()]
    test = dataset.tables["test"]
    data = "SYNTHETIC demo data" if dataset.synthetic else "radiographs"
    seeds = f"{found.n_seeds} seed{'s' * (found.n_seeds > 1)}"
    resampled = "patients and seeds resampled" if found.n_seeds > 1 else "only patients resampled: one seed"
    return (
        f"On {test['study'].nunique()} test studies of {test['patient'].nunique()} patients ({dataset.part}, {data}), "
        f"over {seeds} of one split and {budget(pair)}, {titles[0]} reaches a mean study-level "
        f"{METRICS[name].title} of {number(found.mean_a)} and {titles[1]} of {number(found.mean_b)}: paired difference "
        f"{with_bounds(found.interval, signed=True)} (95 %, {resampled}), {_conclusion(found.interval)}."
    )


def _conclusion(interval: Interval) -> str:
    if not interval.low <= interval.high:  # also where they are NaN
        return f"which cannot be evaluated: {interval.reason or 'there is no interval'}"
    if interval.low <= 0 <= interval.high:
        return "which is not resolved: the interval contains 0"
    return f"{'higher' if interval.low > 0 else 'lower'}: the interval excludes 0"


def difference_table(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """One row per comparison and metric, on test studies."""
    rows = []
    for one in comparisons:
        for metric, found in one.differences.items():
            row = {
                "recipe": one.recipe,
                "against": one.against,
                "metric": metric,
                "level": "study",
                "set": "test",
                "mean": found.mean_a,
                "mean_against": found.mean_b,
                "difference": found.interval.estimate,
                "low": found.interval.low,
                "high": found.interval.high,
                "seed_spread": found.seed_spread,
            }
            rows.append(row | {f"seed_{seed}": value for seed, value in zip(one.seeds, found.by_seed)})
    return pd.DataFrame(rows)

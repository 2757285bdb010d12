"""A comparison of recipes as a sentence, which `compare` prints, and as a table, `differences.csv`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pandas as pd

from muralab.data.dataset import Dataset
from muralab.evaluation.intervals import CONFIDENCE, Interval
from muralab.evaluation.metrics import METRICS, main_metrics
from muralab.recipe import Recipe
from muralab.report.sentences import number, with_bounds
from muralab.results.seed_comparison import Comparison, SeedsDifference


def unpaired(comparisons: Sequence[Comparison], recipes: Sequence[str], failures: Mapping[str, str]) -> list[str]:
    """One sentence for each recipe that could not be compared with the first.

    Args:
        comparisons: those of the other recipes.
        recipes: in the order in which they were given.
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


def comparison_sentence(comparison: Comparison, recipes: Mapping[str, Recipe], *datasets: Dataset) -> str:
    """The paired difference with its interval and its conditions, in a sentence that can be quoted.

    Args:
        comparison: of two recipes.
        recipes: name -> recipe as it was trained.
        datasets: the data set whose test set was used, once for each fold.
    """
    name = main_metrics()[0]
    found = comparison.differences[name]
    pair = {recipe: recipes[recipe] for recipe in (comparison.recipe, comparison.against)}
    titles = [recipe.summary for recipe in pair.values()]
    dataset, test = datasets[0], pd.concat([one.tables["test"] for one in datasets])
    split = "one split"
    if len(datasets) > 1:
        split = f"{len(datasets)} folds (each patient tested by models trained without them)"
    data = "SYNTHETIC demo data" if dataset.synthetic else "radiographs"
    seeds = f"{found.n_seeds} seed{'s' * (found.n_seeds > 1)}"
    return (
        f"On {test['study'].nunique()} test studies of {test['patient'].nunique()} patients ({dataset.part}, {data}), "
        f"over {seeds} of {split} and {budget(pair)}, {titles[0]} reaches a mean study-level "
        f"{METRICS[name].title} of {number(found.mean_a)} and {titles[1]} of {number(found.mean_b)}: paired difference "
        f"{_figures(comparison, found)}, {_conclusion(comparison, name)}."
    )


def _figures(comparison: Comparison, found: SeedsDifference) -> str:
    """The difference with its interval and what it covers; with few seeds, each seed by itself."""
    shown = with_bounds(found.interval, signed=True)
    if found.covers_seeds:
        return f"{shown} (95%, patients and seeds resampled)"
    if found.n_seeds == 1:
        return f"{shown} (95%, only patients resampled: one seed)"
    each = " and ".join(
        f"{with_bounds(one, signed=True)} with seed {seed}" for seed, one in zip(comparison.seeds, found.by_seed)
    )
    return f"{number(found.interval.estimate, signed=True)}: {each} (95%, only patients resampled)"


def _conclusion(comparison: Comparison, metric: str) -> str:
    found = comparison.differences[metric]
    undefined = next((one for one in (found.interval, *found.by_seed) if not one.low <= one.high), None)
    if undefined is not None:  # its bounds are NaN
        return f"which cannot be evaluated: {undefined.reason or 'there is no interval'}"
    side = "higher" if found.interval.estimate > 0 else "lower"
    if comparison.n_comparisons > 1:
        p = comparison.adjusted_p[metric]
        adjustment = f"p = {number(p)} after Holm's adjustment for {comparison.n_comparisons} comparisons"
        text = f"which is not resolved: {adjustment}" if p >= 1 - CONFIDENCE else f"{side}: {adjustment}"
    else:
        intervals = [found.interval] if found.covers_seeds else list(found.by_seed)
        text = _by_intervals(intervals, side)
    return text if found.covers_seeds else f"{text}. {_few_seeds(found.n_seeds)}"


def _few_seeds(n_seeds: int) -> str:
    seeds = "1 seed is" if n_seeds == 1 else f"{n_seeds} seeds are"
    return f"{seeds} too few for an interval over seeds: this compares the trained models, not the recipes"


def _by_intervals(intervals: Sequence[Interval], side: str) -> str:
    """What one interval shows, or one for each seed."""
    each = len(intervals) > 1
    resolved = all(one.low > 0 for one in intervals) or all(one.high < 0 for one in intervals)
    if not resolved:
        return (
            f"which is not resolved: {'not every' if each else 'the'} interval {'excludes' if each else 'contains'} 0"
        )
    return f"{side}: {'both intervals exclude' if each else 'the interval excludes'} 0"


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
                "resampled": "patients and seeds" if found.covers_seeds else "patients",
                "p": found.p,
                "comparisons": one.n_comparisons,
                "adjusted_p": one.adjusted_p[metric],
                "seed_spread": found.seed_spread,
            }
            seeds = {f"seed_{seed}": alone.estimate for seed, alone in zip(one.seeds, found.by_seed)}
            rows.append(row | seeds)
    return pd.DataFrame(rows)

"""What a comparison found, in numbers and in a sentence that can be quoted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import pandas as pd

from muralab.data.dataset import Dataset
from muralab.evaluation.metrics import METRICS
from muralab.recipe import Recipe
from muralab.report import Entry
from muralab.report.sentences import number, with_bounds
from muralab.results.seed_comparison import Scored, SeedsDifference, seeds_difference
from muralab.trial import TrialSpec

COMPARED = ("auroc", "kappa")
"""The first makes the sentence."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Comparison:
    """One recipe against another over the same seeds."""

    recipe: str
    against: str
    seeds: tuple[int, ...]
    differences: Mapping[str, SeedsDifference]
    """Metric -> recipe minus the other."""


def budget(recipes: Mapping[str, Recipe]) -> str:
    """What each training may use, in words: one budget where all recipes share it."""
    each = {name: f"{r.upper.epochs} + {r.full.epochs} epochs at {r.image_size} px" for name, r in recipes.items()}
    if len(set(each.values())) == 1:
        return f"one budget ({next(iter(each.values()))})"
    return "each recipe's own budget (" + "; ".join(f"{name}: {words}" for name, words in each.items()) + ")"


def compare_entries(
    entries: Mapping[str, Entry], specs: Sequence[TrialSpec], recipes: Sequence[str]
) -> list[Comparison]:
    """Every later recipe against the first, over the seeds that both have.

    Args:
        entries: trial -> judged model.
        specs: of these trials.
        recipes: in the order asked for.

    Returns:
        None of a recipe that shares no finished seed with the first: `unpaired` names those.
    """
    found = {(spec.recipe, spec.seed): entries[spec.name] for spec in specs}
    comparisons = []
    for recipe in recipes[1:]:
        seeds = tuple(
            sorted({s for name, s in found if name == recipe} & {s for name, s in found if name == recipes[0]})
        )
        if not seeds:
            continue
        pair = [[_scored(found[name, one]) for one in seeds] for name in (recipe, recipes[0])]
        differences = {metric: seeds_difference(*pair, metric=metric) for metric in COMPARED}
        comparisons.append(Comparison(recipe=recipe, against=recipes[0], seeds=seeds, differences=differences))
    return comparisons


def unpaired(comparisons: Sequence[Comparison], recipes: Sequence[str], failures: Mapping[str, str]) -> list[str]:
    """A sentence for each recipe that could not be compared with the first.

    Args:
        comparisons: those that could.
        recipes: in the order asked for.
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
        why = f", the first failure: {reasons[0]}" if reasons else ""
        sentences.append(f"{recipe} is not compared: no seed of both it and {recipes[0]} was trained to its end{why}.")
    return sentences


def _scored(entry: Entry) -> Scored:
    assert entry.test is not None
    return Scored(predictions=entry.test, threshold=entry.threshold, temperature=entry.temperature)


def sentence(one: Comparison, recipes: Mapping[str, Recipe], dataset: Dataset) -> str:
    """The paired difference with its interval, and all that it holds for.

    Args:
        one: the comparison.
        recipes: name -> recipe as it was trained.
        dataset: whose test set was met.
    """
    found, metric = one.differences[COMPARED[0]], METRICS[COMPARED[0]].title
    titles = [recipes[name].summary for name in (one.recipe, one.against)]
    test = dataset.tables["test"]
    data = "SYNTHETIC demo data" if dataset.synthetic else "radiographs"
    seeds = f"{found.n_seeds} seed{'s' * (found.n_seeds > 1)}"
    share = {name: recipes[name] for name in (one.recipe, one.against)}
    resampled = "patients and seeds resampled" if found.n_seeds > 1 else "patients alone resampled: one seed"
    return (
        f"On {test['study'].nunique()} test studies of {test['patient'].nunique()} patients ({dataset.part}, {data}), "
        f"over {seeds} of one split and {budget(share)}, {titles[0]} reaches a mean study-level {metric} of "
        f"{number(found.mean_a)} and {titles[1]} of {number(found.mean_b)}: paired difference "
        f"{with_bounds(found.interval, signed=True)} (95 %, {resampled}), {_verdict(found)}."
    )


def _verdict(found: SeedsDifference) -> str:
    low, high = found.interval.low, found.interval.high
    if not low <= high:  # also where they are NaN
        return f"which cannot be judged: {found.interval.reason or 'there is no interval'}"
    if low <= 0 <= high:
        return "which is not resolved: the interval contains 0"
    return f"{'higher' if low > 0 else 'lower'}: the interval excludes 0"


def difference_table(comparisons: Sequence[Comparison]) -> pd.DataFrame:
    """A row a comparison and metric, test set, study level."""
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

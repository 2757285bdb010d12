"""What does a sweep reach with values that are spread evenly, drawn at random, or chosen from what trials have reached?

    python -m bench.searchers          (a minute on one core; --full: ten, more seeds and other numbers of first trials)

Replays sweeps of the custom CNN on a surrogate of its recorded trials (`bench.record_curves`): a Gaussian process of
the best objective of each of the 80 trials, less the mean of its own sweep, over the four searched values. A trial's
objective is the process' mean plus one of the residuals of the recorded trials at random. What counts is the mean at
the values of the trial that the sweep would select, since the residual is luck of a seed and of 100 validation studies;
a second set of rows is without residuals. The surrogate's own fit, over sweeps left out, is in the notes.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from unittest import mock

import numpy as np
import numpy.typing as npt

from bench.common import Options, Row, run
from bench.pruning import CURVES, read_searches
from muralab.recipe import resolved_values
from muralab.recipe_loader import load_recipe
from muralab.search_space import LogUniform, Space, Value
from muralab.trial import TrialSpec
from muralab.tune import sampler
from muralab.tune.adaptive import Observation, choose_values, observe
from muralab.tune.sampler import draw_values

RECIPE = "cnn"
N_TRIALS = (8, 16, 32)
FIRST = (2, 3, 5, 8, 10)
"""With --full: other numbers of trials before the first chosen one."""
Floats = npt.NDArray[np.float64]
Values = Mapping[str, Value]


@dataclass(frozen=True, kw_only=True)
class Surrogate:
    """A stand-in for training a trial."""

    mean: Callable[[Floats], Floats]
    """Positions [N, keys] -> expected objective [N]."""
    residuals: Floats
    fit: str
    """How well it predicts sweeps that were left out."""

    def expected(self, values: Values) -> float:
        """Of a trial with these values."""
        return float(self.mean(np.array([position(values)]))[0])


def position(values: Values) -> list[float]:
    """Where values lie in their ranges, each from 0 to 1; the recipe's own where a key is missing."""
    recipe = load_recipe(RECIPE)
    own = resolved_values(recipe)
    return [_place(space, float(values.get(key, own[key]))) for key, space in recipe.search.items()]


def _place(space: Space, value: float) -> float:
    assert not hasattr(space, "values")  # the CNN searches numbers
    low, high = space.low, space.high
    if isinstance(space, LogUniform):
        return math.log(value / low) / math.log(high / low)
    return (value - low) / (high - low)


def fit_surrogate(path: Path) -> Surrogate:
    """Fit the process to the recorded trials of all sweeps of a file."""
    from scipy.stats import spearmanr
    from sklearn.gaussian_process import GaussianProcessRegressor
    from sklearn.gaussian_process.kernels import RBF, ConstantKernel, WhiteKernel
    from sklearn.model_selection import LeaveOneGroupOut, cross_val_predict

    places, reached, sweeps = [], [], []
    for search in read_searches(path):
        drawn = draw_values(load_recipe(RECIPE), len(search.curves), seed=search.seed, fixed={}, search="quasi")
        best = {name: max(curve) for name, curve in search.curves.items()}
        places += [position(drawn[int(name)]) for name in best]
        reached += [one - float(np.mean(list(best.values()))) for one in best.values()]
        sweeps += [search.seed] * len(best)
    x, y = np.array(places), np.array(reached)
    kernel = ConstantKernel(0.01) * RBF([0.5] * x.shape[1], (0.1, 10)) + WhiteKernel(1e-3)
    process = GaussianProcessRegressor(kernel, n_restarts_optimizer=3, random_state=0)
    left_out = cross_val_predict(process, x, y, groups=sweeps, cv=LeaveOneGroupOut())
    explained = 1 - float(np.sum((left_out - y) ** 2) / np.sum(y**2))
    process.fit(x, y)
    return Surrogate(
        mean=process.predict,
        residuals=y - process.predict(x),
        fit=f"rank correlation {spearmanr(left_out, y).statistic:.2f}, {explained:.0%} of the variance explained",
    )


def replay(surrogate: Surrogate, search: str, n_trials: int, seed: int, noise: float) -> list[Observation]:
    """A sweep: each trial with its objective.

    Args:
        surrogate: stands for training.
        search: one of `SEARCHES`.
        n_trials: of the sweep.
        seed: of the sweep; sweeps of one seed meet the same residuals, trial by trial.
        noise: factor of the residuals.
    """
    drawn = draw_values(load_recipe(RECIPE), n_trials, seed=seed, fixed={}, search=search)
    luck = noise * np.random.default_rng(seed).choice(surrogate.residuals, n_trials)
    found: list[Observation] = []
    for number, values in enumerate(drawn):
        spec = TrialSpec(
            name=f"{RECIPE}-{number:02d}", recipe=RECIPE, drawn=values, seed=seed, table="", cache_folder="", folder=""
        )
        if search == "tpe" and number >= sampler.FIRST_CHOSEN:
            spec = replace(spec, drawn={}, draws=tuple(values))
            spec = replace(spec, drawn=choose_values(spec, found))
        found.append(observe(spec, surrogate.expected(spec.drawn) + float(luck[number])))
    return found


def selected(surrogate: Surrogate, trials: Sequence[Observation]) -> float:
    """What the best trial of a sweep is expected to reach again."""
    return surrogate.expected(max(trials, key=lambda one: one.objective).values)


@dataclass(frozen=True, kw_only=True)
class Reached:
    """What sweeps of one length reach: of the selected trial, over the seeds."""

    median: float
    quartiles: tuple[float, float]
    observed: float
    """Median of the objective that selected it, with its luck."""

    def __str__(self) -> str:
        low, high = self.quartiles
        return f"{self.median:+.4f} ({low:+.4f} to {high:+.4f})"


def medians(surrogate: Surrogate, search: str, seeds: range, noise: float) -> dict[int, Reached]:
    """Number of trials -> what sweeps of that length reach."""
    sweeps = [replay(surrogate, search, max(N_TRIALS), seed, noise) for seed in seeds]
    found = {}
    for n in N_TRIALS:
        worth = [selected(surrogate, sweep[:n]) for sweep in sweeps]
        low, median, high = (float(one) for one in np.percentile(worth, [25, 50, 75]))
        observed = float(np.median([max(one.objective for one in sweep[:n]) for sweep in sweeps]))
        found[n] = Reached(median=median, quartiles=(low, high), observed=observed)
    return found


def measure(options: Options) -> list[Row]:
    """One row per number of trials and noise; objectives less the mean of the recorded trials."""
    warnings.simplefilter("ignore")  # of the fit's bounds
    surrogate = fit_surrogate(CURVES / f"{RECIPE}.csv")
    seeds = range(200 if options.full else 60)
    ceiling = float(surrogate.mean(np.random.default_rng(0).random((20_000, 4))).max())
    rows = []
    for noise, title in ((1.0, "residuals as recorded"), (0.0, "no residuals")):
        found = {search: medians(surrogate, search, seeds, noise) for search in ("tpe", "quasi", "random")}
        for n in N_TRIALS:
            shown = {search: own[n] for search, own in found.items()}
            observed = ", ".join(f"{search} {one.observed:+.4f}" for search, one in shown.items())
            rows.append(
                Row(
                    what=f"searchers: {n} trials, {title}, {len(seeds)} seeds",
                    ours=f"tpe {shown['tpe']}",
                    theirs=f"quasi {shown['quasi']}; random {shown['random']}",
                    ratio=shown["tpe"].median / shown["random"].median,
                    note=f"as observed: {observed}; the best of the space is {ceiling:+.4f}, of the recipe's own "
                    f"values {surrogate.expected({}):+.4f}; the surrogate: {surrogate.fit}",
                )
            )
    return rows + (_first_rows(surrogate, seeds) if options.full else [])


def _first_rows(surrogate: Surrogate, seeds: range) -> list[Row]:
    rows = []
    for first in FIRST:
        with mock.patch.object(sampler, "FIRST_CHOSEN", first):
            found = {noise: medians(surrogate, "tpe", seeds, noise) for noise in (1.0, 0.0)}
        rows += [
            Row(
                what=f"searchers: {n} trials, the first {first} spread evenly",
                ours=f"tpe {found[1.0][n]}",
                theirs=f"without residuals {found[0.0][n]}",
                ratio=found[1.0][n].median / found[0.0][n].median,
            )
            for n in N_TRIALS
        ]
    return rows


if __name__ == "__main__":
    run(measure, __doc__)

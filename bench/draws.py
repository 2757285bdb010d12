"""How evenly do the trials of a sweep cover its search space?

    python -m bench.draws            (20 seconds on one core; --full: a minute, more seeds)

Sweeps of 8, 16 and 32 trials per recipe; the first trial is the recipe itself, so 7, 15 and 31 are drawn. Two
measures, means over seeds, of the draws of `muralab.tune.sampler` and of other sequences: the centred L2 discrepancy
(0 is even), and how far a random point of the space lies from the nearest draw.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
from scipy.spatial.distance import cdist
from scipy.stats import qmc

from bench.common import Options, Row, run
from muralab.tune.sampler import SOBOL_KEYS, Quantiles, draw_quantiles

N_TRIALS = (8, 16, 32)
DIMENSIONS = {"4 keys (CNNs)": 4, "5 keys (InceptionV3)": 5}
N_POINTS = 1000
MOST = 0.7
"""Target: the discrepancy of the default sampler over that of random draws."""
Draw = Callable[[int, int, int], Quantiles]
"""(draws, keys, seed) -> quantiles [draws, keys]"""


def platform_draws(search: str, keys: tuple[str, ...] = SOBOL_KEYS) -> Draw:
    """The draws of a sweep."""

    def draw(n: int, n_keys: int, seed: int) -> Quantiles:
        return np.stack([draw_quantiles(key, n, seed=seed, search=search) for key in keys[:n_keys]], axis=1)

    return draw


def halton(n: int, n_keys: int, seed: int) -> Quantiles:
    """A scrambled Halton sequence."""
    points: Quantiles = qmc.Halton(n_keys, rng=np.random.default_rng(seed)).random(n)
    return points


def high_sobol(n: int, n_keys: int, seed: int) -> Quantiles:
    """Random dimensions of a scrambled Sobol sequence, as if keys were hashed to dimensions."""
    rng = np.random.default_rng(seed)
    points: Quantiles = qmc.Sobol(256, rng=rng).random_base2(5)
    return points[:n, rng.choice(256, n_keys, replace=False)]


SEQUENCES: dict[str, Draw] = {
    "random": platform_draws("random"),
    "quasi": platform_draws("quasi"),
    "sobol, keys without a joint dimension": platform_draws("quasi", tuple(f"model.own{i}" for i in range(8))),
    "Halton": halton,
    "Sobol, hashed dimensions": high_sobol,
}


def measure_one(draw: Draw, n: int, n_keys: int, n_seeds: int) -> tuple[float, float]:
    """(discrepancy, distance to the nearest draw), means over seeds."""
    discrepancies, distances = [], []
    for seed in range(n_seeds):
        points = draw(n, n_keys, seed)
        anywhere = np.random.default_rng([seed, 1]).random((N_POINTS, n_keys))
        discrepancies.append(qmc.discrepancy(points))
        distances.append(cdist(anywhere, points).min(axis=1).mean())
    return float(np.mean(discrepancies)), float(np.mean(distances))


def measure(options: Options) -> list[Row]:
    """One row per number of trials and keys."""
    warnings.simplefilter("ignore")  # scipy: a number of points that is not a power of 2
    n_seeds = 300 if options.full else 60
    rows = []
    for title, n_keys in DIMENSIONS.items():
        for trials in N_TRIALS:
            found = {name: measure_one(draw, trials - 1, n_keys, n_seeds) for name, draw in SEQUENCES.items()}
            (random, random_far), (sobol, sobol_far) = found["random"], found["quasi"]
            others = "; ".join(f"{name} {found[name][0]:.4f}" for name in list(SEQUENCES)[2:])
            rows.append(
                Row(
                    what=f"draws: {trials} trials, {title}: discrepancy, {n_seeds} seeds",
                    ours=f"{sobol:.4f}",
                    theirs=f"random draws {random:.4f}",
                    ratio=sobol / random,
                    at_most=MOST,
                    note=f"{others}; distance to the nearest draw {sobol_far:.3f}, random {random_far:.3f}",
                )
            )
    return rows


if __name__ == "__main__":
    run(measure, __doc__)

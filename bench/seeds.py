"""Does `compare` state what a few seeds can show: coverage, false findings among several comparisons, two seeds?

    python -m bench.seeds            (a minute on one core; --full: about five minutes, more sets)

Simulated recipes whose skill varies from seed to seed, evaluated on the same 150 patients. The truth is the difference
of the mean skills, here 0 because the recipes are equal.
"""

from __future__ import annotations

import statistics

import numpy as np
import pandas as pd

from bench.common import Options, Row, run
from muralab.evaluation.intervals import ClusteredSample, Resampled, resample
from muralab.evaluation.predictions import level_rows
from muralab.results.seed_comparison import SeedsDifference, difference_over_seeds, holm

N_PATIENTS, N_RESAMPLES = 150, 400
SKILL, SPREAD = 0.7, (0.0, 0.15)
"""Mean skill of a recipe, and standard deviations between its seeds: none, or about 0.05 in AUROC."""
N_RIVALS = 3
"""Recipes compared with the first one, as in `recipes=all`."""


def models(rng: np.random.Generator, n_models: int, spread: float, draws: int) -> list[Resampled]:
    """Models of equal recipes on one image per patient; each patient is equally difficult for all of them.

    Args:
        rng: of the patients and the models.
        n_models: of all recipes.
        spread: of the skill between seeds.
        draws: seed of the resampling, the same for all models.
    """
    label = np.arange(N_PATIENTS) % 2
    common = rng.normal(size=N_PATIENTS)
    names = [f"p{patient:04d}" for patient in range(N_PATIENTS)]
    table = pd.DataFrame({"image": names, "study": names, "patient": names, "part": "wrist", "label": label})
    found = []
    for skill in rng.normal(SKILL, spread, n_models):
        logit = skill * (2 * label - 1) + 0.7 * common + 0.7 * rng.normal(size=N_PATIENTS)
        sample = ClusteredSample(level_rows(table.assign(logit=logit), level="study"))
        found.append(resample(sample, ["auroc"], n_resamples=N_RESAMPLES, seed=draws))
    return found


def draw_set(seed: int, n_seeds: int, spread: float) -> list[SeedsDifference]:
    """Three recipes compared with a first one that is not better."""
    rng = np.random.default_rng([seed, n_seeds, round(100 * spread)])
    drawn = models(rng, (1 + N_RIVALS) * n_seeds, spread, draws=10**7 + seed)
    first = drawn[:n_seeds]
    rivals = [drawn[(1 + i) * n_seeds : (2 + i) * n_seeds] for i in range(N_RIVALS)]
    return [difference_over_seeds(rival, first, "auroc") for rival in rivals]


def measure_one(n_seeds: int, spread: float, n_sets: int) -> list[Row]:
    """Coverage of one comparison, and false findings among three."""
    sets = [draw_set(seed, n_seeds, spread) for seed in range(n_sets)]
    what = f"compare: {n_seeds} seeds, spread {spread:g}, {n_sets} sets"
    firsts = [found[0] for found in sets]
    held = statistics.mean(one.interval.low <= 0 <= one.interval.high for one in firsts)
    width = statistics.mean(one.interval.high - one.interval.low for one in firsts)
    alone = statistics.mean(min(one.p for one in found) < 0.05 for found in sets)
    adjusted = statistics.mean(min(holm([one.p for one in found])) < 0.05 for found in sets)
    covers = firsts[0].covers_seeds
    return [
        Row(
            what=f"{what}: interval contains the truth",
            ours=f"{held:.1%}, mean width {width:.3f}",
            theirs="95%" if covers else "no claim: patients only",
            ratio=held,
            at_least=0.93 if covers else None,
        ),
        Row(
            what=f"{what}: a difference found among {N_RIVALS} comparisons, where there is none",
            ours=f"{adjusted:.1%}",
            theirs=f"without adjustment {alone:.1%}",
            ratio=adjusted,
            at_most=0.07 if covers else None,
        ),
    ]


def measure(options: Options) -> list[Row]:
    """Two, three and five seeds; seeds that do not differ, and that do."""
    n_sets = 300 if options.full else 60
    return [row for n_seeds in (2, 3, 5) for spread in SPREAD for row in measure_one(n_seeds, spread, n_sets)]


if __name__ == "__main__":
    run(measure, __doc__)

"""How long do the bootstrap intervals take, and do they hold the truth as often as they say?

    python bench/intervals.py            (a few minutes on one core; --quick: a tenth of that)

Time: 2,000 resamples of a set of MURA's valid size (3,197 images, about 1,200 studies) for all metrics, against the
metric loop of scikit-learn on the same draws (timed on a few of them). Coverage: the share of simulated sets of
clustered patients whose 95 % interval holds the figure of a very large population.
"""

from __future__ import annotations

import argparse
import time

import numpy as np
import pandas as pd

from muralab.evaluation.intervals import bootstrap, paired_difference
from muralab.evaluation.metrics import METRICS, evaluate_predictions
from muralab.evaluation.predict import Level

N_IMAGES_MURA = 3197  # in the official valid set
THRESHOLD = 0.45


def simulate(n_patients: int, seed: int, *, effect: float = 1.6, noise: float = 1.0) -> pd.DataFrame:
    """Predictions of patients with 1 to 3 studies of 1 to 4 views; labels and errors are alike within a patient."""
    rng = np.random.default_rng(seed)
    n_studies = rng.choice([1, 2, 3], p=[0.6, 0.3, 0.1], size=n_patients)
    patient = np.repeat(np.arange(n_patients), n_studies)
    tendency, hardness = rng.normal(0, 1.5, n_patients)[patient], rng.normal(0, 0.7, n_patients)[patient]
    label = (rng.random(len(patient)) < 1 / (1 + np.exp(0.4 - tendency))).astype(int)
    centre = effect * (label - 0.5) + hardness + rng.normal(0, 0.6, len(patient))
    study = np.repeat(np.arange(len(patient)), rng.choice([1, 2, 3, 4], p=[0.2, 0.25, 0.35, 0.2], size=len(patient)))
    return pd.DataFrame(
        {
            "image": [f"i{i:07d}" for i in range(len(study))],
            "study": study,
            "patient": patient[study],
            "part": "wrist",
            "label": label[study],
            "logit": centre[study] + rng.normal(0, noise, len(study)),
        }
    )


def print_time(level: Level, n_resamples: int) -> None:
    from sklearn.metrics import average_precision_score, roc_auc_score

    table = simulate(900, seed=1).head(N_IMAGES_MURA)
    bootstrap(table, level=level, metrics=list(METRICS), n_resamples=100)
    started, started_cpu = time.perf_counter(), time.process_time()
    bootstrap(table, level=level, metrics=list(METRICS), n_resamples=n_resamples)
    ours_s, cpu_s = time.perf_counter() - started, time.process_time() - started_cpu
    labels, logits, n_loop = table["label"].to_numpy(), table["logit"].to_numpy(), 40
    rng, started = np.random.default_rng(0), time.perf_counter()
    for _ in range(n_loop):
        rows = rng.integers(len(table), size=len(table))
        roc_auc_score(labels[rows], logits[rows])
        average_precision_score(labels[rows], logits[rows])
    loop_s = (time.perf_counter() - started) / n_loop * n_resamples
    print(
        f"{level}: {len(table):,} images, {table['study'].nunique():,} studies, {n_resamples:,} resamples, "
        f"{len(METRICS)} metrics: {ours_s:.2f} s ({cpu_s:.2f} s of one processor);\n"
        f"  scikit-learn's AUROC and AP alone, on images: {loop_s:.1f} s ({loop_s / ours_s:.0f} times as long)"
    )


def print_coverage(level: Level, n_sets: int, n_patients: int, n_resamples: int) -> None:
    truth = evaluate_predictions(simulate(60_000, seed=10**6), level=level, threshold=THRESHOLD)
    names = [name for name, metric in METRICS.items() if metric.no_interval is None]
    held = dict.fromkeys(names, 0)
    for seed in range(n_sets):
        table = simulate(n_patients, seed)
        # Other seeds than the sets': draws that repeat the simulation's own numbers would not be independent of it.
        found = bootstrap(
            table, level=level, metrics=names, threshold=THRESHOLD, n_resamples=n_resamples, seed=10**7 + seed
        )
        for name, interval in found.items():
            held[name] += interval.low <= truth[name] <= interval.high
    print(
        f"coverage of 95 % intervals, {level} level, {n_sets:,} sets of {n_patients} patients, {n_resamples} resamples:"
    )
    print("  " + "  ".join(f"{name} {100 * count / n_sets:.1f} %" for name, count in held.items()))


def pair(n_patients: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two models on the same patients; the second adds its own noise to the first."""
    a = simulate(n_patients, seed)
    noise = np.random.default_rng(10**8 + seed).normal(0, 1.2, len(a))
    return a, a.assign(logit=a["logit"] + noise)


def print_paired_coverage(n_sets: int, n_patients: int, n_resamples: int) -> None:
    levels: tuple[Level, Level] = ("image", "study")
    for level in levels:
        big_a, big_b = (evaluate_predictions(table, level=level) for table in pair(60_000, 10**6))
        truth, held = big_a["auroc"] - big_b["auroc"], 0
        for seed in range(n_sets):
            a, b = pair(n_patients, seed)
            found = paired_difference(a, b, level=level, metric="auroc", n_resamples=n_resamples, seed=10**7 + seed)
            held += found.low <= truth <= found.high
        print(f"coverage of the paired AUROC difference, {level} level, {n_sets:,} sets: {100 * held / n_sets:.1f} %")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a tenth of the sets: shows that it runs")
    parser.add_argument("--patients", type=int, default=250, help="in each simulated set")
    options = parser.parse_args()
    n_sets = 100 if options.quick else 1000
    print_time("image", 2000)
    print_time("study", 2000)
    print_coverage("study", n_sets, options.patients, 1000)
    print_coverage("image", n_sets, options.patients, 1000)
    print_paired_coverage(n_sets, options.patients, 1000)


if __name__ == "__main__":
    main()

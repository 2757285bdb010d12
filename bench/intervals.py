"""How long do the intervals take, and is their coverage right?

    python -m bench.intervals        (half a minute on one core; --full: about five minutes, with coverage)

Time: the intervals of all metrics of a set as large as MURA's valid split (3,197 images, about 1,200 studies), and
2,000 resamples of it, as `compare` and registered metrics need them, against a limit of one second; for comparison, a
loop over scikit-learn's metrics with as many draws (a few are timed). Coverage: the share of simulated sets of
clustered patients whose 95% interval contains the value of a very large population; the row shows the metric that is
farthest from 95%. Other sizes and few patients: `bench.interval_coverage`.
"""

from __future__ import annotations

import statistics

import numpy as np
import pandas as pd

from bench.common import Options, Row, interleave, ratios, run, seconds
from muralab.evaluation.intervals import ClusteredSample, metric_interval, metric_intervals, resample
from muralab.evaluation.metrics import METRICS, evaluate_predictions
from muralab.evaluation.paired_difference import difference_interval
from muralab.evaluation.predictions import Level, level_rows

N_IMAGES_MURA = 3197  # in the official valid set
THRESHOLD = 0.45
N_RESAMPLES, N_LOOP, N_PATIENTS = 2000, 40, 250
LIMIT_S = 1.0
COVERAGE = (0.925, 0.98)


def simulate(n_patients: int, seed: int, *, effect: float = 1.6, noise: float = 1.0) -> pd.DataFrame:
    """Predictions for patients with 1 to 3 studies of 1 to 4 views; labels and errors correlate within a patient."""
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


def time_row(level: Level, rounds: int) -> Row:
    """Our time and that of the loop, measured in turn."""
    from sklearn.metrics import average_precision_score, roc_auc_score

    table = simulate(900, seed=1).head(N_IMAGES_MURA)
    labels, logits = table["label"].to_numpy(), table["logit"].to_numpy()
    rng = np.random.default_rng(0)

    def loop() -> None:
        for _ in range(N_LOOP):
            rows = rng.integers(len(table), size=len(table))
            roc_auc_score(labels[rows], logits[rows])
            average_precision_score(labels[rows], logits[rows])

    def ours() -> None:
        sample = ClusteredSample(level_rows(table, level=level))
        resampled = resample(sample, list(METRICS), n_resamples=N_RESAMPLES)
        for name in METRICS:
            metric_interval(resampled, name)
        _ = resampled.values

    found = interleave(
        {"ours": lambda: seconds(ours), "loop": lambda: seconds(loop) / N_LOOP * N_RESAMPLES}, rounds, warm_up=1
    )
    ratio, spread = ratios(found["ours"], found["loop"])
    ours_s = statistics.median(found["ours"])
    return Row(
        what=f"intervals and {N_RESAMPLES:,} resamples of {len(table):,} images, {level} level, {len(METRICS)} metrics",
        ours=f"{ours_s:.2f} s",
        theirs=f"limit {LIMIT_S:.0f} s",
        ratio=ours_s / LIMIT_S,
        spread=(min(found["ours"]) / LIMIT_S, max(found["ours"]) / LIMIT_S),
        at_most=1.0,
        note=f"scikit-learn's AUROC and average precision alone, in a loop, {statistics.median(found['loop']):.1f} s: "
        f"ratio {ratio:.3f} ({spread[0]:.3f} to {spread[1]:.3f})",
    )


def coverage_row(level: Level, n_sets: int, n_patients: int) -> Row:
    """Coverage of the 95% interval of every metric."""
    truth = evaluate_predictions(simulate(60_000, seed=10**6), level=level, threshold=THRESHOLD)
    names = [name for name, metric in METRICS.items() if metric.no_interval is None]
    held = dict.fromkeys(names, 0)
    for seed in range(n_sets):
        found = metric_intervals(simulate(n_patients, seed), level=level, metrics=names, threshold=THRESHOLD)
        for name, interval in found.items():
            held[name] += interval.low <= truth[name] <= interval.high
    shares = {name: count / n_sets for name, count in held.items()}
    worst = max(shares, key=lambda name: abs(shares[name] - 0.95))
    return Row(
        what=f"coverage: 95% intervals, {level} level, {n_sets:,} sets of {n_patients} patients",
        ours=f"farthest of {len(names)}: {worst} {shares[worst]:.1%}",
        theirs="95%",
        ratio=shares[worst],
        spread=(min(shares.values()), max(shares.values())),
        at_least=COVERAGE[0],
        at_most=COVERAGE[1],
        note=", ".join(f"{name} {share:.1%}" for name, share in shares.items()),
    )


def pair(n_patients: int, seed: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two models on the same patients; the second is the first with added noise."""
    a = simulate(n_patients, seed)
    noise = np.random.default_rng(10**8 + seed).normal(0, 1.2, len(a))
    return a, a.assign(logit=a["logit"] + noise)


def paired_row(level: Level, n_sets: int, n_patients: int) -> Row:
    """Coverage of the interval of a paired AUROC difference."""
    big_a, big_b = (evaluate_predictions(table, level=level) for table in pair(60_000, 10**6))
    truth, held = big_a["auroc"] - big_b["auroc"], 0
    for seed in range(n_sets):
        samples = [ClusteredSample(level_rows(table, level=level)) for table in pair(n_patients, seed)]
        a, b = (resample(sample, ["auroc"]) for sample in samples)
        found = difference_interval(a, b, "auroc")
        held += found.low <= truth <= found.high
    return Row(
        what=f"coverage: paired AUROC difference, {level} level, {n_sets:,} sets",
        ours=f"{held / n_sets:.1%}",
        theirs="95%",
        ratio=held / n_sets,
        at_least=COVERAGE[0],
        at_most=COVERAGE[1],
    )


def measure(options: Options) -> list[Row]:
    """Measure times; with --full also coverage."""
    levels: tuple[Level, Level] = ("image", "study")
    rows = [time_row(level, 5) for level in levels]
    if not options.full:
        return rows
    rows += [coverage_row(level, 1000, N_PATIENTS) for level in levels]
    return [*rows, *(paired_row(level, 1000, N_PATIENTS) for level in levels)]


if __name__ == "__main__":
    run(measure, __doc__)

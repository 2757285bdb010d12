"""How often do 95% intervals contain the true value, from 12 to 1,200 patients?

    python -m bench.interval_coverage --jobs 2            (62 cells of 1,000 sets: six minutes of CPU time)
    python -m bench.interval_coverage --sets 100 --only p0060

A cell is a number of patients, a prevalence, a distribution of the studies per patient and an AUROC, and is named after
them, such as `p0060-prev35-mura-auc80`. Its sets are drawn from a binormal model whose true values are known in closed
form: half of a score's variance is the patient's. Cluster sizes: `one` study per patient, `equal` (three), `mura` (one
to six; a fifth of the labels are drawn anew, so that a patient has studies of both classes), `pareto` (tail index 1.5:
infinite variance), and in two cells more `half` (one patient has half of all studies). The second model of the paired
difference has 0.9 of the effect and noise correlated by 0.6.

The results are appended to a CSV, one row per cell and metric; cells that it holds are skipped, so a run that was
interrupted goes on where it stopped. Coverage is counted over the sets that got an interval; `given` is their share. A
cell in which less than half of the sets have an interval is printed in brackets: having enough patients is luck there.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from scipy.integrate import quad
from scipy.special import expit, logit, ndtr, ndtri
from scipy.stats import norm

from muralab.evaluation.intervals import ClusteredSample, Interval, metric_interval, resample
from muralab.evaluation.metrics import METRICS
from muralab.evaluation.paired_difference import difference_interval

PATIENTS = (12, 30, 60, 150, 400, 1200)
SHAPES = (
    (5, "one", 80),
    (5, "pareto", 90),
    (10, "equal", 95),
    (10, "mura", 70),
    (20, "pareto", 60),
    (20, "one", 99),
    (35, "mura", 80),
    (35, "equal", 60),
    (50, "pareto", 99),
    (50, "equal", 90),
)
"""Prevalence in %, cluster sizes, AUROC in %; each with every number of patients."""
COUNTED = (
    "auroc",
    "sensitivity",
    "specificity",
    "balanced_accuracy",
    "kappa",
    "accuracy",
    "f1",
    "brier",
    "log_loss",
)
DIFFERENCE = "auroc difference"
PATIENT_SHARE, REDRAWN_LABELS, EFFECT_OF_SECOND, SHARED_NOISE = 0.5, 0.2, 0.9, 0.6
LARGEST_PATIENT = 200
TARGET, TARGET_99 = (0.925, 0.98), (0.925, 0.995)
USUAL = 0.5
"""Share of the sets with an interval from which a cell is counted."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """What the sets of a cell have in common."""

    n_patients: int
    prevalence: float
    sizes: str
    auroc: float

    @property
    def name(self) -> str:
        """Such as `p0060-prev35-mura-auc80`."""
        percent = f"prev{100 * self.prevalence:02.0f}-{self.sizes}-auc{100 * self.auroc:02.0f}"
        return f"p{self.n_patients:04d}-{percent}"

    @property
    def effect(self) -> float:
        """Distance between the classes in standard deviations."""
        return float(np.sqrt(2) * ndtri(self.auroc))

    @property
    def threshold(self) -> float:
        """On the calibrated probability; sensitivity equals specificity except with `mura`."""
        return (self.prevalence + 0.5) / 2 if self.sizes == "mura" else self.prevalence

    @property
    def target(self) -> tuple[float, float]:
        """Lowest and highest coverage that is right."""
        return TARGET_99 if self.auroc >= 0.99 else TARGET


CELLS = [
    Cell(n_patients=n, prevalence=prevalence / 100, sizes=sizes, auroc=auroc / 100)
    for n in PATIENTS
    for prevalence, sizes, auroc in SHAPES
]
CELLS += [Cell(n_patients=n, prevalence=0.4, sizes="half", auroc=0.8) for n in (60, 150)]


def draw_sizes(cell: Cell, rng: np.random.Generator) -> np.ndarray:
    """Studies of each patient, [P]."""
    n = cell.n_patients
    if cell.sizes == "one":
        return np.ones(n, dtype=int)
    if cell.sizes == "equal":
        return np.full(n, 3)
    if cell.sizes == "mura":
        return rng.choice([1, 2, 3, 4, 6], p=[0.4, 0.25, 0.15, 0.12, 0.08], size=n)
    if cell.sizes == "half":
        sizes = rng.choice([1, 2, 3], size=n)
        sizes[0] = sizes[1:].sum()
        return sizes
    return np.minimum((1 - rng.random(n)) ** (-1 / 1.5), LARGEST_PATIENT).astype(int)


def draw_pair(cell: Cell, rng: np.random.Generator) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The calibrated predictions of two models on one set of patients, one row per study."""
    patient = np.repeat(np.arange(cell.n_patients), draw_sizes(cell, rng))
    label = (rng.random(cell.n_patients) < cell.prevalence)[patient]
    if cell.sizes == "mura":
        redrawn = rng.random(len(patient)) < REDRAWN_LABELS
        label = np.where(redrawn, rng.random(len(patient)) < cell.prevalence, label)
    shared, own = (
        np.sqrt(PATIENT_SHARE) * rng.normal(size=cell.n_patients)[patient]
        + np.sqrt(1 - PATIENT_SHARE) * rng.normal(size=len(patient))
        for _ in range(2)
    )
    second = SHARED_NOISE * shared + np.sqrt(1 - SHARED_NOISE**2) * own
    tables = [
        pd.DataFrame({"label": label.astype(int), "probability": calibrated(noise + effect * label, effect, cell)})
        for noise, effect in ((shared, cell.effect), (second, EFFECT_OF_SECOND * cell.effect))
    ]
    first, other = (table.assign(patient=patient) for table in tables)
    return first, other


def calibrated(score: np.ndarray, effect: float, cell: Cell) -> np.ndarray:
    """Probability of "abnormal" given a score."""
    return np.asarray(expit(effect * score - effect**2 / 2 + logit(cell.prevalence)))


def true_values(cell: Cell) -> dict[str, float]:
    """Metric -> its value in the population."""
    effect, share = cell.effect, cell.prevalence
    cut = (logit(cell.threshold) - logit(share) + effect**2 / 2) / effect
    sensitivity, specificity = float(ndtr(effect - cut)), float(ndtr(cut))
    called = share * sensitivity + (1 - share) * (1 - specificity)
    accuracy = share * sensitivity + (1 - share) * specificity
    by_chance = share * called + (1 - share) * (1 - called)

    def mean(loss: Callable[[float], float]) -> float:
        def at(score: float, label: int) -> float:
            right = float(abs(1 - label - calibrated(np.asarray(score), effect, cell)))
            return float(loss(right) * norm.pdf(score - effect * label))

        each = [quad(at, -9, 9 + effect, args=(label,), limit=300)[0] for label in (0, 1)]
        return float((1 - share) * each[0] + share * each[1])

    return {
        "auroc": cell.auroc,
        "sensitivity": sensitivity,
        "specificity": specificity,
        "balanced_accuracy": (sensitivity + specificity) / 2,
        "kappa": (accuracy - by_chance) / (1 - by_chance),
        "accuracy": accuracy,
        "f1": 2 * share * sensitivity / (share + called),
        "average_precision": _average_precision(cell),
        "brier": mean(lambda right: (1 - right) ** 2),
        "log_loss": mean(lambda right: -math.log(max(right, 1e-300))),
        DIFFERENCE: cell.auroc - float(ndtr(EFFECT_OF_SECOND * effect / np.sqrt(2))),
    }


def _average_precision(cell: Cell) -> float:
    def at(score: float) -> float:
        found, false = cell.prevalence * ndtr(cell.effect - score), (1 - cell.prevalence) * ndtr(-score)
        return float(found / (found + false) * norm.pdf(score - cell.effect))

    return float(quad(at, cell.effect - 8, cell.effect + 8, limit=300)[0])


def count(cell: Cell, n_sets: int, metrics: tuple[str, ...], n_resamples: int) -> pd.DataFrame:
    """One row per metric: how many sets got an interval, and how many of these contain the true value."""
    truth, rng = true_values(cell), np.random.default_rng(zlib.crc32(cell.name.encode()))
    bounds: dict[str, list[tuple[float, float]]] = {name: [] for name in (*metrics, DIFFERENCE)}
    for _ in range(n_sets):
        for name, interval in intervals(cell, draw_pair(cell, rng), metrics, n_resamples).items():
            bounds[name].append((interval.low, interval.high))
    rows = []
    for name, found in bounds.items():
        low, high = np.array(found).T
        given = ~np.isnan(low)
        counts = {
            "given": int(given.sum()),
            "covered": int(((low <= truth[name]) & (truth[name] <= high)).sum()),
            "below": int((high < truth[name]).sum()),
            "above": int((low > truth[name]).sum()),
            "median_width": float(np.median((high - low)[given])) if given.any() else np.nan,
        }
        rows.append({"cell": cell.name, "metric": name, "true": truth[name], "sets": n_sets, **counts})
    return pd.DataFrame(rows)


def intervals(
    cell: Cell, pair: tuple[pd.DataFrame, pd.DataFrame], metrics: tuple[str, ...], n_resamples: int
) -> dict[str, Interval]:
    """Those of the first model of a pair, and that of the difference."""
    both = [
        resample(ClusteredSample(table, threshold=cell.threshold), list(metrics), n_resamples=n_resamples)
        for table in pair
    ]
    found = {name: metric_interval(both[0], name) for name in metrics}
    return found | {DIFFERENCE: difference_interval(both[0], both[1], "auroc")}


def coverage_table(results: pd.DataFrame) -> str:
    """Markdown: coverage in % by cell and metric; bold outside the target, in brackets where intervals are rare."""
    names = [name for name in (*METRICS, DIFFERENCE) if name in set(results["metric"])]
    titles = [name.replace("_", " ") for name in names]
    lines = ["| cell | given % | " + " | ".join(titles) + " |", "|---" * (len(names) + 2) + "|"]
    for cell in CELLS:
        rows = results[results["cell"] == cell.name].set_index("metric")
        if len(rows):
            given = 100 * rows.loc["auroc", "given"] / rows.loc["auroc", "sets"]
            lines.append(f"| {cell.name} | {given:.0f} | {' | '.join(_text(cell, rows, name) for name in names)} |")
    return "\n".join(lines)


def _text(cell: Cell, rows: pd.DataFrame, name: str) -> str:
    if name not in rows.index or not rows.loc[name, "given"]:
        return "–"
    row = rows.loc[name]
    share = row["covered"] / row["given"]
    text = f"{100 * share:.1f}"
    if row["given"] < USUAL * row["sets"]:
        return f"({text})"
    return text if cell.target[0] <= share <= cell.target[1] else f"**{text}**"


def summary(results: pd.DataFrame) -> str:
    """How many of the counted cells are within the target, by metric, and the lowest and the highest coverage."""
    cells = {cell.name: cell for cell in CELLS}
    counted = results[results["given"] >= USUAL * results["sets"]]
    lines = []
    for name, rows in counted.groupby("metric", sort=False):
        shares = rows["covered"] / rows["given"]
        within = [
            cells[cell].target[0] <= share <= cells[cell].target[1]
            for cell, share in zip(rows["cell"], shares, strict=True)
        ]
        lines.append(
            f"{name}: {sum(within)} of {len(rows)} cells within the target; {shares.min():.1%} to {shares.max():.1%}"
        )
    return "\n".join(lines)


def _count(task: tuple[Cell, int, tuple[str, ...], int]) -> pd.DataFrame:
    return count(*task)


def main() -> None:
    """Fill the CSV with the missing cells, then print the grid."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", type=int, default=1000, help="sets of each cell")
    parser.add_argument("--jobs", type=int, default=1, help="processes")
    parser.add_argument("--only", default="", help="cells whose name contains this text")
    parser.add_argument("--metrics", default=",".join(COUNTED), help="comma-separated names; auroc is among them")
    parser.add_argument("--resamples", type=int, default=1000, help="of metrics whose interval is resampled")
    parser.add_argument("--out", type=Path, default=Path("interval-coverage.csv"), help="the CSV of the results")
    given = parser.parse_args()
    metrics = tuple(dict.fromkeys(["auroc", *given.metrics.split(",")]))
    done = set(pd.read_csv(given.out)["cell"]) if given.out.exists() else set()
    cells = [cell for cell in CELLS if given.only in cell.name and cell.name not in done]
    tasks = [(cell, given.sets, metrics, given.resamples) for cell in sorted(cells, key=lambda one: -one.n_patients)]
    with multiprocessing.Pool(given.jobs) as pool:
        for number, rows in enumerate(pool.imap_unordered(_count, tasks), 1):
            rows.to_csv(given.out, mode="a", header=not given.out.exists(), index=False)
            print(f"{number} of {len(tasks)}: {rows['cell'].iloc[0]}", flush=True)
    results = pd.read_csv(given.out)
    print(coverage_table(results), summary(results), sep="\n\n")


if __name__ == "__main__":
    main()

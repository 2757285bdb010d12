"""How often does the gate accept a worse, an equal and a better model, and how far is it from the best possible rule?

    python -m bench.gate      (two minutes of one core; --full: about ten, with the tables of docs/evidence.md)

Simulated pairs of models: binormal scores of studies, champion with an AUROC of 0.85, 40% abnormal, 1.3 studies per
patient (of one patient, labels agree more often than by chance, and 30% of the scores' variance is common), scores of
the two models correlated within a class. Each model is calibrated and has a threshold of its own, fitted for the
highest kappa on as many validation studies as there are test studies. The gate's own functions decide. `bound` is the
share that any rule on the AUROC difference can accept at most if it accepts 2.5% of the models that are worse by
0.025: by Neyman and Pearson's lemma the best rule accepts above one critical difference. `before` is the rule of
earlier versions: estimate not below 0, lower end above -0.05, sensitivity (each model at its own threshold) not down
by more than 0.05, Brier score not up by more than 0.02.

The second part shows how often threshold faults are refused, the third how optimistic a champion's figure is after many
candidates on one test set, and whether the range that is stated for it holds (`--full` only).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from scipy.special import expit, ndtr, ndtri

from bench.common import Options, Row, run
from muralab.evaluation.best_of_many import interval_after_selection
from muralab.evaluation.intervals import ClusteredSample, Resampled, metric_interval, resample
from muralab.evaluation.operating_point import operating_threshold
from muralab.registry.gate import Decision, Differences, Margins, apply_margins, measure_resampled

AUROC, PREVALENCE, STUDIES_PER_PATIENT, PATIENT_SHARE = 0.85, 0.4, 1.3, 0.3
DIFFERENCES = (-0.025, -0.0125, 0.0, 0.0125, 0.025)
CORRELATIONS = (0.6, 0.8)
N_SETS = {100: 400, 237: 400, 1199: 100}
"""Test studies -> simulated pairs of each cell of the table; a share of 20% of 400 has a standard error of 2%."""
N_WORSE, N_BETTER = 1500, 150
"""Simulated pairs for the two targets; a share of 2.5% of 1,500 has a standard error of 0.4 points."""
METRICS = ("auroc", "kappa", "brier", "sensitivity")
MOST_WORSE, LEAST_BETTER = 0.025, 0.60
N_CHECKS = 6
"""Gain, margin and four guards."""
SMALL_SETS = (30, 50)
"""Test studies: a difference in kappa has so wide an interval there that it shows no loss."""
N_RESAMPLES = 250
"""Of the guards at the champion's operating point; fewer than the gate's own 2,000, for speed."""


@dataclass(frozen=True, kw_only=True)
class Studies:
    """The patients and labels of one simulated set, and what two models' scores have in common."""

    patient: np.ndarray
    label: np.ndarray
    common: np.ndarray
    """Standard normal, [S]."""
    rng: np.random.Generator = field(repr=False)

    def scores(self, auroc: float, noise: np.ndarray) -> np.ndarray:
        """Calibrated probabilities of a model whose scores have this noise."""
        distance = np.sqrt(2) * ndtri(auroc)
        odds = np.log(PREVALENCE / (1 - PREVALENCE))
        return np.asarray(expit(distance * (distance * self.label + noise) - distance**2 / 2 + odds))

    def noise(self, correlation: float) -> np.ndarray:
        """The noise of one more model, standard normal, correlated with that of the others."""
        own = clustered(self.patient, self.rng)
        return np.asarray(np.sqrt(correlation) * self.common + np.sqrt(1 - correlation) * own)


def clustered(patient: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Standard normal values of which a share is the patient's."""
    shared, own = rng.normal(size=patient.max() + 1)[patient], rng.normal(size=len(patient))
    return np.asarray(np.sqrt(PATIENT_SHARE) * shared + np.sqrt(1 - PATIENT_SHARE) * own)


def draw_studies(n_studies: int, rng: np.random.Generator) -> Studies:
    """Patients with one or two studies."""
    n_patients = round(n_studies / STUDIES_PER_PATIENT)
    second = rng.choice(n_patients, n_studies - n_patients, replace=False)
    patient = np.concatenate([np.arange(n_patients), second])
    first = rng.random(n_patients) < PREVALENCE
    same = rng.random(len(second)) < 0.5
    label = np.concatenate([first, np.where(same, first[second], rng.random(len(second)) < PREVALENCE)])
    return Studies(patient=patient, label=label.astype(int), common=clustered(patient, rng), rng=rng)


def fitted_threshold(n_studies: int, auroc: float, rng: np.random.Generator) -> float:
    """Of a model of this AUROC, on validation studies of its own."""
    studies = draw_studies(n_studies, rng)
    return operating_threshold(studies.label, studies.scores(auroc, studies.noise(0.5)))


def evaluate(studies: Studies, probabilities: np.ndarray, threshold: float) -> Resampled:
    """One model's metrics on a test set, resampled."""
    rows = pd.DataFrame({"label": studies.label, "probability": probabilities, "patient": studies.patient})
    return resample(ClusteredSample(rows, threshold=threshold), METRICS)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What the gate says of one simulated candidate."""

    difference: float
    """Observed, in AUROC."""
    found: Differences
    decision: Decision
    before: bool
    """Whether the earlier rule accepts it."""


def outcome(candidate: Resampled, champion: Resampled, threshold: float) -> Outcome:
    """The gate's decision, and that of the earlier rule."""
    found = measure_resampled(candidate, champion, threshold, n_resamples=N_RESAMPLES)
    lost = champion.sample.estimate("sensitivity") - candidate.sample.estimate("sensitivity")
    before = found.objective.estimate >= 0 and found.objective.low > -0.05 and lost <= 0.05
    return Outcome(
        difference=found.objective.estimate,
        found=found,
        decision=apply_margins(found, Margins()),
        before=before and found.brier.estimate <= 0.02,
    )


def simulate(
    n_studies: int, correlation: float, n_sets: int, differences: Sequence[float] = DIFFERENCES
) -> dict[float, list[Outcome]]:
    """True difference -> outcomes; the candidates of one set differ in their true AUROC only."""
    outcomes: dict[float, list[Outcome]] = {difference: [] for difference in differences}
    for seed in range(n_sets):
        rng = np.random.default_rng([n_studies, round(100 * correlation), seed])
        studies = draw_studies(n_studies, rng)
        own, other = studies.noise(correlation), studies.noise(correlation)
        threshold = fitted_threshold(n_studies, AUROC, rng)
        champion = evaluate(studies, studies.scores(AUROC, own), threshold)
        for difference, collected in outcomes.items():
            at = fitted_threshold(n_studies, AUROC + difference, rng)
            scores = studies.scores(AUROC + difference, other)
            collected.append(outcome(evaluate(studies, scores, at), champion, threshold))
    return outcomes


def accepted(outcomes: Sequence[Outcome]) -> float:
    """Share that the gate accepts."""
    return float(np.mean([one.decision.accepted for one in outcomes]))


def bound(outcomes: dict[float, list[Outcome]], difference: float, level: float = MOST_WORSE) -> float:
    """Share of candidates of a true difference above the critical value that `level` of the worst exceed.

    The observed differences are close to normal; their simulated spread is far less noisy than a quantile of them.
    """
    worst, own = (np.std([one.difference for one in outcomes[true]]) for true in (DIFFERENCES[0], difference))
    critical = DIFFERENCES[0] - ndtri(level) * worst
    return float(ndtr((difference - critical) / own))


def refusals(outcomes: Sequence[Outcome]) -> str:
    """How often each condition fails, in percent: gain, margin, the four guards, the threshold; any guard alone."""
    failed = np.array([_failed(one.decision) for one in outcomes])
    guards_alone = (failed[:, 2:].any(axis=1) & ~failed[:, :2].any(axis=1)).mean()
    each = ", ".join(f"{100 * share:.1f}" for share in failed.mean(axis=0))
    return f"{each}; guards alone {100 * guards_alone:.1f}"


def _failed(decision: Decision) -> list[bool]:
    """Of the conditions that every decision has, and whether there is one against the threshold itself."""
    always = [not check.passed for check in decision.checks[:N_CHECKS]]
    return [*always, not all(check.passed for check in decision.checks[N_CHECKS:])]


def operating_curve(n_studies: int, correlation: float, n_sets: int) -> list[str]:
    """The lines of one cell, as Markdown."""
    outcomes = simulate(n_studies, correlation, n_sets)
    spread = np.std([one.difference for one in outcomes[0.0]])
    lines = []
    for difference, found in outcomes.items():
        before = np.mean([one.before for one in found])
        cell = f"| {n_studies:,} | {correlation} | {spread:.3f} | {difference:+.4f}"
        shares = f"{before:.1%} | {accepted(found):.1%} | {bound(outcomes, difference):.1%}"
        lines.append(f"{cell} | {shares} | {refusals(found)} |")
    return lines


def curve_rows(n_sets: int) -> list[Row]:
    """The two targets at 237 studies."""
    rows = []
    for correlation in CORRELATIONS:
        worse = accepted(simulate(237, correlation, N_WORSE, DIFFERENCES[:1])[DIFFERENCES[0]])
        outcomes = simulate(237, correlation, n_sets)
        better = accepted(outcomes[0.025])
        best = min(LEAST_BETTER, bound(outcomes, 0.025))
        where = f"gate, 237 studies, score correlation {correlation}"
        slack = 2 * np.sqrt(MOST_WORSE * (1 - MOST_WORSE) / N_WORSE)
        rows += [
            Row(what=f"{where}: worse by 0.025 accepted", ours=f"{worse:.1%}", theirs=f"at most {MOST_WORSE:.1%}",
                ratio=worse, at_most=round(MOST_WORSE + slack, 4)),
            Row(what=f"{where}: better by 0.025 accepted", ours=f"{better:.1%}",
                theirs=f"{LEAST_BETTER:.0%}, or the bound of {bound(outcomes, 0.025):.1%}", ratio=better / best,
                at_least=0.9),
        ]  # fmt: skip
    return rows


def threshold_faults(n_sets: int) -> list[str]:
    """How often a model that is better by 0.025 is refused by a guard because its own threshold is useless."""
    lines = []
    for n_studies in (*SMALL_SETS, *N_SETS):
        refused = {name: 0 for name in ("0", "1", "highest tenth", "fitted")}
        for seed in range(n_sets):
            rng = np.random.default_rng([n_studies, seed, 7])
            studies = draw_studies(n_studies, rng)
            threshold = fitted_threshold(n_studies, AUROC, rng)
            champion = evaluate(studies, studies.scores(AUROC, studies.noise(0.8)), threshold)
            scores = studies.scores(AUROC + 0.025, studies.noise(0.8))
            own = {"0": 0.0, "1": 1.0, "highest tenth": float(np.quantile(scores, 0.9))}
            own["fitted"] = fitted_threshold(n_studies, AUROC + 0.025, rng)
            for name, at in own.items():
                checks = outcome(evaluate(studies, scores, at), champion, threshold).decision.checks
                refused[name] += not all(check.passed for check in checks[2:])
        shares = " | ".join(f"{count / n_sets:.1%}" for count in refused.values())
        lines.append(f"| {n_studies:,} | {shares} |")
    return lines


def optimism(n_studies: int, n_candidates: int, n_sets: int) -> str:
    """Candidates of one true AUROC pass the gate one after the other; how good does the last champion look?"""
    true, stated, plain, stretched, widths = 0.906, [], 0, 0, []
    for seed in range(n_sets):
        rng = np.random.default_rng([n_studies, n_candidates, seed, 3])
        studies = draw_studies(n_studies, rng)
        champion, at = None, 0.0
        for _ in range(n_candidates):
            threshold = fitted_threshold(n_studies, true, rng)
            candidate = evaluate(studies, studies.scores(true, studies.noise(0.6)), threshold)
            if champion is None or outcome(candidate, champion, at).decision.accepted:
                champion, at = candidate, threshold
        assert champion is not None
        interval = metric_interval(champion, "auroc")
        wide = interval_after_selection(interval, n_candidates)
        stated.append(interval.estimate)
        plain += interval.low <= true <= interval.high
        stretched += wide.low <= true <= wide.high
        widths.append((interval.high - interval.low, wide.high - wide.low))
    width, wide_width = np.mean(widths, axis=0)
    return (
        f"| {n_studies} | {n_candidates} | {true:.3f} | {np.mean(stated):.3f} | {plain / n_sets:.1%} ({width:.3f}) "
        f"| {stretched / n_sets:.1%} ({wide_width:.3f}) |"
    )


def print_tables() -> None:
    """The tables of docs/evidence.md."""
    print("| studies | correlation | SD | true difference | before | accepted | bound | refused by |")
    for n_studies, n_sets in N_SETS.items():
        for correlation in CORRELATIONS:
            print("\n".join(operating_curve(n_studies, correlation, n_sets)), flush=True)
    print("\n| studies | threshold 0 | threshold 1 | highest tenth | fitted |")
    print("\n".join(threshold_faults(100)), flush=True)
    print("\n| studies | candidates | true | stated | 95% interval holds (width) | range holds (width) |")
    for n_studies, n_candidates, n_sets in ((237, 1, 400), (237, 20, 150)):
        print(optimism(n_studies, n_candidates, n_sets), flush=True)


def measure(options: Options) -> list[Row]:
    """The targets; with --full also the tables."""
    if options.full:
        print_tables()
    return curve_rows(N_SETS[237] if options.full else N_BETTER)


if __name__ == "__main__":
    run(measure, __doc__)

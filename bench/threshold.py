"""Does the threshold that is fitted on a small validation set hold on new studies?

    python -m bench.threshold          (minutes on one core; --full: ten times as many sets)

Scores of four shapes are simulated (normal; abnormal studies that vary more; heavy tails; a third of the abnormal ones
obvious and the rest subtle), at three AUROCs and three prevalences. Each set is calibrated as `fit_calibration` does,
and the kappa of each threshold is computed on 40,000 new studies. The other sides: the best threshold for the labels of
the set, as in earlier versions; the best one if the calibrated probabilities were true; 0.5 on calibrated
probabilities; and 0.5 on uncalibrated ones of a network that was trained with class weights.
"""

from __future__ import annotations

from itertools import product

import numpy as np
from numpy.typing import NDArray

from bench.common import Options, Row, run
from muralab.evaluation.calibration import fit_scaling
from muralab.evaluation.operating_point import PRIOR_PATIENTS, best_threshold, label_weight
from muralab.serving.scaling import logit, sigmoid

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
SHAPES = ("normal", "wide", "heavy", "mixture")
AUROCS = (0.7, 0.8, 0.9)
PREVALENCES = (0.2, 0.35, 0.5)
SIZES = (40, 100, 172, 400, 1000)
PRIORS = (25, 50, 100, 200, 400)
N_NEW = 40_000


def draw(n: int, auroc: float, prevalence: float, shape: str, rng: np.random.Generator) -> tuple[Ints, Floats]:
    """Labels and logits of n studies, at least three of each class."""
    from scipy.special import ndtri

    labels = np.zeros(n, dtype=np.int64)
    while not 3 <= labels.sum() <= n - 3:
        labels = (rng.random(n) < prevalence).astype(np.int64)
    distance = np.sqrt(2) * ndtri(auroc)
    noise = rng.standard_t(3, size=n) if shape == "heavy" else rng.normal(size=n)
    shift = distance * labels
    if shape == "wide":
        noise, shift = noise * np.where(labels == 1, 1.8, 1.0), shift * np.sqrt((1 + 1.8**2) / 2)
    elif shape == "heavy":
        shift = 1.35 * shift
    elif shape == "mixture":
        obvious = rng.random(n) < 0.35
        shift = labels * np.where(obvious, distance + 2.5, max(distance - 0.6, 0.1))
    return labels, 1.7 * (noise + shift) - 0.4


def thresholds(labels: Ints, logits: Floats, prevalence: float) -> dict[str, float]:
    """Every side's threshold on calibrated probabilities."""
    p = fit_scaling(labels, logits).probabilities(logits)
    observed = best_threshold(labels.astype(np.float64), p, "max-kappa")
    expected = best_threshold(p, p, "max-kappa")
    n_rarer = label_weight(labels) * PRIOR_PATIENTS / (1 - label_weight(labels))
    found = {"labels alone": observed, "probabilities alone": expected, "0.5": 0.5, "0.5, uncalibrated": prevalence}
    for prior in PRIORS:
        weight = n_rarer / (n_rarer + prior)
        found[f"{prior} patients"] = float(sigmoid(weight * logit(observed) + (1 - weight) * logit(expected)))
    return found


def score(labels: Ints, called: NDArray[np.bool_]) -> tuple[float, bool]:
    """Kappa, and whether sensitivity and specificity are both above 0.5."""
    sensitivity, specificity = called[labels == 1].mean(), 1 - called[labels == 0].mean()
    share, n_called = labels.mean(), called.mean()
    chance = n_called * share + (1 - n_called) * (1 - share)
    agreed = sensitivity * share + specificity * (1 - share)
    return float((agreed - chance) / (1 - chance)), bool(min(sensitivity, specificity) > 0.5)


def measure_size(n: int, n_sets: int) -> Row:
    """All shapes, AUROCs and prevalences at one size of the validation set."""
    kappas: dict[str, list[float]] = {}
    both: dict[str, list[bool]] = {}
    for shape, auroc, prevalence in product(SHAPES, AUROCS, PREVALENCES):
        new, fresh = draw(N_NEW, auroc, prevalence, shape, np.random.default_rng(7))
        for seed in range(n_sets):
            rng = np.random.default_rng([n, seed, int(auroc * 100), int(prevalence * 100)])
            labels, logits = draw(n, auroc, prevalence, shape, rng)
            p = fit_scaling(labels, logits).probabilities(fresh)
            for name, threshold in thresholds(labels, logits, prevalence).items():
                kappa, is_above = score(new, p >= threshold)
                kappas.setdefault(name, []).append(kappa)
                if auroc > 0.75:
                    both.setdefault(name, []).append(is_above)
    mean = {name: float(np.mean(values)) for name, values in kappas.items()}
    ours = f"{PRIOR_PATIENTS} patients"
    others = "; ".join(
        f"{name} {mean[name]:.3f}, {np.mean(both[name]):.0%}" for name in mean if name not in (ours, "labels alone")
    )
    return Row(
        what=f"threshold: {n} validation studies, mean kappa of {len(kappas[ours]):,} sets on new studies",
        ours=f"{mean[ours]:.3f}, both rates above 0.5 in {np.mean(both[ours]):.0%}",
        theirs=f"labels alone {mean['labels alone']:.3f}, {np.mean(both['labels alone']):.0%}",
        ratio=mean[ours] / max(mean["labels alone"], mean["0.5"]),
        at_least=1.0,
        note=f"{others}. Rates: sensitivity and specificity, where the AUROC is above 0.75",
    )


def measure(options: Options) -> list[Row]:
    """Measure at every size."""
    return [measure_size(n, 200 if options.full else 20) for n in SIZES]


if __name__ == "__main__":
    run(measure, __doc__)

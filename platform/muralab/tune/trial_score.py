"""What a trial has reached on validation, from the metrics of its epochs."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from muralab.training.phases import PHASES, select_phase
from muralab.trial import TrialSpec, recipes_of

SUMMARISED = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_auroc", "val_study_auroc")


@dataclass(frozen=True, kw_only=True)
class TrialScore:
    """What a trial has reached on validation, and with the weights of which phase."""

    phase: str
    """The phase whose best weights are kept."""
    objective: float
    """Of these weights."""
    summary: Mapping[str, float]
    """To be logged: `objective`, and as `upper_*` and `full_*` the metrics of each phase's best epoch."""


def score_trial(history: Sequence[Mapping[str, Any]], objective: str, keeps: str) -> TrialScore | None:
    """Summarise a trial's epochs; None without one.

    Args:
        history: the metrics of every epoch.
        objective: name of the metric that selects.
        keeps: the recipe's `kept_phase`.
    """
    by_phase = {phase: [row for row in history if row["phase"] == n] for n, phase in enumerate(PHASES, start=1)}
    best = {
        phase: max(epochs, key=lambda row: comparable(row[objective])) for phase, epochs in by_phase.items() if epochs
    }
    if not best:
        return None
    kept = select_phase({phase: comparable(row[objective]) for phase, row in best.items()}, keeps)
    summary = {f"{phase}_{name}": float(row[name]) for phase, row in best.items() for name in {*SUMMARISED, objective}}
    summary |= {f"{phase}_epochs": float(len(by_phase[phase])) for phase in best}
    reached = float(best[kept][objective])
    return TrialScore(phase=kept, objective=reached, summary={**summary, "objective": reached})


def objectives_of(history: Sequence[Mapping[str, Any]], spec: TrialSpec) -> dict[str, float]:
    """The objective after an epoch: of the weights which the trial would keep if it ended now, and the epoch's own.

    Log them before other metrics: MLflow's page that compares runs draws the one that was logged first.

    Args:
        history: the metrics of every epoch so far, at least one.
        spec: the trial.
    """
    score = score_trial(history, spec.objective, recipes_of(spec)[1].kept_phase)
    assert score is not None  # an epoch has ended
    return {"objective": score.objective, "epoch_objective": float(history[-1][spec.objective])}


def comparable(value: float) -> float:
    """A value that ranks last where it is not a number."""
    return -math.inf if math.isnan(value) else value

"""The description of a trial's run in MLflow: what it tries, how it ended and why, in Markdown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from muralab.recipe import Recipe, resolved_values
from muralab.training.phases import PHASES, select_phase
from muralab.trial import TrialSpec, recipes_of
from muralab.tune.trial_names import short_value

PRUNED = (
    "its objective, projected to the last epoch, was below that of the best third of its recipe's trials at the same "
    "epoch"
)
MAX_REASON_CHARACTERS = 1000


def running_note(spec: TrialSpec, searched: Sequence[str]) -> str:
    """The description while a trial runs."""
    return "\n\n".join(["**Running**, or interrupted if its status says so.", *_what(spec, searched)])


def ended_note(
    spec: TrialSpec, searched: Sequence[str], history: Sequence[Mapping[str, Any]], how: str, reason: str
) -> str:
    """The description of a trial that has ended.

    Args:
        spec: the trial.
        searched: the values that trials of its recipe draw.
        history: the metrics of its epochs.
        how: finished, pruned, stopped or failed.
        reason: of a failure.
    """
    return "\n\n".join([_outcome(spec, history, how, reason), *_what(spec, searched), *_phases(spec, history)])


def _outcome(spec: TrialSpec, history: Sequence[Mapping[str, Any]], how: str, reason: str) -> str:
    recipe = recipes_of(spec)[1]
    text = {
        "finished": f"**Finished** after {_count(len(history))}.",
        "pruned": f"**Pruned** {_where(recipe, history)}: {PRUNED}.",
        "stopped": f"**Stopped** {_where(recipe, history)}: the time budget was over.",
        "failed": f"**Failed** {_where(recipe, history)}: {_reason(reason)}",
    }[how]
    best = _best(spec, recipe, history)
    return f"{text} {best}".strip()


def _reason(reason: str) -> str:
    last = reason.strip().splitlines()[-1] if reason.strip() else "no reason is known."
    return f"`{last[:MAX_REASON_CHARACTERS].replace('`', chr(39))}`"


def _count(epochs: int) -> str:
    return f"{epochs} epoch{'' if epochs == 1 else 's'}"


def _where(recipe: Recipe, history: Sequence[Mapping[str, Any]]) -> str:
    """Such as `in epoch 6 of 12 of the full phase`."""
    if not history:
        return "before its first epoch ended"
    number = int(history[-1]["phase"])
    name, epoch = PHASES[number - 1], sum(row["phase"] == number for row in history)
    return f"in epoch {epoch} of {recipe.phases[name].epochs} of the {name} phase"


def _best(spec: TrialSpec, recipe: Recipe, history: Sequence[Mapping[str, Any]]) -> str:
    """What the kept weights reached."""
    rows = [row for row in history if not math.isnan(row[spec.objective])]
    if not rows:
        return ""
    by_phase = {
        phase: max(own, key=lambda row: row[spec.objective])
        for number, phase in enumerate(PHASES, start=1)
        if (own := [row for row in rows if row["phase"] == number])
    }
    kept = select_phase({phase: row[spec.objective] for phase, row in by_phase.items()}, recipe.kept_phase)
    epoch = next(place for place, row in enumerate(history, start=1) if row is by_phase[kept])
    return f"Best `{spec.objective}`: **{by_phase[kept][spec.objective]:.3f}**, in epoch {epoch} ({kept} phase)."


def _what(spec: TrialSpec, searched: Sequence[str]) -> list[str]:
    """The values that were searched, beside the recipe's own."""
    if not searched:
        return [f"Recipe `{spec.recipe}` as it is, seed {spec.seed}; nothing was searched."]
    values = resolved_values(recipes_of(spec)[1])
    own = resolved_values(recipes_of(replace(spec, drawn={}))[1])
    head = ["| searched | this trial | recipe |", "|---|---|---|"]
    rows = [f"| `{key}` | **{short_value(values[key])}** | {short_value(own[key])} |" for key in searched]
    chosen = " Its values were chosen from what earlier trials had reached (`search=tpe`)." if spec.draws else ""
    return [f"Recipe `{spec.recipe}`, seed {spec.seed}.{chosen}", "\n".join([*head, *rows])]


def _phases(spec: TrialSpec, history: Sequence[Mapping[str, Any]]) -> list[str]:
    """Which epochs belong to which phase."""
    first = sum(row["phase"] == 1 for row in history)
    if not first or first == len(history):
        return []
    upper = "a warm-up" if not recipes_of(spec)[1].pretrained else "the head alone"
    return [
        f"Epochs 1 to {first} train {upper} (upper phase), {first + 1} to {len(history)} the whole network (full "
        "phase). Charts count epochs over both."
    ]

"""The verdict in plain words: which model was chosen, which one is served, what it finds and what it misses."""

from __future__ import annotations

import math
from collections.abc import Sequence

from muralab.evaluation.evaluated_model import EvaluatedModel, best_of
from muralab.report.references import STUDY_NAME
from muralab.report.sentences import describe_test_set, headline, number, with_bounds

FRACTIONS = {1 / 4: "a quarter", 1 / 3: "a third", 1 / 2: "half", 2 / 3: "two thirds", 3 / 4: "three quarters"}
NEAR = 0.04
"""A share this near to a simple fraction is called by its name."""
ADD_GATE = "inception_add_gate"
MISSES_MUCH = 1 / 3
"""Share of missed abnormal studies above which a model's first sentence says so."""


def shares(model: EvaluatedModel) -> tuple[int, int, int, int] | None:
    """(abnormal studies found, abnormal studies, normal studies called abnormal, normal studies) of the test set."""
    if model.problem() is not None:
        return None
    studies = model.studies()
    abnormal, called = studies["label"] == 1, studies["called"].astype(bool)
    return int((abnormal & called).sum()), int(abnormal.sum()), int((~abnormal & called).sum()), int((~abnormal).sum())


def confusion_sentence(model: EvaluatedModel) -> str:
    """What a model does with the test studies at its threshold; empty where it was not evaluated on them."""
    counts = shares(model)
    if counts is None:
        return ""
    found, abnormal, called, normal = counts
    return (
        f"At its threshold of {number(model.threshold)}, of {_studies(abnormal, 'abnormal')} it finds {found}; "
        f"of {_studies(normal, 'normal')} it calls {called} abnormal."
    )


def missed_sentence(model: EvaluatedModel) -> str:
    """A warning where a model misses a third of the abnormal test studies or more; empty for all others."""
    counts = shares(model)
    if counts is None or not counts[1]:
        return ""
    found, abnormal = counts[:2]
    missed = abnormal - found
    if missed < MISSES_MUCH * abnormal:
        return ""
    return (
        f"{model.title} misses {fraction(missed / abnormal)} of the abnormal test studies at its threshold "
        f"({missed} of {abnormal})."
    )


def fraction(share: float) -> str:
    """A share in words, such as `two thirds`, or in percent."""
    if share == 1:
        return "all"
    near = min(FRACTIONS, key=lambda one: abs(one - share))
    if abs(near - share) > NEAR:
        return f"{share:.0%}"
    return FRACTIONS[near] if near == share else f"about {FRACTIONS[near]}"


def auroc_sentence(model: EvaluatedModel) -> str:
    """A model's AUROC and what it means, for readers who do not know the word."""
    interval = model.intervals().get("auroc")
    if interval is None or math.isnan(interval.estimate):
        return ""
    return (
        f"AUROC {with_bounds(interval)}: given one abnormal and one normal study, it finds the abnormal one more "
        f"suspicious in about {round(100 * interval.estimate)} of 100 such pairs (50 is chance)."
    )


def find_registered(models: Sequence[EvaluatedModel], registered: str | None) -> EvaluatedModel | None:
    """The model that was registered, by its name or its run's id; None where it is none of these."""
    return next((model for model in models if registered and registered in (model.label, model.run_id)), None)


def registered_sentence(models: Sequence[EvaluatedModel], registered: str | None, *, part: str = "wrist") -> str:
    """Which model is registered and, where validation chose another one, why, and how to change it.

    Args:
        models: those of the report.
        registered: the registered one, by its name or run id; None: none was registered; "": not mentioned.
        part: the body part, for the command.
    """
    if registered == "":
        return ""
    served, best = find_registered(models, registered), best_of(models)
    if served is None:
        return f"Registered model: {registered}." if registered else "No model was registered."
    if best is None or math.isnan(served.selection_score):
        return f"The registered model is {served.title}."
    if served is best:
        return f"The registered model is {served.title}, which is best on validation."
    origin = f", {served.recipe}, the add gate of {STUDY_NAME}" if served.recipe == ADD_GATE else ""
    return (
        f"The registered model is {served.title}, although {best.title} is best on validation: unless it is given "
        f"register=winner, a sweep registers the recipe that is meant for serving{origin}. To register {best.title} "
        f"now: .venv/bin/muralab promote --part {part} --run {best.run_id}"
    )


def summary(models: Sequence[EvaluatedModel], registered: str | None, *, part: str, synthetic: bool) -> list[str]:
    """What a radiologist wants to know first, in a few sentences; empty where no model was evaluated.

    Args:
        models: those of the report.
        registered: as for `registered_sentence`.
        part: the body part.
        synthetic: whether the images are generated.
    """
    best, served = best_of(models), find_registered(models, registered)
    if best is None or best.problem() is not None:
        return []
    studies = f"studies of the {part}" if part != "all" else "studies"
    lines = [
        f"The models call {studies} (all views of one visit) normal or abnormal. They were tested on "
        f"{describe_test_set(best)} whom they had not seen{', all of them generated by a program' * synthetic}.",
        f"Chosen on validation: {best.title}. {confusion_sentence(best)} {auroc_sentence(best)}".strip(),
    ]
    if served is best:
        lines.append(f"{served.title} is also the model that is registered for serving.")
    elif served is not None:
        lines.append(
            f"Registered for serving: {served.title}. {confusion_sentence(served)} {auroc_sentence(served)}".strip()
        )
    return [*lines, "No answer says where a finding is or what it is, and none may be used to care for a patient."]


def _studies(n: int, what: str) -> str:
    return f"{n} {what} stud{'y' if n == 1 else 'ies'}"


def model_note(model: EvaluatedModel) -> str:
    """What MLflow's page of an evaluated model says about it, in Markdown."""
    warning = missed_sentence(model)
    lines = [f"**{warning}**" if warning else "", headline(model), confusion_sentence(model), auroc_sentence(model)]
    return "\n\n".join(line for line in lines if line)

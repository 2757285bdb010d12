"""Reporting checklists for a paper: what this report can fill in, and what its author has to.

CLAIM: Checklist for Artificial Intelligence in Medical Imaging, update 2024 (Tejani et al., Radiology: Artificial
Intelligence 2024). TRIPOD+AI: Collins et al., BMJ 2024. Items are named in short, with the checklists' own numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from muralab.evaluation.evaluated_model import EvaluatedModel, best_of
from muralab.report.context import Context
from muralab.report.sentences import calibration_sentence, headline
from muralab.report.tables import Group, Table

AUTHOR = "for the author to fill in"
Items = Sequence[tuple[str, str, str]]
"""Number, item, and the name of the answer of `_answers`; an empty name is the author's to fill in."""

CLAIM: Items = (
    ("1", "Title: identification as a study of AI, with its technology", ""),
    ("2", "Abstract: structured summary", ""),
    ("3", "Background, intended use and role of the approach", ""),
    ("4", "Aims, objectives and hypotheses", ""),
    ("5", "Prospective or retrospective", "retrospective"),
    ("6", "Goal of the study", "goal"),
    ("7", "Sources of the data", "source"),
    ("8", "Inclusion and exclusion criteria", "excluded"),
    ("9", "Preprocessing", "preprocessing"),
    ("10", "Selection of subsets of the data", "part"),
    ("11", "De-identification", ""),
    ("12", "Missing data", "excluded"),
    ("13", "Acquisition of the images", ""),
    ("14", "Reference standard", "label"),
    ("15", "Why this reference standard", ""),
    ("16", "Who annotated", ""),
    ("17", "Annotation of the test set", ""),
    ("18", "Variability between and within annotators", ""),
    ("19", "Assignment to the sets", "split"),
    ("20", "Level at which the sets are disjoint", "disjoint"),
    ("21", "Intended sample size", "size"),
    ("22", "The model: inputs, outputs, layers", "model"),
    ("23", "Software", "software"),
    ("24", "Initial parameters", "weights"),
    ("25", "Training: augmentation, hyperparameters", "training"),
    ("26", "Selection of the final model", "selection"),
    ("27", "Ensembles", "ensembles"),
    ("28", "Metrics of performance", "metrics"),
    ("29", "Uncertainty and significance", "uncertainty"),
    ("30", "Robustness", "robustness"),
    ("31", "Explainability", "explainability"),
    ("32", "Evaluation on internal data", "internal"),
    ("33", "Evaluation on external data", ""),
    ("34", "Registration of a clinical trial", ""),
    ("35", "Numbers of patients, included and excluded", "size"),
    ("36", "Demographic and clinical characteristics by set", ""),
    ("37", "Performance, with uncertainty", "performance"),
    ("38", "Diagnostic performance and its precision", "performance"),
    ("39", "Analysis of wrong answers", "errors"),
    ("40", "Limitations", ""),
    ("41", "Implications for practice", ""),
    ("42", "Full protocol or technical details", "software"),
    ("43", "Availability of software, model and data", ""),
    ("44", "Funding", ""),
)
TRIPOD_AI: Items = (
    ("1", "Title", ""),
    ("2", "Abstract", ""),
    ("3", "Background: context, intended use, known inequalities", ""),
    ("4", "Objectives", ""),
    ("5", "Sources and dates of the data", "source"),
    ("6", "Participants: setting, eligibility, treatment", ""),
    ("7", "Preparation of the data", "preprocessing"),
    ("8", "Outcome and how it was assessed", "label"),
    ("9", "Predictors", "model"),
    ("10", "Sample size", "size"),
    ("11", "Missing data", "excluded"),
    ("12", "Analytical methods: use of data, model, tuning, performance", "training"),
    ("13", "Class imbalance", "imbalance"),
    ("14", "Fairness", ""),
    ("15", "Output of the model, and its threshold", "output"),
    ("16", "Differences between development and evaluation data", "split"),
    ("17", "Ethical approval", ""),
    ("18", "Funding, interests, protocol, registration, data and code", ""),
    ("19", "Involvement of patients and the public", ""),
    ("20", "Participants: flow and characteristics", "size"),
    ("21", "Development: numbers of participants and events", "size"),
    ("22", "Specification of the model", "model"),
    ("23", "Performance, with intervals and by subgroup", "performance"),
    ("24", "Updating of the model", "updating"),
    ("25", "Interpretation", ""),
    ("26", "Limitations", ""),
    ("27", "Usability in practice", ""),
)


def checklist_tables(models: Sequence[EvaluatedModel], context: Context) -> dict[str, Table]:
    """Both checklists; empty without a model that was evaluated."""
    best = best_of(models)
    if best is None or best.problem() is not None:
        return {}
    answers = _answers(best, models, context)
    return {"CLAIM 2024": _build(CLAIM, answers), "TRIPOD+AI": _build(TRIPOD_AI, answers)}


def _build(items: Items, answers: Mapping[str, str]) -> Table:
    table = Table(columns=["item", "topic", "from this run"], left=(0, 1, 2))
    rows = []
    for number, topic, name in items:
        found = table.text(answers[name], "wrap") if name else table.text(AUTHOR, "muted")
        rows.append([table.text(number), table.text(topic, "wrap"), found])
    n_filled = sum(bool(name) for *_, name in items)
    table.groups.append(Group(rows=rows, heading=f"{n_filled} of {len(items)} items are filled in, at least in part"))
    return table


def _answers(best: EvaluatedModel, models: Sequence[EvaluatedModel], context: Context) -> dict[str, str]:
    n_unreadable = None if context.unreadable is None else len(context.unreadable)
    return {
        "retrospective": "Retrospective, on an existing data set.",
        "goal": "To classify studies of radiographs as abnormal or normal.",
        "source": "Generated by a program." if context.synthetic else f"{context.data} (section Data).",
        "excluded": "Excluded: images that cannot be read"
        + ("." if n_unreadable is None else f" ({n_unreadable}; section Data)."),
        "preprocessing": f"Grey, fitted into squares of {context.image_size} px (section Methods).",
        "part": f"Body part: {context.part}.",
        "label": "One label per study, abnormal or normal, as the data set gives it.",
        "split": f"Protocol {context.protocol}, seed {context.seed}, fingerprint {context.fingerprint}.",
        "disjoint": "By patient.",
        "size": f"{_sizes(context)}; not planned by a calculation.",
        "model": f"{', '.join(model.title for model in models)}; the recipe's source is an artifact of each run.",
        "software": f"MURA Lab, commit {context.commit or 'unknown'}; {context.machine}.",
        "weights": context.weights,
        "training": "Section Methods; every value in section Provenance.",
        "selection": f"By {context.objective}, on validation patients only.",
        "ensembles": "None; the views of a study are averaged.",
        "metrics": "AUROC, kappa, sensitivity, specificity and others, for studies and for images (section Results).",
        "uncertainty": "95% intervals over patients; paired differences between models.",
        "robustness": "By body part and number of views (section Errors); other analyses are for the author.",
        "explainability": "Grad-CAM, not evaluated.",
        "internal": f"{_sizes(context)}; the test set only after selection.",
        "performance": headline(best),
        "errors": "Section Errors.",
        "imbalance": "Loss weighted by inverse class frequency."
        if best.training.values.get("class_weighting", "True") == "True"
        else "Loss not weighted.",
        "output": calibration_sentence(best),
        "updating": "None.",
    }


def _sizes(context: Context) -> str:
    rows = context.split_counts.to_dict("records")
    counted = [row for row in rows if not math.isnan(float(row["patients"]))]
    return ", ".join(f"{row['set']}: {row['patients']} patients, {row['studies']} studies" for row in counted)

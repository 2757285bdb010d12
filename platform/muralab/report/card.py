"""A model's card in Markdown: what it is, what it was trained on, what it reaches, and what it must not be used for."""

from __future__ import annotations

import math

from muralab.evaluation.evaluated_model import EvaluatedModel
from muralab.evaluation.metrics import METRICS
from muralab.report.context import Context
from muralab.report.sections import audit_errors
from muralab.report.sentences import (
    ABOUT_INTERVALS,
    calibration_notes,
    calibration_sentence,
    describe_test_set,
    headline,
    kept_weights,
    number,
    with_bounds,
)
from muralab.report.verdict import auroc_sentence, confusion_sentence, missed_sentence

NOT_A_DEVICE = (
    "**Not a medical device.** For research and teaching only. It must not be used for diagnosis, triage, or any "
    "decision about a patient."
)
SYNTHETIC = (
    "**Synthetic data.** Trained and evaluated on generated images. The metrics show that the platform works; they do "
    "not transfer to radiographs."
)
LIMITS = (
    "One answer per study: abnormal or not. It does not name or locate findings.",
    "It is limited to the parts and the source named above; for other parts, devices, ages or populations its "
    "performance was not measured.",
    "Labels of this kind are noisy (in MURA about 60% sensitivity for degenerative joint disease: Oakden-Rayner).",
    "The intervals cover the sampling of test patients, not that of training data, seeds or hospitals.",
    "Calibration and threshold were fitted on the validation set; each is valid only at the level it was fitted on.",
    "Probabilities hold for the share of abnormal studies named above; where it differs, give `prevalence`.",
)


def model_card(model: EvaluatedModel, context: Context, why: str = "") -> str:
    """The card of one model, used as the registered model's description.

    Args:
        model: with its test predictions.
        context: data, protocol and machine.
        why: a sentence on why this model is registered, where validation chose another one.
    """
    missed = missed_sentence(model)
    return "\n\n".join(
        [
            f"# {plain(model.title)}, {plain(context.part)}",
            NOT_A_DEVICE,
            *([SYNTHETIC] if context.synthetic else []),
            *([f"**{plain(missed)}**"] if missed else []),
            " ".join(filter(None, map(plain, [headline(model), confusion_sentence(model), auroc_sentence(model)]))),
            " ".join(filter(None, map(plain, [kept_weights(model, context.objective), why]))),
            "## Intended use\n\nResearch on, and teaching of, binary classifiers of bone radiographs: is a study (all "
            "views of one part of one patient at one time) abnormal?",
            "## Data\n\n" + _data(context),
            "## Metrics\n\n" + _metrics(model),
            "## Calibration and operating point\n\n" + _operating_point(model),
            "## Limitations\n\n" + "\n".join(f"- {limit}" for limit in LIMITS),
            "## Provenance\n\n" + _provenance(model, context),
        ]
    )


def plain(text: object) -> str:
    """Text with the characters escaped that Markdown tables or HTML would interpret."""
    escaped = str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return escaped.replace("|", "\\|").replace("\n", " ")


def _data(context: Context) -> str:
    excluded = "" if context.unreadable is None else f" Unreadable images excluded: {len(context.unreadable)}."
    lines = [
        f"Source: {plain(context.data)}{' (SYNTHETIC)' if context.synthetic else ''}; protocol "
        f"`{plain(context.protocol)}`, sets disjoint by patient, seed {context.seed}, split fingerprint "
        f"`{plain(context.fingerprint)}`.{excluded}",
        "",
        "| " + " | ".join(plain(name) for name in context.counts_table.columns) + " |",
        "|" + "---|" * len(context.counts_table.columns),
    ]
    rows = context.split_counts.itertuples(index=False)
    found = ["", plain(context.corrected_labels)] if context.corrected_labels else []
    found += [] if context.audit is None else ["", "Audit: " + plain(context.audit[0])]
    if audit_errors(context):
        found.append(f"**Errors that can make the metrics below wrong: {plain(audit_errors(context))}.**")
    return "\n".join([*lines, *("| " + " | ".join(plain(value) for value in row) + " |" for row in rows), *found])


def _metrics(model: EvaluatedModel) -> str:
    problem = model.problem()
    if problem is not None:
        return f"No test results: {plain(problem)}."
    rows = [f"| {METRICS[name].title} | {with_bounds(interval)} |" for name, interval in model.intervals().items()]
    head = f"Test set, **study level**, {describe_test_set(model)}. {ABOUT_INTERVALS}"
    summary = model.training.summary
    images = [
        f"| {name} at image level | {number(summary[key])} |"
        for name, key in (("accuracy at 0.5", "test_accuracy"), ("loss", "test_loss"))
        if not math.isnan(summary.get(key, math.nan))
    ]
    return "\n".join([head, "", "| metric | value |", "|---|---|", *rows, *images])


def _operating_point(model: EvaluatedModel) -> str:
    warnings = [f"- **{plain(note)}**" for note in calibration_notes([model])]
    return "\n".join([plain(calibration_sentence(model)), *([""] if warnings else []), *warnings])


def _provenance(model: EvaluatedModel, context: Context) -> str:
    image_size = model.training.values.get("image_size", context.image_size)  # the context's covers all its recipes
    return (
        f"Recipe `{plain(model.label)}`, run `{plain(model.run_id)}`, commit `{plain(context.commit)}`, image size "
        f"{image_size} px, weights: {plain(context.weights)}; {context.created:%Y-%m-%d %H:%M}, "
        f"{plain(context.machine)}."
    )

"""A model's card in Markdown: what the registered model is, was trained on, reaches, and is not for."""

from __future__ import annotations

import math

from muralab.evaluation.metrics import METRICS
from muralab.report.entries import Context, Entry
from muralab.report.judge import Judged, judge
from muralab.report.sections import audit_errors
from muralab.report.sentences import headline, number, with_bounds

DISCLAIMER = (
    "**Not a medical device.** For research and teaching only. It must not be used to diagnose, to triage, or to "
    "decide anything about a patient."
)
SYNTHETIC = (
    "**Synthetic data.** Trained and judged on generated pictures. Its figures say that the platform works, and "
    "nothing about radiographs."
)
LIMITS = (
    "One answer a study: abnormal or not. It names no finding and no place.",
    "It knows the parts and the source named above; on other parts, devices, ages or populations it is unmeasured.",
    "Labels of this kind are noisy (in MURA about 60 % sensitivity for degenerative joint disease: Oakden-Rayner).",
    "The intervals cover the draw of test patients, not the draw of training data, of seeds or of hospitals.",
    "Threshold and temperatures come from the validation set, and each holds only at the level it was fitted on.",
)


def model_card(entry: Entry, context: Context, *, n_resamples: int = 2000) -> str:
    """The card of one model, as the registered model's description.

    Args:
        entry: the model.
        context: data, protocol and machine.
        n_resamples: of the patients, for the intervals.
    """
    judged = judge(entry, n_resamples=n_resamples)
    return "\n\n".join(
        [
            f"# {plain(entry.title)}, {plain(context.part)}",
            DISCLAIMER,
            *([SYNTHETIC] if context.synthetic else []),
            f"{plain(headline(judged))}",
            "## Intended use\n\nResearch on, and teaching of, two-class models of bone radiographs: is a study (all "
            "views of one part of one patient at one time) abnormal?",
            "## Data\n\n" + _data(context),
            "## Figures\n\n" + _figures(judged),
            "## Operating point\n\n" + _operating_point(entry),
            "## Limits\n\n" + "\n".join(f"- {limit}" for limit in LIMITS),
            "## Made by\n\n" + _provenance(entry, context),
        ]
    )


def plain(text: object) -> str:
    """Text that Markdown and HTML leave alone."""
    escaped = str(text).replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return escaped.replace("|", "\\|").replace("\n", " ")


def _data(context: Context) -> str:
    left_out = "" if context.unreadable is None else f" Left out as unreadable: {len(context.unreadable)}."
    lines = [
        f"Source: {plain(context.data)}{' (SYNTHETIC)' if context.synthetic else ''}; protocol "
        f"`{plain(context.protocol)}`, patients disjoint between sets, seed {context.seed}, split fingerprint "
        f"`{plain(context.fingerprint)}`.{left_out}",
        "",
        "| " + " | ".join(plain(name) for name in context.counted.columns) + " |",
        "|" + "---|" * len(context.counted.columns),
    ]
    rows = context.split_counts.itertuples(index=False)
    found = [] if context.audit is None else ["", "Audit: " + plain(context.audit[0])]
    if audit_errors(context):
        found.append(f"**Errors that can make the figures below wrong: {plain(audit_errors(context))}.**")
    return "\n".join([*lines, *("| " + " | ".join(plain(value) for value in row) + " |" for row in rows), *found])


def _figures(judged: Judged) -> str:
    if judged.reason is not None:
        return f"No test figures: {plain(judged.reason)}."
    rows = [f"| {METRICS[name].title} | {with_bounds(interval)} |" for name, interval in judged.intervals.items()]
    counts = f"{judged.n_studies} studies of {judged.n_patients} patients"
    head = f"Test set, **study level**, {counts}, 95 % intervals by resampling patients."
    images = [
        f"| {name} at image level | {number(judged.entry.summary[key])} |"
        for name, key in (("accuracy at 0.5", "test_accuracy"), ("loss", "test_loss"))
        if not math.isnan(judged.entry.summary.get(key, math.nan))
    ]
    return "\n".join([head, "", "| metric | value |", "|---|---|", *rows, *images])


def _operating_point(entry: Entry) -> str:
    if entry.calibration is None:
        return "Uncalibrated, at 0.5: no calibration was fitted."
    c = entry.calibration
    text = (
        f"Threshold {number(c.threshold)} on the calibrated study probability (rule {plain(c.rule)}); temperatures: "
        f"images {number(c.image_temperature)}, studies {number(c.study_temperature)}. Fitted on the validation set: "
        "the first temperature on images, all else on studies."
    )
    if c.reason:
        text += f" Nothing could be fitted: {plain(c.reason)}."
    if c.uncertain_low is not None and c.uncertain_high is not None:
        text += f" Between {number(c.uncertain_low)} and {number(c.uncertain_high)} the model is called uncertain."
    else:
        text += " No band of probabilities is called uncertain."
    return text


def _provenance(entry: Entry, context: Context) -> str:
    image_size = entry.resolved.get("image_size", context.image_size)  # the context's are those of all its recipes
    return (
        f"Recipe `{plain(entry.name)}`, run `{plain(entry.run_id)}`, commit `{plain(context.commit)}`, image size "
        f"{image_size} px, weights: {plain(context.weights)}; {context.created:%Y-%m-%d %H:%M}, "
        f"{plain(context.machine)}."
    )

"""Published results on MURA, each with its source, level and set; always shown together with them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from muralab.report.context import Context

STUDY_NAME = "an unpublished course report by D. Fountas on MURA wrists, which this project reproduces"
STUDY_PROTOCOL = (
    "valid-as-validation: validated on the official valid set (659 images), tested on 976 images held out of the "
    "official train set, probably split by image, so that one patient may be in both (all inferred from its figures)"
)
PAPER = "Rajpurkar et al. 2018, arXiv:1712.06957; five networks at 320 px"
PEOPLE = "Rajpurkar et al. 2018, arXiv:1712.06957"
ABSTRACT = "read in the abstract of arXiv:2008.03356"
HIDDEN = "hidden test set, 207 studies, all parts"
VALID = "official valid set"


@dataclass(frozen=True, kw_only=True)
class StudyRow:
    """One row of the study's table: wrist, image level, accuracy at 0.5, loss without class weights; NaN: not given."""

    title: str
    phase: str
    train_loss: float
    validation_loss: float
    test_loss: float
    train_accuracy: float
    validation_accuracy: float
    test_accuracy: float
    test_loss_note: str = ""


@dataclass(frozen=True, kw_only=True)
class Reference:
    """One published result."""

    what: str
    value: str
    level: str
    set_name: str
    source: str


RELABELLED = "printed as a second “train loss” in the study; read as the test loss (inferred)"


def _row(
    title: str,
    phase: str,
    losses: tuple[float, float, float],
    accuracies: tuple[float, float, float],
    test_loss_note: str = "",
) -> StudyRow:
    return StudyRow(
        title=title,
        phase=phase,
        train_loss=losses[0],
        validation_loss=losses[1],
        test_loss=losses[2],
        train_accuracy=accuracies[0],
        validation_accuracy=accuracies[1],
        test_accuracy=accuracies[2],
        test_loss_note=test_loss_note,
    )


STUDY_ROWS = (
    _row("custom CNN", "full", (0.63453, 0.66818, 0.62214), (0.64631, 0.59939, 0.69672), RELABELLED),
    _row("custom CNN + self-attention", "full", (0.59570, 0.61832, 0.55814), (0.68140, 0.64947, 0.71926), RELABELLED),
    _row("InceptionV3", "upper", (0.55585, 0.59859, math.nan), (0.73302, 0.70258, math.nan)),
    _row("InceptionV3", "full", (0.67609, 0.69147, 0.68161), (0.59287, 0.55235, 0.57582)),
    _row("InceptionV3 + add gate", "upper", (0.54351, 0.57970, math.nan), (0.72675, 0.71168, math.nan)),
    _row("InceptionV3 + add gate", "full", (0.33246, 0.40380, 0.37534), (0.86326, 0.84522, 0.84939)),
)


STUDY_TITLES = {
    "cnn": "custom CNN",
    "cnn_attention": "custom CNN + self-attention",
    "inception": "InceptionV3",
    "inception_add_gate": "InceptionV3 + add gate",
}
"""Recipe -> its row in the study."""
VALID_IMAGES = 659
"""Wrist images in MURA's official valid set: a set of another size is not that set."""


def is_studys_data(context: Context) -> bool:
    """Whether a report is on the study's data in its protocol: MURA's wrists, validated on the official valid set."""
    sizes = dict(zip(context.split_counts["set"], context.split_counts["images"]))
    is_its_protocol = context.protocol == "valid-as-validation" and sizes.get("validation") == VALID_IMAGES
    return not context.synthetic and context.part == "wrist" and is_its_protocol


def study_accuracies(context: Context) -> tuple[dict[str, float], str]:
    """The study's image accuracies after the full phase, by recipe, and the caption that explains them.

    They are comparable only for the wrist, on real data whose official valid set has the study's number of images. Of
    the study's two accuracies, the one is taken whose set equals our test set or has the same role.

    Returns:
        Recipe -> accuracy, and the caption; both empty where nothing is comparable.
    """
    sizes = dict(zip(context.split_counts["set"], context.split_counts["images"]))
    official, measure = {
        "valid-as-test": ("test", "validation_accuracy"),
        "valid-as-validation": ("validation", "test_accuracy"),
    }.get(context.protocol, ("", ""))
    if context.synthetic or context.part != "wrist" or sizes.get(official) != VALID_IMAGES:
        return {}, ""
    rows = {row.title: row for row in STUDY_ROWS if row.phase == "full"}
    found = {recipe: float(getattr(rows[title], measure)) for recipe, title in STUDY_TITLES.items()}
    sets = {
        "validation_accuracy": "on the same official valid set, on which the study also selected",
        "test_accuracy": "on 976 train images, probably held out by image (inferred); ours are held out by patient",
    }
    return (
        found,
        f"Hollow diamonds: the network of the same name in the study, {STUDY_NAME}, after its full phase, image level, "
        "accuracy at 0.5, "
        f"{sets[measure]}.",
    )


def _reference(what: str, value: str, level: str, set_name: str, source: str) -> Reference:
    return Reference(what=what, value=value, level=level, set_name=set_name, source=source)


DENSENET = "DenseNet-169 ensemble"
GENERAL_REFERENCES = (
    _reference(f"AUROC, {DENSENET}", "0.929", "study", HIDDEN, PAPER),
    _reference(f"Sensitivity, {DENSENET}", "0.815", "study", HIDDEN, PAPER),
    _reference(f"Specificity, {DENSENET}", "0.887", "study", HIDDEN, PAPER),
    _reference(f"Kappa, {DENSENET}", "0.705", "study", HIDDEN, f"{PAPER} (second-hand)"),
    _reference("Kappa, best radiologist", "0.778", "study", HIDDEN, PEOPLE),
    _reference("Kappa, best leaderboard entry (an ensemble)", "0.843", "study", HIDDEN, "MURA leaderboard (closed)"),
    _reference("Kappa, overall, public code", "0.60 to 0.66", "study", VALID, "public code"),
    _reference("Kappa, a CNN from scratch, public code", "0.39", "not stated", VALID, "public code"),
    _reference("Kappa, InceptionV3, public code", "0.652", "not stated", VALID, "public code"),
)
WRIST_REFERENCE = _reference("Kappa, wrist, DenseNet-201, public code", "about 0.72", "study", VALID, "public code")
# Kappa of the paper's model by part, with the source of the number.
PART_KAPPAS: Mapping[str, tuple[float, str]] = {
    "wrist": (0.931, ABSTRACT),
    "hand": (0.851, ABSTRACT),
    "shoulder": (0.729, ABSTRACT),
    "elbow": (0.710, "second-hand"),
    "finger": (0.389, "second-hand"),
    "forearm": (0.737, "second-hand"),
    "humerus": (0.600, "second-hand"),
}


def references_for(part: str) -> list[Reference]:
    """The published results that concern one part, or `all`."""
    parts = PART_KAPPAS if part == "all" else {part: PART_KAPPAS[part]} if part in PART_KAPPAS else {}
    by_part = [
        _reference(
            f"Kappa, {name}, {DENSENET}", f"{kappa:.3f}", "study", f"hidden test set, {name}: about 30 studies", source
        )
        for name, (kappa, source) in parts.items()
    ]
    return [*by_part, *([WRIST_REFERENCE] if part in ("wrist", "all") else []), *GENERAL_REFERENCES]

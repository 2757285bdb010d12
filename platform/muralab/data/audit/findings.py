"""The checks of the audit: a table and the facts of its files -> findings.

Every check is a function of (table, facts), both in the same order, that yields `Finding`s; `find_all` runs them all.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from muralab.data.audit.facts import THUMBNAIL, FileFacts
from muralab.data.audit.near_duplicates import groups_of, near_pairs
from muralab.data.images.value_range import ValueRange, misfit

FINDING_COLUMNS = ("kind", "severity", "images", "detail", "quoted")
OLD_RELEASE = "old release"
KINDS = (
    "unreadable",
    "truncated",
    "ignored header",
    "outside the value range",
    "leaking patient",
    "leaking picture",
    "conflicting study",
    "conflicting picture",
    "exact duplicate",
    "near duplicate",
    "blank",
    "unusual size",
    "unusual bit depth",
    "unusual brightness",
    OLD_RELEASE,
)
SAME_PICTURE = ("leaking picture", "conflicting picture", "exact duplicate", "near duplicate")
"""Kinds whose images all show the same picture."""
BLANK_SPREAD = 2.0
"""Standard deviation of the grey values below which an image is blank."""
FENCE = 4.0
"""Interquartile ranges outside the quartiles from which a value is unusual."""
MIN_FOR_OUTLIERS = 30
"""Images without which nothing is called unusual."""

MURA_FORM = re.compile(r"(train|valid)/XR_")
Facts = Sequence[FileFacts]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """One thing to know about one or several images."""

    kind: str
    """one of KINDS"""
    severity: str
    """error, warning or note"""
    images: tuple[str, ...]
    """names of the images concerned"""
    detail: str
    """what was found, as text"""
    quoted: tuple[tuple[str, str], ...] = ()
    """(kind, name) of every name in the detail: `image`, `study` or `patient`"""


def find_all(table: pd.DataFrame, facts: Facts, value_range: ValueRange | None = None) -> list[Finding]:
    """All findings, in the order of KINDS."""
    checks = (
        find_broken,
        find_ignored_headers,
        find_leaking_patients,
        find_conflicting_studies,
        find_duplicates,
        find_unusual,
        find_old_release,
    )
    found = [finding for check in checks for finding in check(table, facts)]
    found += find_outside_range(table, facts, value_range)
    return sorted(found, key=lambda finding: KINDS.index(finding.kind))


def find_broken(table: pd.DataFrame, facts: Facts) -> Iterator[Finding]:
    """Files that cannot be decoded, and files that end too early for their format."""
    for image, fact in zip(table["image"], facts):
        if fact.cut_short:
            detail = fact.reason or "the file ends early, but its image decodes"
            yield Finding(kind="truncated", severity="warning", images=(image,), detail=detail)
        elif fact.reason:
            yield Finding(kind="unreadable", severity="warning", images=(image,), detail=fact.reason)


def find_ignored_headers(table: pd.DataFrame, facts: Facts) -> Iterator[Finding]:
    """Images of which something in the header is unusable, such as a window of width 0; one finding per cause."""
    images: dict[str, list[str]] = {}
    for image, fact in zip(table["image"], facts):
        for note in fact.notes:
            images.setdefault(note, []).append(image)
    for note, concerned in images.items():
        detail = f"{concerned[0]}: {note}"
        yield Finding(kind="ignored header", severity="warning", images=tuple(concerned), detail=detail)


def find_outside_range(table: pd.DataFrame, facts: Facts, value_range: ValueRange | None) -> Iterator[Finding]:
    """Images with values that the data set's range cuts off, or far fewer than it has."""
    for image, fact in zip(table["image"], facts):
        if value_range is not None and fact.stored is not None and (detail := misfit(fact.stored, value_range)):
            detail = f"{image}: {detail}"
            yield Finding(kind="outside the value range", severity="warning", images=(image,), detail=detail)


def find_leaking_patients(table: pd.DataFrame, facts: Facts) -> Iterator[Finding]:  # noqa: ARG001
    """Patients on both sides of the split."""
    sides = table.groupby("patient")["split"].nunique()
    for patient, group in table[table["patient"].isin(sides.index[sides > 1])].groupby("patient"):
        detail = f"{patient} is in {_and(group['split'])}"
        yield Finding(
            kind="leaking patient",
            severity="error",
            images=tuple(group["image"]),
            detail=detail,
            quoted=(("patient", str(patient)),),
        )


def find_conflicting_studies(table: pd.DataFrame, facts: Facts) -> Iterator[Finding]:  # noqa: ARG001
    """Studies (of one patient, part and number) that are both positive and negative."""
    number = table["study"].str.replace(r"_(positive|negative)$", "", regex=True)
    labels = table.groupby(number)["label"].nunique()
    conflicting = number.isin(labels.index[labels > 1])
    for study, group in table[conflicting].groupby(number[conflicting]):
        detail = f"{study} is both positive and negative"
        yield Finding(
            kind="conflicting study",
            severity="error",
            images=tuple(group["image"]),
            detail=detail,
            quoted=(("study", str(study)),),
        )


def find_duplicates(table: pd.DataFrame, facts: Facts) -> Iterator[Finding]:
    """Images with the same or nearly the same grey values; worse if on both sides of the split or contradictory."""
    positions: dict[str, list[int]] = {}
    for position, fact in enumerate(facts):
        if fact.pixels:
            positions.setdefault(fact.pixels, []).append(position)
    for same in positions.values():
        if len(same) > 1:
            equal_bytes = len({facts[position].digest for position in same}) == 1
            what = "equal files" if equal_bytes else "equal pixels"
            yield from _duplicate(table.iloc[same], "exact duplicate", what)
    # The search compares one image of each exact group; blank images resemble each other without being copies.
    single = np.array([same[0] for same in positions.values() if facts[same[0]].spread >= BLANK_SPREAD], dtype=np.int64)
    hashes = np.array([facts[position].hash for position in single], dtype=np.uint64)
    pixels = b"".join(facts[position].thumbnail for position in single)
    pairs = near_pairs(hashes, np.frombuffer(pixels, dtype=np.uint8).reshape(-1, THUMBNAIL, THUMBNAIL))
    for group in groups_of(pairs):
        yield from _duplicate(table.iloc[single[group]], "near duplicate", "nearly equal images")


def find_unusual(table: pd.DataFrame, facts: Facts) -> Iterator[Finding]:
    """Blank images, and images whose size, bit depth or brightness is far from the others'."""
    readable = np.array([not fact.reason for fact in facts], dtype=bool)
    images, good = table["image"].to_numpy()[readable], [fact for fact in facts if not fact.reason]
    blank = np.array([fact.spread < BLANK_SPREAD for fact in good], dtype=bool)
    for position in np.flatnonzero(blank):
        detail = f"a single grey value ({good[position].brightness:.0f} of 255)"
        yield Finding(kind="blank", severity="warning", images=(images[position],), detail=detail)
    yield from _unusual_depths(images, good)
    sides = np.array([(fact.width, fact.height) for fact in good], dtype=float).reshape(-1, 2)
    brightness = np.array([fact.brightness for fact in good])
    unusual_size = _outliers(np.log(sides.prod(axis=1)), 0.25) | _outliers(np.log(sides[:, 0] / sides[:, 1]), 0.25)
    for position in np.flatnonzero(unusual_size):
        detail = f"{good[position].width} x {good[position].height} px, the median is {_median_size(sides)}"
        yield Finding(kind="unusual size", severity="note", images=(images[position],), detail=detail)
    for position in np.flatnonzero(_outliers(brightness, 5.0) & ~blank):
        detail = f"mean grey value {brightness[position]:.0f}, the median is {np.median(brightness):.0f}"
        yield Finding(kind="unusual brightness", severity="note", images=(images[position],), detail=detail)


def find_old_release(table: pd.DataFrame, facts: Facts) -> Iterator[Finding]:  # noqa: ARG001
    """A tree that claims to be MURA but is not v1.1: 1.0 was withdrawn because of patient data in pixels.

    The layout alone is no claim: data sets of other origin use it as well.
    """
    if not MURA_FORM.match(table["image"].iloc[0]):  # of a manifest
        return
    root = Path(table["path"].iloc[0].removesuffix(table["image"].iloc[0]))
    old_lists = [name for name in ("train.csv", "valid.csv") if (root / name).is_file()]
    if not old_lists and ("mura" not in root.name.lower() or "v1.1" in root.name.lower()):
        return
    seen = f"it has {_and(old_lists)}, as v1.0 had" if old_lists else f"it is named {root.name}"
    detail = f"not named or organised like MURA v1.1 ({seen}); v1.0 was withdrawn because of patient data in pixels"
    yield Finding(kind=OLD_RELEASE, severity="warning", images=(), detail=detail)


def _duplicate(group: pd.DataFrame, kind: str, what: str) -> Iterator[Finding]:
    """One finding per problem of a group of equal images; if there is none, the kind itself."""
    images = tuple(group["image"])
    quoted = tuple(("image", image) for image in images[:3])
    where = f"{what}: {_and(images[:3])}" + (f" and {len(images) - 3} more" if len(images) > 3 else "")
    worse = []
    if group["split"].nunique() > 1:
        worse.append(("leaking picture", f"{where}; in {_and(group['split'])}"))
    if group["label"].nunique() > 1:
        worse.append(("conflicting picture", f"{where}; both positive and negative"))
    for worse_kind, detail in worse:
        yield Finding(kind=worse_kind, severity="error", images=images, detail=detail, quoted=quoted)
    if not worse:
        severity = "note" if group["patient"].nunique() == 1 else "warning"
        yield Finding(kind=kind, severity=severity, images=images, detail=where, quoted=quoted)


def _unusual_depths(images: npt.NDArray[np.object_], good: Facts) -> Iterator[Finding]:
    """One finding per bit depth except the most common; grey and RGB of one depth are both usual in MURA."""
    depths = np.array([fact.form.split()[0] for fact in good], dtype=object)
    if len(set(depths)) < 2:
        return
    usual, *others = Counter(depths).most_common()
    for depth, count in others:
        detail = f"{count} images are {depth}, {usual[1]} are {usual[0]}"
        yield Finding(
            kind="unusual bit depth", severity="note", images=tuple(images[depths == depth].tolist()), detail=detail
        )


def _outliers(values: npt.NDArray[np.float64], least_range: float) -> npt.NDArray[np.bool_]:
    """Values more than FENCE interquartile ranges (each at least `least_range`) outside the quartiles."""
    if len(values) < MIN_FOR_OUTLIERS:
        return np.zeros(len(values), dtype=bool)
    low, high = np.quantile(values, [0.25, 0.75])
    reach = FENCE * max(high - low, least_range)
    return np.asarray((values < low - reach) | (values > high + reach))


def _median_size(sides: npt.NDArray[np.float64]) -> str:
    width, height = np.median(sides, axis=0)
    return f"{width:.0f} x {height:.0f}"


def _and(names: Sequence[str] | pd.Series) -> str:
    return " and ".join(sorted(set(names)))

"""Which studies of a test set are of patients that neither of two registered versions has seen.

A version that was trained on the other's test images would win the comparison because of that, so the gate compares on
unseen patients only. What a version has seen is read from the split that its run logged, or from that split rebuilt
from the data.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from muralab.data.splits import MANIFEST_PROTOCOL
from muralab.evaluation.intervals import MIN_PATIENTS
from muralab.evaluation.leakage import (
    BY_PICTURES_ALONE,
    Leakage,
    find_known_leakage,
    patients_by_class,
    too_few,
    unseen_studies,
    with_identities,
)
from muralab.tracking import (
    Store,
    TrainedSplit,
    names_of_run,
    read_datasets,
    read_tags,
    read_trained_split,
    rebuild_split,
)
from muralab.tracking.tags import Tag


@dataclass(frozen=True, kw_only=True)
class UnseenTest:
    """The part of a test set that two versions can be compared on."""

    studies: Sequence[str]
    """Of patients that no version is known to have seen."""
    notes: Sequence[str] = ()
    """What was left out, and what is not known, in sentences."""
    problem: str = ""
    """Why the comparison must not be made; empty where it may."""


def find_unseen(
    store: Store, test: pd.DataFrame, owners: Sequence[Any], candidate: Any, champion: Any | None
) -> UnseenTest:
    """Find the studies of a test set that neither candidate nor champion has seen.

    Args:
        store: holds their runs.
        test: one row per image of the test set.
        owners: the versions whose own runs drew this test set: candidate, champion, or both.
        candidate: the version to promote.
        champion: the version that holds the alias; None where there is none.
    """
    owner = owners[0]
    own = read_trained_split(store, owner.run_id)
    rows = test[["image", "patient"]] if own is None else with_identities(test, own.rows)
    leakages: dict[str, Leakage] = {}
    unknown: list[str] = []
    for version in [candidate] if champion is None else [candidate, champion]:
        found = _leakage_of(store, version, rows, owners, own)
        if found is None:
            unknown.append(str(version.version))
        else:
            leakages[str(version.version)] = found
    studies = unseen_studies(test, list(leakages.values()))
    if str(candidate.version) in unknown:
        return UnseenTest(studies=studies, problem=_unknown_candidate(candidate, owner))
    notes = [_left_out(test, studies, leakages)] if len(studies) < test["study"].nunique() else []
    notes += [
        f"Leakage: {BY_PICTURES_ALONE.format(model=f'version {version}')}."
        for version, leakage in leakages.items()
        if not leakage.names_compared
    ]
    if unknown:
        notes.append(
            f"What the champion, version {unknown[0]}, was trained on is not known; had it seen any of these images, "
            "that would favour it."
        )
    few = too_few(test[test["study"].isin(studies)]) if len(studies) < test["study"].nunique() else ""
    return UnseenTest(
        studies=studies,
        notes=notes,
        problem=f"{' '.join(notes)} {_too_few(champion)}" if few else "",
    )


def _leakage_of(
    store: Store, version: Any, rows: pd.DataFrame, owners: Sequence[Any], own: TrainedSplit | None
) -> Leakage | None:
    """What a version has seen of the rows of a test set; None where it is not known."""
    root = _root(store, owners[0])
    is_first = version.run_id == owners[0].run_id
    split = own if is_first else read_trained_split(store, version.run_id, roots=[root])
    fingerprint = _fingerprint(store, version)
    if split is None and root and fingerprint:  # a version keeps the tags of a run that was deleted
        rebuilt = rebuild_split(store, version.tags, Path(root))
        split = rebuilt if rebuilt is not None and rebuilt.fingerprint == fingerprint else None
    is_own = version.run_id in {one.run_id for one in owners}
    if fingerprint and fingerprint == _fingerprint(store, owners[0]):
        is_own, split = True, split or own
    if split is not None:
        names = names_of_run(store, owners[0].run_id, read_tags(store, owners[0].run_id))
        return find_known_leakage(rows, split.rows, same_tree=is_own or split.is_same_tree(root, names=names))
    return Leakage(evaluated=rows) if is_own else None  # the sets of one split share no patient


def _fingerprint(store: Store, version: Any) -> str:
    """Of the split that a version was trained under; empty where neither the version nor its run states it."""
    stated = version.tags.get(Tag.SPLIT_FINGERPRINT)
    return str(stated or read_tags(store, version.run_id).get(Tag.SPLIT_FINGERPRINT, ""))


def _root(store: Store, owner: Any) -> str:
    """The tree of the owner's test set."""
    data = read_datasets(store, owner.run_id).get("test")
    return "" if data is None else data.source


def _left_out(test: pd.DataFrame, studies: Sequence[str], leakages: Mapping[str, Leakage]) -> str:
    seen = [leakage.sentence(f"version {version}") for version, leakage in leakages.items() if leakage.counts]
    left = test[test["study"].isin(studies)]
    classes = patients_by_class(left)
    return (
        f"Leakage: {'; '.join(seen)}. Left for the comparison: {left['patient'].nunique()} of "
        f"{test['patient'].nunique()} patients, those that neither has seen ({classes['normal']} with a normal, "
        f"{classes['abnormal']} with an abnormal study)."
    )


def _unknown_candidate(candidate: Any, owner: Any) -> str:
    return (
        f"It is not known whether it, version {candidate.version}, was trained on the test images of version "
        f"{owner.version}: one of their runs logged no split (an older version of the platform trained it), and the "
        "split cannot be rebuilt from that test set's tree. Promote it on the machine that has its data set, or "
        "train it again."
    )


def _too_few(champion: Any | None) -> str:
    few = f"That is too few: a comparison needs {MIN_PATIENTS} patients of each class."
    if champion is None:
        return few
    tags = champion.tags
    protocol, seed = tags.get(Tag.PROTOCOL, ""), tags.get(Tag.SEED, "")
    given = [protocol if "=" in protocol else f"protocol={protocol}"] if protocol not in ("", MANIFEST_PROTOCOL) else []
    split = ", ".join([*given, *([f"seed={seed}"] if seed else [])])
    train = f" Train the candidate under the champion's split ({split})" if split else " Train both under one split"
    return f"{few}{train}, or delete the alias champion to start over."

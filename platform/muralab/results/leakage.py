"""The leakage check of `evaluate`, `compare` and `report`: what a trained run has seen of its test images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from muralab.config.training_options import DEMO, RUN
from muralab.data.dataset import Dataset
from muralab.data.mirror import path_or_uri
from muralab.data.names import code_names
from muralab.data.splits import without_test_patients
from muralab.demo.dataset import default_folder
from muralab.errors import DataError, SettingsError, numbered
from muralab.evaluation.leakage import (
    BY_PICTURES_ALONE,
    MAX_LEAKED_SHARE,
    Leakage,
    find_known_leakage,
    find_leakage,
    too_few,
    with_identities,
)
from muralab.tracking import (
    LoggedData,
    RunRecord,
    Store,
    TrainedSplit,
    key_of_run,
    names_of_run,
    read_datasets,
    read_split_table,
    read_tags,
    read_trained_split,
    rebuild_split,
)
from muralab.tracking.tags import Tag

UNKNOWN = (
    "because the trained run logged no split (an older version of the platform trained it) and the split cannot be "
    "rebuilt from the evaluated data set"
)
"""Why leakage is not known."""


def split_of(record: RunRecord, protocol: str = RUN, seed: int | None = None) -> tuple[str, int]:
    """Resolve the options protocol and seed of `evaluate`: `run` and None are those that the run was trained with.

    Raises:
        SettingsError: the run does not state what it was trained under.
    """
    if protocol == RUN:
        protocol = record.tags.get(Tag.PROTOCOL, "")
    drawn = record.tags.get(Tag.SEED, "") if seed is None else str(seed)
    for key, value in (("protocol", protocol), ("seed", drawn)):
        if not value:
            raise SettingsError(
                f"The run {record.run_id} ({record.name}) does not state its {key}: give {key}=<its own>."
            )
    return protocol, int(drawn)


def data_of(record: RunRecord, data: str, part: str, trained_on: LoggedData | None) -> tuple[str, str]:
    """Resolve the options data and part of `evaluate`: `run` is what the run was trained on.

    Args:
        record: the trained run.
        data: a path, `demo` or `run`.
        part: one of the tree's, `all` or `run`.
        trained_on: the run's training set as it was logged.

    Returns:
        The path, `demo`, or the URI of a copy that is not on this machine; and the part.

    Raises:
        SettingsError: the run does not state what it was trained on.
    """
    if data == RUN:
        if trained_on is None:
            raise SettingsError(f"The run {record.run_id} ({record.name}) does not name its data: give data=<path>.")
        is_demo = Path(trained_on.source).parent == default_folder()
        data = DEMO if is_demo else trained_on.source  # the demo is generated again where it was deleted
        uri = record.tags.get(Tag.DATA_URI, "")  # of a copy, which has the run's part
        data = path_or_uri(data, uri) if part in (RUN, record.part) else uri or data
    return data, record.part if part == RUN else part


def leakage_on(evaluated: pd.DataFrame, record: RunRecord, dataset: Dataset, store: Store) -> Leakage | None:
    """What a trained run has seen of some images of a data set.

    Args:
        evaluated: rows of the data set's index.
        record: the trained run.
        dataset: that the evaluated images are of.
        store: holds the run.

    Returns:
        None where it is not known: the run logged no split, and its split cannot be rebuilt from this tree. One that is
        rebuilt from another tree has no pictures, so it does not show whether that tree is a copy of this one.
    """
    root = dataset.source
    split = read_trained_split(store, record.run_id, roots=[root], unreadable=dataset.unreadable_files)
    if split is None:
        split = _changed_tree(record, dataset, store)
    if split is None:
        return None
    rows = dataset.identities(evaluated)
    same_tree = split.is_same_tree(root, dataset.splits.fingerprint, dataset.key_id)
    return find_known_leakage(rows, split.rows, same_tree=same_tree)


def _changed_tree(record: RunRecord, dataset: Dataset, store: Store) -> TrainedSplit | None:
    """The run's split rebuilt from the tree that it names, which has changed since: the best guess available."""
    trained_on = read_datasets(store, record.run_id).get("training")
    root = Path(dataset.source)
    if trained_on is None or Path(trained_on.source).resolve() != root.resolve():
        return None
    unreadable = dataset.unreadable_files
    return rebuild_split(store, record.tags, root, unreadable, image_root=trained_on.image_root)


def leakage_within(dataset: Dataset) -> Leakage:
    """What any model of this split has seen of the split's own test set: copies and near-duplicates of its images."""
    rows = dataset.split_rows()
    return find_leakage(rows[rows["set"] == "test"], rows, same_tree=True)


def without_leakage(dataset: Dataset) -> tuple[Dataset, str]:
    """Leave patients out of the test set who have a copy of a training or validation image, to compare models.

    Returns:
        The data set and a sentence that counts what was left out; the data set itself and "" if nothing was.

    Raises:
        DataError: too few patients are left to compare models on.
    """
    leakage = leakage_within(dataset)
    if not leakage.counts:
        return dataset, ""
    test, seen = dataset.splits.test, list(leakage.set_of_patient)
    found = f"Leakage: {leakage.sentence('every model')}"
    if few := too_few(test[~test["patient"].isin(seen)]):
        raise DataError(f"{found}. That is too few: {few}. Remove the duplicates that the audit lists.")
    splits = without_test_patients(dataset.splits, seen)
    return replace(dataset, splits=splits), f"{found}; they are left out of the comparison."


def leakage_of_run(store: Store, record: RunRecord) -> Leakage | None:
    """What the model of an evaluated run has seen of the run's own test images; None where it is not known."""
    test = record.predictions["test"]
    source = record.tags.get(Tag.EVALUATES) or record.run_id
    data = read_datasets(store, record.run_id).get("test")
    root = "" if data is None else data.source
    split = read_trained_split(store, source, roots=[root])
    if split is None:  # the sets of one split share no patient, so a run has not seen the test set that it held out
        return Leakage(evaluated=test) if source == record.run_id else None
    own = split.rows if source == record.run_id else _evaluated_rows(store, record.run_id, root)
    rows = test[["image", "patient"]] if own is None else with_identities(test, own)
    return find_known_leakage(
        rows,
        split.rows,
        same_tree=source == record.run_id
        or split.is_same_tree(
            root, record.tags.get(Tag.SPLIT_FINGERPRINT, ""), names_of_run(store, record.run_id, record.tags)
        ),
    )


def _evaluated_rows(store: Store, run_id: str, root: str) -> pd.DataFrame | None:
    """What an evaluation logged of its data set, or rebuilt from its path; None where neither is possible."""
    logged = read_split_table(store, run_id, trained=False)
    if logged is not None:
        return code_names(logged, key_of_run(store, run_id, read_tags(store, run_id)))
    rebuilt = read_trained_split(store, run_id, roots=[root])
    return None if rebuilt is None else rebuilt.rows


def leakage_note(leakage: Leakage | None) -> str:
    """What the model has seen, in a sentence, and if that could not be seen entirely; empty where that is nothing."""
    if leakage is None:
        return f"Leakage: not known, {UNKNOWN}."
    by_pictures = "" if leakage.names_compared else f" But {BY_PICTURES_ALONE.format(model='the model')}."
    if not leakage.counts:
        return f"Leakage: none found.{by_pictures}" if by_pictures else ""
    found = f"Leakage: {leakage.sentence()}.{by_pictures}"
    if leakage.share <= MAX_LEAKED_SHARE:
        return found
    return (
        f"{found} These are not test figures, and `report` refuses them. Give set=test, protocol=run and seed=run for "
        "the run's own test set."
    )


def check_leakage(store: Store, records: Sequence[RunRecord]) -> list[str]:
    """Refuse runs that were evaluated on what their model has seen; a report would call these figures test.

    Returns:
        A note for each run that has seen a few of its test images, or of which that is not known.

    Raises:
        SettingsError: a model has seen more than a few images, or was evaluated on a set that it was trained with.
    """
    refused, notes = [], []
    for one in records:
        name, leakage = one.tags.get(Tag.SET, "test"), leakage_of_run(store, one)
        stated = one.tags.get(Tag.LEAKED_IMAGES, "0")
        if leakage is not None and leakage.share > MAX_LEAKED_SHARE:
            refused.append(f"{one.run_id}: {name}; {leakage.sentence()}")
        elif leakage is None and stated not in ("0", "unknown"):
            refused.append(f"{one.run_id}: {name}, of which the model has seen {stated} images")
        elif name in ("train", "validation"):
            refused.append(f"{one.run_id}: {name}")
        elif leakage is None:
            notes.append(f"{one.name}: it is not known whether the model has seen its test images, {UNKNOWN}.")
        else:
            if leakage.counts:
                notes.append(f"{one.name}: {leakage.sentence()}. The figures include these images.")
            if not leakage.names_compared:
                notes.append(f"{one.name}: {BY_PICTURES_ALONE.format(model='the model')}.")
    if refused:
        heading = (
            "A report shows test studies; these runs were evaluated on what their models have seen (see `evaluate`):"
        )
        raise SettingsError(numbered(heading, refused))
    return notes

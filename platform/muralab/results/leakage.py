"""Leakage: which evaluated images are of patients that the model was trained or selected on."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from muralab.config.commands import DEMO, RUN
from muralab.data.dataset import VALIDATION_FRACTION, Dataset
from muralab.data.mura import read_index
from muralab.data.splits import Splits, split_index
from muralab.demo.dataset import default_folder
from muralab.errors import MuraLabError, SettingsError
from muralab.tracking import LoggedData, RunRecord
from muralab.tracking.tags import Tag


def split_of(record: RunRecord, protocol: str = RUN, seed: int | None = None) -> tuple[str, int]:
    """The protocol and seed that are meant, `run` and None standing for those that a run was trained under.

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
    """The tree and the part that are meant, `run` standing for those that a run was trained on.

    Args:
        record: the trained run.
        data: a path, `demo` or `run`.
        part: one of the tree's, `all` or `run`.
        trained_on: the run's training set as it was logged.

    Raises:
        SettingsError: the run does not state what it was trained on.
    """
    if data == RUN:
        if trained_on is None:
            raise SettingsError(f"The run {record.run_id} ({record.name}) does not name its data: give data=<path>.")
        is_demo = Path(trained_on.source).parent == default_folder()
        data = DEMO if is_demo else trained_on.source  # the demo is generated again where it was deleted
    return data, record.part if part == RUN else part


def count_leaked(
    evaluated: pd.DataFrame, record: RunRecord, dataset: Dataset, trained_on: LoggedData | None
) -> dict[str, int]:
    """How many evaluated images are of patients that a run was trained on (`train`) or selected on (`validation`).

    The run's own split is made again on this tree. It counts where that gives the split that the run was trained
    under, wherever the tree lies now, or where the run names this very tree, though it may have changed since.

    Args:
        evaluated: rows with image and patient.
        record: the trained run.
        dataset: that the evaluated images are of.
        trained_on: the run's training set as it was logged.

    Returns:
        Set -> images; empty where there are none, or the tree is another.
    """
    own = _split_again(record, dataset)
    if own is None:
        return {}
    same_path = trained_on is not None and Path(trained_on.source).resolve() == dataset.root.resolve()
    if not same_path and own.fingerprint != record.tags.get(Tag.SPLIT_FINGERPRINT):
        return {}
    seen = {"train": own.train, "validation": own.validation}
    counts = {name: int(evaluated["patient"].isin(set(table["patient"])).sum()) for name, table in seen.items()}
    return {name: count for name, count in counts.items() if count}


def _split_again(record: RunRecord, dataset: Dataset) -> Splits | None:
    """The split under which a run was trained, on this tree; None where this tree does not allow it."""
    try:
        protocol, seed = split_of(record)
        index = dataset.index if record.part == dataset.part else read_index(dataset.root, record.part)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # patients on both sides: the data set has warned already
            return split_index(
                index[~index["image"].isin(set(dataset.unreadable))],
                protocol=protocol,
                seed=seed,
                validation_fraction=VALIDATION_FRACTION[record.tags.get(Tag.SYNTHETIC) == "true"],
            )
    except MuraLabError:
        return None


def leakage_note(counts: Mapping[str, int], n_evaluated: int) -> str:
    """What the counts mean, in a sentence; empty where there are none."""
    if not counts:
        return ""
    verbs = {"train": "was trained on", "validation": "was selected on"}
    found = " and ".join(f"{count:,} of patients that it {verbs[name]}" for name, count in counts.items())
    return (
        f"Leakage: of the {n_evaluated:,} evaluated images, the model has seen {sum(counts.values()):,}: {found}. "
        "These are not test figures, and no report takes them; set=test with protocol=run and seed=run is the run's "
        "own test set."
    )

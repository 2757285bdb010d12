"""What `run` stands for when a model is judged again, and which images are no test of it: those that it learnt from."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path

import pandas as pd

from muralab.config.parsing import LARGEST_SEED, check_word
from muralab.data.dataset import DEMO, VALIDATION_FRACTION, Dataset
from muralab.data.mura import read_index
from muralab.data.splits import PROTOCOLS, Splits, split_index
from muralab.demo.dataset import default_folder
from muralab.errors import MuraLabError, SettingsError
from muralab.tracking import LoggedData, RunRecord
from muralab.tracking.tags import Tag

OWN = "run"
"""A split parameter's word for: the trained run's own."""


def check_split(protocol: str, seed: str) -> None:
    """Refuse a protocol or a seed, or `run` in their place, that is none.

    Raises:
        SettingsError: says what was expected.
    """
    check_word("protocol", protocol, (*PROTOCOLS, OWN))
    if seed != OWN and not (seed.isdecimal() and int(seed) <= LARGEST_SEED):
        raise SettingsError(
            f"seed={seed}: expected {OWN} (the trained run's), or a whole number from 0 to {LARGEST_SEED}."
        )


def own_split(record: RunRecord, protocol: str = OWN, seed: str = OWN) -> tuple[str, int]:
    """The protocol and the seed that are meant, `run` standing for those that a run was trained under.

    Raises:
        SettingsError: one of the two is none, or the run does not say what it was trained under.
    """
    given = {"protocol": protocol, "seed": seed}
    found = {key: record.tags.get(f"muralab.{key}", "") if text == OWN else text for key, text in given.items()}
    for key in (key for key, value in found.items() if not value):
        raise SettingsError(f"The run {record.run_id} ({record.name}) does not name its {key}: give {key}=<its own>.")
    check_split(**found)
    return found["protocol"], int(found["seed"])


def own_data(record: RunRecord, data: str, part: str, trained_on: LoggedData | None) -> tuple[str, str]:
    """The tree and the part that are meant, `run` standing for those that a run was trained on.

    Args:
        record: the trained run.
        data: a path, `demo` or `run`.
        part: one of the tree's, `all` or `run`.
        trained_on: the run's training set as it was logged.

    Raises:
        SettingsError: the run does not say what it was trained on.
    """
    if data == OWN:
        if trained_on is None:
            raise SettingsError(f"The run {record.run_id} ({record.name}) does not name its data: give data=<path>.")
        drawn = Path(trained_on.source).parent == default_folder()
        data = DEMO if drawn else trained_on.source  # the demo is drawn again where it was cleared away
    return data, record.part if part == OWN else part


def count_learnt(
    judged: pd.DataFrame, record: RunRecord, dataset: Dataset, trained_on: LoggedData | None
) -> dict[str, int]:
    """How many judged images are of patients whose images a run was trained on (`train`) or chosen on (`validation`).

    The run's own split is drawn again on this tree. It counts where that gives the split that the run was trained
    under, wherever the tree lies now, or where the run names this very tree, though it may have changed since.

    Args:
        judged: rows with image and patient.
        record: the trained run.
        dataset: that the judged images are of.
        trained_on: the run's training set as it was logged.

    Returns:
        Set -> images; empty where there are none, or the tree is another.
    """
    own = _draw_again(record, dataset)
    if own is None:
        return {}
    same_path = trained_on is not None and Path(trained_on.source).resolve() == dataset.root.resolve()
    if not same_path and own.fingerprint != record.tags.get(Tag.SPLIT_FINGERPRINT):
        return {}
    learnt = {"train": own.train, "validation": own.validation}
    counts = {name: int(judged["patient"].isin(set(table["patient"])).sum()) for name, table in learnt.items()}
    return {name: count for name, count in counts.items() if count}


def _draw_again(record: RunRecord, dataset: Dataset) -> Splits | None:
    """The split under which a run was trained, on this tree; None where this tree does not allow it."""
    try:
        protocol, seed = own_split(record)
        index = dataset.index if record.part == dataset.part else read_index(dataset.root, record.part)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of patients on both sides: the data set has told already
            return split_index(
                index[~index["image"].isin(set(dataset.unreadable))],
                protocol=protocol,
                seed=seed,
                validation_fraction=VALIDATION_FRACTION[record.tags.get(Tag.SYNTHETIC) == "true"],
            )
    except MuraLabError:
        return None


def learnt_note(counts: Mapping[str, int], n_judged: int) -> str:
    """What the counts mean, in a sentence; empty where there are none."""
    if not counts:
        return ""
    verbs = {"train": "was trained on", "validation": "was chosen on"}
    found = " and ".join(f"{count:,} of patients that it {verbs[name]}" for name, count in counts.items())
    return (
        f"Of the {n_judged:,} images judged, the model knows {sum(counts.values()):,}: {found}. These are no test "
        "figures, and no report takes them; set=test with protocol=run and seed=run is the run's own test set."
    )

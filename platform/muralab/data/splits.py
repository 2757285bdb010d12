"""Split an index into train, validation and test by patient, under one of two protocols.

valid-as-test (default): MURA's official valid is the test set; the validation set is held out of train, by patient.
valid-as-validation (the study's): official valid is the validation set; the test set is held out of train, by patient.
"""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Collection
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from muralab.errors import DataError, SettingsError, nearest

SETS = ("train", "validation", "test")
"""Of every split, in this order."""
PROTOCOLS = ("valid-as-test", "valid-as-validation")
STUDY_PROTOCOL = "valid-as-validation"
"""The wrist study's, which is split by patient here."""
FINGERPRINT_COLUMNS = ("image", "label", "patient", "split")
CLASS_NAMES = ("normal (0)", "abnormal (1)")


@dataclass(frozen=True, kw_only=True)
class Splits:
    """Three tables that share no patient, each sorted by image."""

    train: pd.DataFrame
    """rows to train on"""
    validation: pd.DataFrame
    """rows for selection: epochs, trials, calibration, threshold"""
    test: pd.DataFrame
    """rows for the final evaluation, once"""
    protocol: str
    """one of PROTOCOLS"""
    seed: int
    """of the draw of the held-out patients"""
    fingerprint: str
    """digest of which image is in which set, 32 hex characters"""

    def items(self) -> tuple[tuple[str, pd.DataFrame], ...]:
        """The three tables with their names, in the order of SETS."""
        return (("train", self.train), ("validation", self.validation), ("test", self.test))


def split_index(
    index: pd.DataFrame,
    *,
    protocol: str = "valid-as-test",
    seed: int = 0,
    validation_fraction: float = 0.15,
    test_fraction: float = 0.10,
) -> Splits:
    """Split an index by patient, stratified by the patient's label and part.

    Args:
        index: from `read_index`.
        protocol: one of PROTOCOLS.
        seed: of the draw of the held-out patients, 0 or more.
        validation_fraction: of official train patients, under valid-as-test.
        test_fraction: of official train patients, under valid-as-validation.

    Raises:
        SettingsError: an unknown protocol, an impossible fraction or seed.
        DataError: a set has no images of one class.
    """
    if protocol not in PROTOCOLS:
        raise SettingsError(f"Unknown protocol '{protocol}'. {nearest(protocol, PROTOCOLS)}")
    fraction = validation_fraction if protocol == "valid-as-test" else test_fraction
    if not 0.0 < fraction < 1.0:
        raise SettingsError(f"The held-out fraction must be between 0 and 1, received {fraction}.")
    if seed < 0:
        raise SettingsError(f"The seed must be 0 or more, received {seed}.")
    for name in ("train", "valid"):
        if not (index["split"] == name).any():
            raise DataError(f"There is no image in {name}/: a split needs both of MURA's folders, train and valid.")
    official = index[index["split"] == "valid"]
    pool = _without_patients_of(official, index[index["split"] == "train"])
    held_out = pool["patient"].isin(_draw_patients(pool, fraction, seed))
    drawn, train = pool[held_out], pool[~held_out]
    validation, test = (drawn, official) if protocol == "valid-as-test" else (official, drawn)
    tables = {"train": train, "validation": validation, "test": test}
    _check_classes(tables)
    assigned = pd.concat([table.assign(split=name) for name, table in tables.items()])
    ordered = {name: table.sort_values("image", ignore_index=True) for name, table in tables.items()}
    return Splits(**ordered, protocol=protocol, seed=seed, fingerprint=fingerprint(assigned))


def without_test_patients(splits: Splits, patients: Collection[str]) -> Splits:
    """The split without some patients of its test set, and with a fingerprint of its own.

    Raises:
        DataError: the test set has no images of one class any more.
    """
    tables = dict(splits.items())
    tables["test"] = splits.test[~splits.test["patient"].isin(list(patients))].reset_index(drop=True)
    _check_classes(tables)
    assigned = pd.concat([table.assign(split=name) for name, table in tables.items()])
    return replace(splits, test=tables["test"], fingerprint=fingerprint(assigned))


def fingerprint(table: pd.DataFrame) -> str:
    """Digest of all rows' image, label, patient and split, independent of their order: 32 hex characters."""
    columns = [table[column].astype(str).tolist() for column in FINGERPRINT_COLUMNS]
    digest = hashlib.blake2b(digest_size=16)
    for row in sorted(zip(*columns)):
        digest.update(("\t".join(row) + "\n").encode())
    return digest.hexdigest()


def _without_patients_of(official: pd.DataFrame, train: pd.DataFrame) -> pd.DataFrame:
    """Train without the patients who are also in official valid; they would be on both sides of the split."""
    shared = train["patient"].isin(set(official["patient"]))
    if shared.any():
        patients = sorted(set(train.loc[shared, "patient"]))
        warnings.warn(
            f"{len(patients)} patients are in both train and valid (first: {', '.join(patients[:5])}); their "
            f"{int(shared.sum())} train images are left out.",
            stacklevel=3,
        )
    return train[~shared]


def _draw_patients(pool: pd.DataFrame, fraction: float, seed: int) -> set[str]:
    """Held-out patients: an equal share of those with and without an abnormal study, spread over the parts."""
    patients = pool.groupby("patient").agg(positive=("label", "max"), part=("part", "min")).reset_index()
    rng = np.random.default_rng(seed)
    drawn: set[str] = set()
    for _, stratum in patients.groupby("positive"):
        shuffled = stratum.iloc[rng.permutation(len(stratum))]
        names = shuffled.sort_values("part", kind="stable")["patient"].to_numpy()
        count = min(max(round(fraction * len(names)), 1), len(names) - 1)
        # Evenly spaced positions in a list sorted by part and shuffled within: every part contributes its share.
        positions = ((np.arange(count) + rng.random()) * len(names) / max(count, 1)).astype(int)
        drawn.update(names[positions])
    return drawn


def _check_classes(tables: dict[str, pd.DataFrame]) -> None:
    for name, table in tables.items():
        counts = [int((table["label"] == label).sum()) for label in (0, 1)]
        for label, count in enumerate(counts):
            if count == 0:
                raise DataError(
                    f"The {name} split has no {CLASS_NAMES[label]} image: {counts[0]} normal and {counts[1]} abnormal "
                    f"images of {table['patient'].nunique()} patients. Use more data, another seed or another protocol."
                )

"""Split an index into train, validation and test by patient.

A MURA tree is split under one of two protocols:

- valid-as-test (default): MURA's official valid is the test set; the validation set is held out of train.
- valid-as-validation (the study's): official valid is the validation set; the test set is held out of train.

A manifest is split as its column `split` says (the protocol `manifest`), with the validation set held out of train
where it names none; without that column the test set is drawn: `test_fraction=0.2`, or one of several folds,
`test_folds=2/5`.
"""

from __future__ import annotations

import hashlib
import re
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from muralab.data.names import REAL
from muralab.errors import DataError, SettingsError, nearest, numbered

SETS = ("train", "validation", "test")
"""Of every split, in this order."""
PROTOCOLS = ("valid-as-test", "valid-as-validation")
"""Of MURA trees."""
STUDY_PROTOCOL = "valid-as-validation"
"""The wrist study's, which is split by patient here."""
MANIFEST_PROTOCOL = "manifest"
"""A manifest says which images are for testing."""
FRACTION_FORM = re.compile(r"test_fraction=(\d*\.\d+)")
FOLD_FORM = re.compile(r"test_folds=(\d+)/(\d+)")
FINGERPRINT_COLUMNS = ("image", "label", "patient", "split")
CLASS_NAMES = ("normal (0)", "abnormal (1)")
MORE_DATA = {
    MANIFEST_PROTOCOL: "Use more data, or move patients between the sets.",
    "drawn": "Use more data, another seed, or a larger test_fraction or fewer test_folds.",
    "official": "Use more data, another seed or another protocol.",
}
"""What helps where a set lacks a class."""

Tables = dict[str, pd.DataFrame]


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
    """one of PROTOCOLS, MANIFEST_PROTOCOL, or such as `test_fraction=0.2`, `test_folds=2/5`"""
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
    validation_fold: tuple[int, int] | None = None,
    needed: Collection[str] = SETS,
) -> Splits:
    """Split an index by patient; what is drawn is stratified by the patient's label and part.

    Args:
        index: from `read_index`, or a manifest's.
        protocol: as in `Splits`.
        seed: of the draw of the held-out patients, 0 or more.
        validation_fraction: of the patients to train on, where the validation set is drawn from them.
        test_fraction: of official train patients, under valid-as-validation.
        validation_fold: (2, 5): the validation set is the second fifth of all patients that are not in the test set,
            whatever the data say; with one seed the five are disjoint. None: as the protocol says.
        needed: sets that must have images of both classes.

    Raises:
        SettingsError: an unknown protocol, an impossible fraction or seed.
        DataError: a set has no images of one class.
    """
    if seed < 0:
        raise SettingsError(f"The seed must be 0 or more, received {seed}.")
    for fraction in (validation_fraction, test_fraction):
        if not 0.0 < fraction < 1.0:
            raise SettingsError(f"The held-out fraction must be between 0 and 1, received {fraction}.")
    if protocol in PROTOCOLS:
        tables = _split_official(index, protocol, seed, validation_fraction, test_fraction)
    elif protocol == MANIFEST_PROTOCOL:
        tables = _split_as_given(index, seed, validation_fraction)
    else:
        patients = _draw_test_patients(index, protocol, seed)
        rest, test = _hold_out(index, patients)
        tables = {"test": test, **_hold_out_validation(rest, seed, validation_fraction)}
    if validation_fold is not None:
        pool = pd.concat([tables["train"], tables["validation"]])
        train, validation = _hold_out(pool, _patients_of_fold(pool, validation_fold, seed))
        tables |= {"train": train, "validation": validation}
    _check_classes(tables, needed, MORE_DATA[_kind(protocol)])
    ordered = {name: table.sort_values("image", ignore_index=True) for name, table in tables.items()}
    return Splits(**ordered, protocol=protocol, seed=seed, fingerprint=_fingerprint_of(tables))


def _kind(protocol: str) -> str:
    return MANIFEST_PROTOCOL if protocol == MANIFEST_PROTOCOL else "official" if protocol in PROTOCOLS else "drawn"


def _split_official(
    index: pd.DataFrame, protocol: str, seed: int, validation_fraction: float, test_fraction: float
) -> Tables:
    """A MURA tree: official valid is one set, another is held out of official train."""
    for name in ("train", "valid"):
        if not (index["split"] == name).any():
            raise DataError(f"There is no image in {name}/: a split needs both of MURA's folders, train and valid.")
    official = index[index["split"] == "valid"]
    pool = _without_patients_of(official, index[index["split"] == "train"])
    if protocol == "valid-as-test":
        return {**_hold_out_validation(pool, seed, validation_fraction), "test": official}
    train, test = _hold_out(pool, _draw_patients(pool, test_fraction, seed))
    return {"train": train, "validation": official, "test": test}


def _split_as_given(index: pd.DataFrame, seed: int, validation_fraction: float) -> Tables:
    """A manifest with a column `split`; the validation set is held out of train where the column names none."""
    tables = {name: index[index["split"] == name] for name in SETS}
    if tables["validation"].empty and not tables["train"].empty:
        tables |= _hold_out_validation(tables["train"], seed, validation_fraction)
    return tables


def _hold_out_validation(pool: pd.DataFrame, seed: int, fraction: float) -> Tables:
    train, validation = _hold_out(pool, _draw_patients(pool, fraction, seed))
    return {"train": train, "validation": validation}


def _hold_out(pool: pd.DataFrame, patients: Collection[str]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(the others' rows, these patients' rows)."""
    held_out = pool["patient"].isin(list(patients))
    return pool[~held_out], pool[held_out]


def without_test_patients(splits: Splits, patients: Collection[str]) -> Splits:
    """The split without some patients of its test set, and with a fingerprint of its own.

    Raises:
        DataError: the test set has no images of one class any more.
    """
    tables = dict(splits.items())
    tables["test"] = splits.test[~splits.test["patient"].isin(list(patients))].reset_index(drop=True)
    _check_classes(tables, ("test",), MORE_DATA[_kind(splits.protocol)])
    return replace(splits, test=tables["test"], fingerprint=_fingerprint_of(tables))


def with_labels(splits: Splits, relabel: Callable[[pd.DataFrame], pd.DataFrame], needed: Collection[str]) -> Splits:
    """The split with the same images in each set and other labels, and with a fingerprint of its own.

    Args:
        splits: to change.
        relabel: returns rows with the labels that hold.
        needed: sets that must have images of both classes.

    Raises:
        DataError: a set has no images of one class any more.
    """
    tables = {name: relabel(table) for name, table in splits.items()}
    _check_classes(tables, needed, MORE_DATA[_kind(splits.protocol)])
    return replace(splits, **tables, fingerprint=_fingerprint_of(tables))


def _fingerprint_of(tables: Tables) -> str:
    return fingerprint(pd.concat([table.assign(split=name) for name, table in tables.items()]))


def fingerprint(table: pd.DataFrame) -> str:
    """Digest of all rows' image, label, patient and split, independent of their order: 32 hex characters.

    Where a table has codes and keeps its names (`REAL`), it is that of the names: it does not depend on the key.
    """
    named = [REAL[column] if REAL.get(column) in table else column for column in FINGERPRINT_COLUMNS]
    columns = [table[column].astype(str).tolist() for column in named]
    digest = hashlib.blake2b(digest_size=16)
    for row in sorted(zip(*columns)):
        digest.update(("\t".join(row) + "\n").encode())
    return digest.hexdigest()


def _without_patients_of(official: pd.DataFrame, train: pd.DataFrame) -> pd.DataFrame:
    """Train without the patients who are also in official valid; they would be on both sides of the split."""
    shared = train["patient"].isin(set(official["patient"]))
    if shared.any():
        warnings.warn(
            f"{train.loc[shared, 'patient'].nunique()} patients are in both train and valid; their "
            f"{int(shared.sum())} train images are left out. `explore` lists these patients.",
            stacklevel=4,
        )
    return train[~shared]


def _draw_test_patients(index: pd.DataFrame, protocol: str, seed: int) -> set[str]:
    """The test patients of `test_fraction=0.2` or `test_folds=2/5`.

    Raises:
        SettingsError: the protocol is neither, or impossible.
    """
    if match := FRACTION_FORM.fullmatch(protocol):
        return _draw_patients(index, float(match[1]), seed)
    match = FOLD_FORM.fullmatch(protocol)
    if match is None:
        raise SettingsError(f"Unknown protocol '{protocol}'. {nearest(protocol, (*PROTOCOLS, MANIFEST_PROTOCOL))}")
    number, n_folds = int(match[1]), int(match[2])
    if not 1 <= number <= n_folds or n_folds < 2:
        raise SettingsError(f"{protocol}: there is no fold {number} of {n_folds}; expected at least 2 folds.")
    return _patients_of_fold(index, (number, n_folds), seed)


def _patients_of_fold(pool: pd.DataFrame, fold: tuple[int, int], seed: int) -> set[str]:
    """The patients of one fold, (2, 5) being the second of five; each fold has its share of every stratum."""
    number, n_folds = fold
    strata = _strata(pool, np.random.default_rng(seed))
    return {str(name) for names in strata for name in names[number - 1 :: n_folds]}


def _draw_patients(pool: pd.DataFrame, fraction: float, seed: int) -> set[str]:
    """Held-out patients: an equal share of those with and without an abnormal study, spread over the parts."""
    rng = np.random.default_rng(seed)
    drawn: set[str] = set()
    for names in _strata(pool, rng):
        count = min(max(round(fraction * len(names)), 1), len(names) - 1)
        # Evenly spaced positions in a list sorted by part and shuffled within: every part contributes its share.
        positions = ((np.arange(count) + rng.random()) * len(names) / max(count, 1)).astype(int)
        drawn.update(names[positions])
    return drawn


def _strata(pool: pd.DataFrame, rng: np.random.Generator) -> Iterator[npt.NDArray[np.object_]]:
    """The patients without and with an abnormal study, each list shuffled, then sorted by part."""
    patients = pool.groupby("patient").agg(positive=("label", "max"), part=("part", "min")).reset_index()
    for _, stratum in patients.groupby("positive"):
        shuffled = stratum.iloc[rng.permutation(len(stratum))]
        yield shuffled.sort_values("part", kind="stable")["patient"].to_numpy()


def _check_classes(tables: Tables, needed: Collection[str], advice: str) -> None:
    """Refuse sets without a class.

    Raises:
        DataError: names all of them.
    """
    problems: list[str] = []
    for name in [name for name in SETS if name in needed]:
        problems += _lacking_classes(name, tables[name])
    if len(problems) == 1:
        raise DataError(f"{problems[0]} {advice}")
    if problems:
        raise DataError(f"{numbered('The sets lack images of a class:', problems)}\n{advice}")


def _lacking_classes(name: str, table: pd.DataFrame) -> Sequence[str]:
    counts = [int((table["label"] == label).sum()) for label in (0, 1)]
    return [
        f"The {name} split has no {CLASS_NAMES[label]} image: {counts[0]} normal and {counts[1]} abnormal "
        f"images of {table['patient'].nunique()} patients."
        for label, count in enumerate(counts)
        if count == 0
    ]

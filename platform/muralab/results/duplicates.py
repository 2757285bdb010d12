"""Test images that are copies of training or validation images, under other patients: counted, or left out."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from muralab.data.dataset import Dataset
from muralab.data.splits import without_test_patients
from muralab.evaluation.leakage import find_leakage


def handle_duplicates(dataset: Dataset, duplicates: str) -> Dataset:
    """The data set with a note of what its test set shares with the other sets, and without it where asked for.

    A copy is a file with the same pixels or a near-duplicate. Its patient is left out as a whole: the other images
    of that patient are most likely of the person whom the model has seen.

    Args:
        dataset: with the split by patient.
        duplicates: `keep` or `drop`.

    Raises:
        DataError: without these patients the test set lacks a class.
    """
    rows = dataset.split_rows().assign(hash="")  # the audit has compared all pairs: equal hashes alone show nothing
    copied = find_leakage(rows[rows["set"] == "test"], rows, same_tree=True)
    if not copied.counts:
        return dataset
    found = (
        f"{len(copied.set_of_patient)} of {dataset.splits.test['patient'].nunique()} test patients "
        f"({copied.n_images} image{'s' * (copied.n_images > 1)}) have a picture that is a copy or near-duplicate "
        f"of one in {' and '.join(copied.counts)}"
    )
    if duplicates == "keep":
        note = f"{found}. The test set keeps them; duplicates=drop leaves these patients out."
        return replace(dataset, notes=(*dataset.notes, note))
    splits = without_test_patients(dataset.splits, set(copied.set_of_patient))
    audit = replace(
        dataset.audit, digests={**dataset.audit.digests, "test": _digest(dataset.digest("test"), splits.fingerprint)}
    )
    note = f"{found}. They were left out of the test set (duplicates=drop)."
    return replace(dataset, splits=splits, audit=audit, notes=(*dataset.notes, note))


def _digest(*parts: str) -> str:
    return hashlib.blake2b("\t".join(parts).encode(), digest_size=16).hexdigest()

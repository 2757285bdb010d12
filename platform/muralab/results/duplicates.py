"""Test images that are copies of training or validation images of other patients: counted, or left out."""

from __future__ import annotations

import hashlib
from dataclasses import replace

from muralab.data.dataset import Dataset
from muralab.data.splits import without_test_patients
from muralab.errors import DataError
from muralab.results.leakage import leakage_within


def handle_duplicates(dataset: Dataset, duplicates: str) -> Dataset:
    """Note the test patients with a copy of a training or validation image, or leave them out of the test set.

    A copy is a file with the same pixels or a near-duplicate. With `drop`, all images of its patient are left out: they
    most likely show the same person as the training image.

    Args:
        dataset: with the split by patient.
        duplicates: `keep` or `drop`.

    Returns:
        The data set with a note that counts these patients; the data set itself if there are none.

    Raises:
        DataError: without these patients the test set lacks a class.
    """
    copied = leakage_within(dataset)
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
    try:
        splits = without_test_patients(dataset.splits, set(copied.set_of_patient))
    except DataError as error:
        raise DataError(f"duplicates=drop: {found}. Without them: {error} Or give duplicates=keep.") from error
    audit = replace(
        dataset.audit, digests={**dataset.audit.digests, "test": _digest(dataset.digest("test"), splits.fingerprint)}
    )
    note = f"{found}. They were left out of the test set (duplicates=drop)."
    return replace(dataset, splits=splits, audit=audit, notes=(*dataset.notes, note))


def _digest(*parts: str) -> str:
    return hashlib.blake2b("\t".join(parts).encode(), digest_size=16).hexdigest()

"""Artifacts and data sets of a run, and the tables of predictions among the artifacts."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final
from urllib.parse import unquote, urlsplit

import pandas as pd

from muralab.data.local_files import find_files
from muralab.data.name_keys import find_key
from muralab.data.names import NameKey, code_names
from muralab.data.splits import fingerprint
from muralab.errors import StoreError
from muralab.redaction import redact
from muralab.tracking.failures import store_error
from muralab.tracking.patient_sketch import sketch_patients
from muralab.tracking.store import Store
from muralab.tracking.tags import Tag

PREDICTED_SETS = ("validation", "test")
PREDICTION_TYPES = {"image": str, "study": str, "patient": str, "part": str, "label": "int64", "logit": "float64"}


@final
class StoredPredictions(Mapping[str, pd.DataFrame]):
    """The tables of predictions of a run, each downloaded on first access; names are codes, see `key_of_run`."""

    def __init__(self, store: Store, run_id: str, tags: Mapping[str, str]) -> None:
        self._store, self._run_id, self._tags = store, run_id, tags
        self._tables: dict[str, pd.DataFrame] = {}
        self._coded: dict[str, pd.DataFrame] = {}
        self._names: list[str] | None = None

    def __getitem__(self, name: str) -> pd.DataFrame:
        if name not in self._coded:
            table = self.as_logged(name)
            self._coded[name] = code_names(table, key_of_run(self._store, self._run_id, self._tags))
        return self._coded[name]

    def as_logged(self, name: str) -> pd.DataFrame:
        """The table as the run logged it, with names where that was an earlier version."""
        if name not in self:
            available = ", ".join(self) or "none"
            raise StoreError(
                f"The run {self._run_id} of {redact(self._store.uri)} has no predictions on '{name}'. "
                f"Available: {available}."
            )
        if name not in self._tables:
            self._tables[name] = _read_predictions(self._store, self._run_id, name)
        return self._tables[name]

    def __contains__(self, name: object) -> bool:
        return name in self._list()

    def __iter__(self) -> Iterator[str]:
        return iter(self._list())

    def __len__(self) -> int:
        return len(self._list())

    def _list(self) -> list[str]:
        if self._names is None:
            self._names = _list_predictions(self._store, self._run_id)
        return self._names


def _list_predictions(store: Store, run_id: str) -> list[str]:
    try:
        found = {Path(item.path).stem for item in store.client.list_artifacts(run_id, "predictions")}
    except Exception as error:
        raise store_error(store, f"list the predictions of the run {run_id}", error) from error
    return [name for name in PREDICTED_SETS if name in found]


def _read_predictions(store: Store, run_id: str, name: str) -> pd.DataFrame:
    with tempfile.TemporaryDirectory() as folder:
        path = download_artifact(store, run_id, f"predictions/{name}.csv", Path(folder))
        return read_predictions(path)


def read_predictions(path: Path) -> pd.DataFrame:
    """A table of predictions as it was written: names stay text ("007", "NA"), logits keep all digits."""
    return pd.read_csv(
        path, dtype=PREDICTION_TYPES, keep_default_na=False, na_values={"logit": ["", "nan"]},
        float_precision="round_trip",
    )  # fmt: skip


def local_artifact(store: Store, run_id: str, path: str) -> Path | None:
    """The file of an artifact that lies on this machine; None if there is none, or it lies elsewhere."""
    try:
        uri = urlsplit(str(store.client.get_run(run_id).info.artifact_uri))
    except Exception:  # whatever the store has: the file is a convenience
        return None
    file = Path(unquote(uri.path)) / path
    return file if uri.scheme in ("", "file") and file.is_file() else None


def download_artifact(store: Store, run_id: str, path: str, folder: Path) -> Path:
    """Download an artifact (a file or a folder) of a run.

    Args:
        store: where the run is.
        run_id: its id.
        path: the artifact's path within the run.
        folder: created if missing; receives `path` with its parent folders.

    Returns:
        The path of the downloaded file or folder.

    Raises:
        StoreError: the run has no such artifact, or the store failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return Path(store.client.download_artifacts(run_id, path, str(folder)))
    except Exception as error:
        raise store_error(store, f"read '{path}' of the run {run_id}", error) from error


def key_of_run(store: Store, run_id: str, tags: Mapping[str, str]) -> NameKey | None:
    """The key for a run that logged names: that of the data set that it names, on this machine.

    Args:
        store: holds the run, and knows where keys are.
        run_id: its id.
        tags: of the run.

    Returns:
        None for a run that logged codes, for one of generated images, and for a store without keys.
    """
    if store.keys is None or tags.get(Tag.SYNTHETIC) == "true" or Tag.NAMES in tags:
        return None
    data = read_datasets(store, run_id)
    return find_key(
        store.keys, next((data[name].source for name in ("training", "validation", "test") if name in data), "")
    )


def fingerprint_test_set(predictions: pd.DataFrame) -> str:
    """A digest of the images of a test set, with their labels and patients: 32 hex characters."""
    return fingerprint(predictions.assign(split="test"))


def tags_of_test_set(predictions: pd.DataFrame, fingerprint: str = "") -> dict[str, str]:
    """The tags by which evaluations on a test set are found.

    Args:
        predictions: one row per image.
        fingerprint: of a test set whose names are coded: that of the names; empty: that of the table.
    """
    return {
        Tag.TEST_FINGERPRINT: fingerprint or fingerprint_test_set(predictions),
        Tag.TEST_PATIENTS: sketch_patients(predictions["patient"]),
    }


@dataclass(frozen=True, kw_only=True)
class LoggedData:
    """A data set that was logged as an input of a run."""

    name: str
    digest: str
    source: str
    """The path of the tree, or of the manifest, on the machine that wrote the run."""
    profile: Mapping[str, Any] = field(default_factory=dict)
    """Counts."""
    image_root: str | None = None
    """The folder that a manifest's image names start from; None for a tree."""

    @property
    def root(self) -> Path:
        """The folder that image names start from."""
        return Path(self.image_root or self.source)


def read_datasets(store: Store, run_id: str) -> dict[str, LoggedData]:
    """The data sets that were logged as inputs of a run, by context: training, validation, test ...

    Raises:
        StoreError: no such run, or the store failed.
    """
    try:
        found, run = {}, store.client.get_run(run_id)
        for entry in run.inputs.dataset_inputs:
            context = next((tag.value for tag in entry.tags if tag.key == Tag.DATA_CONTEXT), "")
            found[context] = LoggedData(
                name=entry.dataset.name,
                digest=entry.dataset.digest,
                source=run.data.tags.get(Tag.DATA_PATH) or json.loads(entry.dataset.source or "{}").get("uri", ""),
                profile=json.loads(entry.dataset.profile or "{}"),
                image_root=run.data.tags.get(Tag.IMAGE_ROOT),
            )
    except Exception as error:
        raise store_error(store, f"read the data sets of the run {run_id}", error) from error
    return found


def locate_files(store: Store, table: pd.DataFrame, data: LoggedData, tags: Mapping[str, str]) -> pd.DataFrame:
    """A table of images that a run logged with the `path` of each on this machine, see `find_files`.

    Args:
        store: knows where the keys of coded names are.
        table: with `image`.
        data: that the images are of.
        tags: of the run.

    Raises:
        DataError: the names are coded, and their key is not on this machine.
    """
    columns = json.loads(tags.get(Tag.COLUMNS) or "{}")
    manifest = None if data.image_root is None else Path(data.source)
    return find_files(table, data.root, store.keys, manifest=manifest, columns=columns)

"""Files and data sets that a run holds, and the tables of predictions among the files."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import pandas as pd

from muralab.data.splits import fingerprint
from muralab.errors import StoreError
from muralab.tracking.address import shown
from muralab.tracking.store import Store, store_error
from muralab.tracking.tags import Tag

SETS = ("validation", "test")
PREDICTION_TYPES = {"image": str, "study": str, "patient": str, "part": str, "label": "int64", "logit": "float64"}


@final
class StoredPredictions(Mapping[str, pd.DataFrame]):
    """The tables of predictions that a run holds, downloaded when they are first asked for."""

    def __init__(self, store: Store, run_id: str) -> None:
        self._store, self._run_id = store, run_id
        self._tables: dict[str, pd.DataFrame] = {}
        self._names: list[str] | None = None

    def __getitem__(self, name: str) -> pd.DataFrame:
        if name not in self:
            held = ", ".join(self) or "none"
            raise StoreError(
                f"The run {self._run_id} of {shown(self._store.uri)} holds no predictions of '{name}': {held}."
            )
        if name not in self._tables:
            self._tables[name] = _read_predictions(self._store, self._run_id, name)
        return self._tables[name]

    def __contains__(self, name: object) -> bool:
        return name in self._held()

    def __iter__(self) -> Iterator[str]:
        return iter(self._held())

    def __len__(self) -> int:
        return len(self._held())

    def _held(self) -> list[str]:
        if self._names is None:
            self._names = _list_predictions(self._store, self._run_id)
        return self._names


def _list_predictions(store: Store, run_id: str) -> list[str]:
    try:
        found = {Path(item.path).stem for item in store.client.list_artifacts(run_id, "predictions")}
    except Exception as error:
        raise store_error(store, f"list the predictions of the run {run_id}", error) from error
    return [name for name in SETS if name in found]


def _read_predictions(store: Store, run_id: str, name: str) -> pd.DataFrame:
    with tempfile.TemporaryDirectory() as folder:
        path = download_artifact(store, run_id, f"predictions/{name}.csv", Path(folder))
        return read_predictions(path)


def read_predictions(path: Path) -> pd.DataFrame:
    """A table of predictions as it was written: names stay text ("007", "NA"), logits keep every digit."""
    return pd.read_csv(
        path, dtype=PREDICTION_TYPES, keep_default_na=False, na_values={"logit": ["", "nan"]},
        float_precision="round_trip",
    )  # fmt: skip


def download_artifact(store: Store, run_id: str, path: str, folder: Path) -> Path:
    """Copy a file or folder that a run holds into a local folder, made where it is missing.

    Args:
        store: where the run is.
        run_id: its id.
        path: the artifact's path within the run.
        folder: receives `path`, with its folders.

    Raises:
        StoreError: the run holds no such artifact, or the store failed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return Path(store.client.download_artifacts(run_id, path, str(folder)))
    except Exception as error:
        raise store_error(store, f"read '{path}' of the run {run_id}", error) from error


def fingerprint_test_set(predictions: pd.DataFrame) -> str:
    """A digest of which images a test set holds, with their labels and patients: 32 hex characters."""
    return fingerprint(predictions.assign(split="test"))


@dataclass(frozen=True, kw_only=True)
class LoggedData:
    """A data set as a run names it."""

    name: str
    digest: str
    source: str
    """The tree's path on the machine that wrote the run."""
    profile: Mapping[str, Any] = field(default_factory=dict)
    """Counts."""


def read_datasets(store: Store, run_id: str) -> dict[str, LoggedData]:
    """The data sets that were logged as inputs of a run, by context: training, validation, test ...

    Raises:
        StoreError: no such run, or the store failed.
    """
    try:
        inputs = store.client.get_run(run_id).inputs.dataset_inputs
        found = {}
        for one in inputs:
            context = next((tag.value for tag in one.tags if tag.key == Tag.DATA_CONTEXT), "")
            source = json.loads(one.dataset.source or "{}").get("uri", "")
            profile = json.loads(one.dataset.profile or "{}")
            found[context] = LoggedData(
                name=one.dataset.name, digest=one.dataset.digest, source=source, profile=profile
            )
    except Exception as error:
        raise store_error(store, f"read the data sets of the run {run_id}", error) from error
    return found

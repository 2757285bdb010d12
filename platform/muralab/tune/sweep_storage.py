"""A search's files in the storage of a cluster: what its trials read, and what they leave behind.

pixels/<squares>              decoded squares, for all searches of the same images
weights/<digest>-<file>       pretrained weights, likewise
sweeps/<run>/plan.json        what `resume` reads, and split.csv beside it
sweeps/<run>/trials/<trial>   see `stored_epochs`
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muralab.data.dataset import Dataset
from muralab.errors import StorageError
from muralab.storage import Storage, patiently
from muralab.training.trainer import LAST
from muralab.training.weights import file_digest
from muralab.trial import TrialSpec
from muralab.tune.folders import PIXELS, SWEEPS, TRIALS, Folders
from muralab.tune.portable import to_portable
from muralab.tune.stored_epochs import fetch_epoch, fetch_newest

WEIGHTS = "weights"
OUTAGE_S = 60.0
"""How long the command waits for a storage that does not answer; then it ends, and can be resumed."""


@dataclass(frozen=True, kw_only=True)
class SweepStorage:
    """The part of a storage that belongs to one search."""

    storage: Storage
    folders: Folders
    """Of the search on the command's machine."""

    @property
    def name(self) -> str:
        """The search's folder in the storage."""
        return f"{SWEEPS}/{self.folders.sweep.name}"

    def upload_inputs(self, specs: Iterable[TrialSpec], dataset: Dataset) -> None:
        """Upload what the trials read, except what the storage holds already.

        Raises:
            StorageError: it cannot be written.
        """
        for cache in dataset.caches.values():
            pixels = cache.path
            for file in (pixels.with_suffix(".json"), pixels):  # pixels last: whoever sees them finds the names
                self._upload_once(file, f"{PIXELS}/{file.name}")
        for weights in sorted({spec.weights for spec in specs if spec.weights}):
            self._upload_once(Path(weights), f"{WEIGHTS}/{weights_name(weights)}")
        self.storage.upload(self.folders.table, f"{self.name}/{self.folders.table.name}")
        self.upload_plan()

    def upload_plan(self) -> None:
        """Upload what `resume` reads, as it is now.

        Raises:
            StorageError: it cannot be written.
        """
        self.storage.upload(self.folders.plan, f"{self.name}/{self.folders.plan.name}")

    def _upload_once(self, file: Path, name: str) -> None:
        if not self.storage.exists(name):
            self.storage.upload(file, name)

    def spec_on_nodes(self, spec: TrialSpec) -> dict[str, Any]:
        """A trial's specification with names instead of paths, which every node resolves for itself."""
        values = dict(to_portable(spec.to_dict(), self.folders))
        return {**values, "weights": f"{{cache}}/{WEIGHTS}/{weights_name(spec.weights)}" if spec.weights else ""}

    def fetch(self, trial: str, epoch: int) -> None:
        """Fetch what a trial has left after an epoch into its folder on this machine.

        Raises:
            StorageError: it is not there.
        """
        into = self.folders.sweep / TRIALS / trial
        patiently(lambda: fetch_epoch(self.storage, self._trial(trial), epoch, into, without=(LAST,)), OUTAGE_S)

    def forget(self, trial: str) -> None:
        """Remove what a trial has left; what cannot be removed stays until the search ends."""
        with contextlib.suppress(StorageError):
            self.storage.remove_folder(self._trial(trial))

    def remove(self) -> list[str]:
        """Remove the search's folder; the decoded squares and the weights stay for others.

        Returns:
            A note if something of it is still there: the search itself has ended well.
        """
        try:
            self.storage.remove_folder(self.name)
        except StorageError as error:
            return [f"{error} Nothing needs {self.name} any more."]
        return []

    def restore(self) -> None:
        """Bring an interrupted search to this machine, unless its plan is here already.

        Raises:
            StorageError: the storage does not answer.
        """
        if self.folders.plan.is_file() or not self.storage.exists(f"{self.name}/{self.folders.plan.name}"):
            return
        self.storage.download(f"{self.name}/{self.folders.table.name}", self.folders.table)
        for trial in self.storage.folders(f"{self.name}/{TRIALS}"):
            fetch_newest(self.storage, self._trial(trial), self.folders.sweep / TRIALS / trial, without=(LAST,))
        self.storage.download(f"{self.name}/{self.folders.plan.name}", self.folders.plan)

    def _trial(self, trial: str) -> str:
        return f"{self.name}/{TRIALS}/{trial}"


def weights_name(file: str) -> str:
    """What a file of weights is called in the storage and in the caches of nodes: its content decides."""
    return f"{file_digest(Path(file))}-{Path(file).name}"

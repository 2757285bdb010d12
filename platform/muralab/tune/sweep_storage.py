"""A search's files in the storage of a cluster: what its trials read, and what they leave behind.

pixels/<squares>              decoded squares, for all searches of the same images
weights/<digest>-<file>       pretrained weights, likewise
sweeps/<run>/plan.json        what `resume` reads, and split.csv beside it
sweeps/<run>/owner.json       the command that works on it, see `sweep_owner`
sweeps/<run>/trials/<trial>   see `stored_epochs`
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tempfile
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muralab.data.dataset import Dataset
from muralab.errors import StorageError, StorageMissingError
from muralab.storage import Storage, patiently
from muralab.training.trainer import LAST
from muralab.training.weights import file_digest
from muralab.trial import TrialSpec
from muralab.tune.folders import PIXELS, SWEEPS, TRIALS, Folders
from muralab.tune.portable import to_local, to_portable
from muralab.tune.stored_epochs import fetch_epoch
from muralab.tune.sweep_owner import SweepOwner

WEIGHTS = "weights"
OUTAGE_S = 60.0
"""How long the command waits for a storage that does not answer; then it ends, and can be resumed."""


@dataclass(frozen=True, kw_only=True)
class SweepStorage:
    """The part of a storage that belongs to one search."""

    storage: Storage
    folders: Folders
    """Of the search on the command's machine."""
    owner: SweepOwner | None = None
    """The command's claim on the search; None where it has none."""

    @property
    def name(self) -> str:
        """The search's folder in the storage."""
        return f"{SWEEPS}/{self.folders.sweep.name}"

    def require_owner(self) -> None:
        """Make sure that no other command has taken the search over.

        Raises:
            SweepTakenError: one has.
        """
        if self.owner is not None:
            self.owner.require()

    def upload_inputs(self, specs: Iterable[TrialSpec], dataset: Dataset) -> None:
        """Upload the squares and weights that the trials read, except what the storage holds already.

        Raises:
            StorageError: it cannot be written.
        """
        for cache in dataset.caches.values():
            pixels = cache.path
            for file in (pixels.with_suffix(".json"), pixels):  # pixels last: whoever sees them finds the names
                self._upload_once(file, f"{PIXELS}/{file.name}")
        for weights in sorted({spec.weights for spec in specs if spec.weights}):
            self._upload_once(Path(weights), f"{WEIGHTS}/{weights_name(weights)}")

    def start(self) -> None:
        """Upload the split and the plan of a command that starts to work on the search, before it writes anything else.

        Raises:
            StorageError: they cannot be written.
        """
        self.upload(self.folders.table)
        self.upload_plan()

    def upload_plan(self, wait_s: float = OUTAGE_S) -> None:
        """Upload the plan as it is now, before anything depends on what has been added to it.

        Args:
            wait_s: how long a storage is waited for that does not answer.

        Raises:
            StorageError: it cannot be written.
        """
        self.upload(self.folders.plan, wait_s)

    def upload(self, file: Path, wait_s: float = OUTAGE_S) -> None:
        """Upload a file of the search's own folder; see `upload_plan`."""
        patiently(lambda: self.storage.upload(file, f"{self.name}/{file.name}"), wait_s)

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
        into = self._local(trial)
        patiently(lambda: fetch_epoch(self.storage, self._trial(trial), epoch, into, without=(LAST,)), OUTAGE_S)

    def trials(self) -> set[str]:
        """The trials that have left something.

        Raises:
            StorageError: the storage does not answer.
        """
        return set(self.storage.folders(f"{self.name}/{TRIALS}"))

    def fetch_ended(self, trial: str, epoch: int) -> None:
        """Fetch what a trial has left that ended after an epoch; of one that has been removed, nothing is left here.

        Raises:
            StorageUnavailableError: the storage does not answer.
        """
        try:
            self.fetch(trial, epoch)
        except StorageMissingError:
            shutil.rmtree(self._local(trial), ignore_errors=True)

    def forget(self, trial: str) -> None:
        """Remove what a trial has left; what cannot be removed stays until the search ends."""
        with contextlib.suppress(StorageError):
            self.storage.remove_folder(self._trial(trial))

    def remove(self) -> list[str]:
        """Remove the search's folder; the decoded squares and the weights stay for others.

        Returns:
            A note if something of it is still there: the search itself has ended well.
        """
        if self.owner is not None:
            self.owner.stop()
        try:
            self.storage.remove(f"{self.name}/{self.folders.plan.name}")  # first: half a search is never resumed
            self.storage.remove_folder(self.name)
        except StorageError as error:
            return [f"{error} Nothing needs {self.name} any more."]
        return []

    @property
    def is_known(self) -> bool:
        """Whether the storage holds a plan of the search.

        Raises:
            StorageError: the storage does not answer.
        """
        return self.storage.exists(f"{self.name}/{self.folders.plan.name}")

    def restore(self) -> None:
        """Bring an interrupted search to this machine, unless the command that worked on it last ran here.

        What an earlier command has left here is replaced: others may have trained, chosen and removed since. Files of
        trials are fetched when it is known which ones are needed (`fetch_ended`).

        Raises:
            StorageError: the storage does not answer.
        """
        stored = self.storage.read(f"{self.name}/{self.folders.plan.name}")
        with contextlib.suppress(OSError):
            if _attempt_of(stored) == _attempt_of(self.folders.plan.read_bytes()):
                return
        self.folders.sweep.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self.folders.sweep, prefix=".incoming-") as incoming:
            arrived = {file: Path(incoming) / file.name for file in (self.folders.table, self.folders.plan)}
            for file, new in arrived.items():
                self.storage.download(f"{self.name}/{file.name}", new)
            shutil.rmtree(self.folders.sweep / TRIALS, ignore_errors=True)  # what is here counts until all has arrived
            for file, new in arrived.items():
                new.replace(file)

    def _local(self, trial: str) -> Path:
        return self.folders.sweep / TRIALS / trial

    def _trial(self, trial: str) -> str:
        return f"{self.name}/{TRIALS}/{trial}"


def planned_storage(folders: Folders) -> str | None:
    """The storage that the plan of a search on this machine names; None without a plan, or without one in it."""
    try:
        options = json.loads(folders.plan.read_bytes())["options"]
        uri: str | None = to_local(options.get("storage"), folders)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):  # `read_plan` reports a damaged plan
        return None
    return uri


def _attempt_of(plan: bytes) -> str | None:
    """The command that wrote a plan; None for a damaged one."""
    try:
        return str(json.loads(plan).get("attempt", ""))
    except (ValueError, AttributeError):
        return None


def weights_name(file: str) -> str:
    """What a file of weights is called in the storage and in the caches of nodes: its content decides."""
    return f"{file_digest(Path(file))}-{Path(file).name}"

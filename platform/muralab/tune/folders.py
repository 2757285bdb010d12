"""Where a search keeps what is not in MLflow."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

PIXELS = "pixels"
"""Folder of decoded squares, below the cache."""
SWEEPS = "sweeps"
"""Folder of all searches, below the cache and in a storage."""
TRIALS = "trials"
"""Folder of a search's trials, below its own."""


@dataclass(frozen=True, kw_only=True)
class Folders:
    """The shared cache, and the search's own folder below it."""

    cache: Path
    """Decoded images and features, shared by all searches."""
    sweep: Path
    """Checkpoints, Ray's files and the plan of this search; removed when it ends."""

    @property
    def table(self) -> Path:
        """The split, for the workers."""
        return self.sweep / "split.csv"

    @property
    def plan(self) -> Path:
        """What `resume` reads."""
        return self.sweep / "plan.json"

    def of_run(self, run_id: str) -> Folders:
        """The folders of a run, so that `resume` finds them by its id."""
        return replace(self, sweep=self.cache / SWEEPS / run_id)

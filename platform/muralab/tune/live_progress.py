"""A search's own run while it runs: how far it is, what is best so far, how long it takes, and the machine's load."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime

from muralab.console import TrialRow, TrialTable, format_duration
from muralab.tracking import RunWriter, SystemLoad
from muralab.tracking.tags import Tag

EVERY_S = 15.0
"""A search's run is updated at most this often, so that a long one does not fill the store."""


@dataclass
class LiveProgress:
    """Writes into the run of a search while its trials run."""

    writer: RunWriter
    run: str
    table: TrialTable
    clock: Callable[[], float] = time.monotonic
    load: SystemLoad = field(default_factory=SystemLoad)
    _started: float | None = None
    """When this process began, less what an earlier one of a resumed search had logged."""
    _updated: float = -math.inf

    def tick(self) -> None:
        """Update the run if that has not been done for a while."""
        if self.clock() - self._updated >= EVERY_S:
            self.update()

    def update(self) -> None:
        """Write progress and load now; their step is the second of the search."""
        now = self._updated = self.clock()
        if self._started is None:
            self._started = now - self.writer.last_step(self.run, "progress/trials_done")
        rows, best = list(self.table.rows.values()), self._best()
        progress = {
            "progress/trials_done": float(sum(row.has_ended for row in rows)),
            "progress/epochs_done": float(sum(row.epoch for row in rows)),
            "progress/minutes_left": self.table.remaining_s() / 60,
        }
        if best is not None and best.best is not None:
            progress["progress/best_objective"] = best.best
        self.writer.log_epoch(self.run, round(now - self._started), progress | self.load.read())
        self.writer.set_tags(self.run, {Tag.NOTE: self.note()})

    def note(self) -> str:
        """The description of the run while it runs, in Markdown."""
        rows, best = list(self.table.rows.values()), self._best()
        done, failed = sum(row.has_ended for row in rows), sum(row.state == "failed" for row in rows)
        running = [
            f"`{row.name}` ({row.phase or 'starting'}, epoch {row.epoch} of {row.n_epochs}"
            f"{f', on {row.node}' if row.node else ''})"
            for row in rows
            if row.state == "running"
        ]
        lines = [
            f"**Running: {done} of {len(rows)} trials done**, about {format_duration(self.table.remaining_s())} left"
            f"{f'; {failed} failed' if failed else ''}. Written at {datetime.now():%H:%M:%S}.",
            "No trial has ended an epoch yet."
            if best is None
            else f"Best so far on validation: `{best.name}`, {self.table.objective} **{best.best:.3f}**.",
            f"Now: {', '.join(running) or 'workers are starting'}.",
        ]
        return "\n\n".join(lines)

    def _best(self) -> TrialRow | None:
        scored = [row for row in self.table.rows.values() if row.best is not None and not math.isnan(row.best)]
        return max(scored, key=lambda row: row.best or 0.0, default=None)

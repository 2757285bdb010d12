"""What a person sees while a sweep runs: a live table on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

QUIET_LINE_S = 30.0
"""Without a terminal, a line of overall progress this often."""
LEARNT_S = 5.0
"""Estimated seconds of work after which the pace itself is known."""
EXPECTED_SLOWNESS = 1.3
"""Before that: what trials that share a machine were seen to take of the time of one alone."""


@dataclass
class Row:
    """A trial as the table shows it."""

    name: str
    estimated_s: list[float]
    """Seconds of each planned epoch."""
    state: str = "waiting"
    epoch: int = 0
    phase: str = ""
    objective: float | None = None
    best: float | None = None
    started: float | None = None
    reported: float | None = None
    """When its last epoch ended."""
    worked: float = 0.0
    """Seconds that its epochs took."""
    seconds: float = 0.0

    @property
    def n_epochs(self) -> int:
        """Planned."""
        return len(self.estimated_s)

    @property
    def over(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in ("finished", "pruned", "failed", "stopped")

    def spent_s(self) -> tuple[float, float]:
        """Seconds that its epochs took so far, and what they were estimated to take."""
        return self.worked, sum(self.estimated_s[: self.epoch])

    def left_s(self, now: float, slowness: float) -> float:
        """Estimated seconds of work left, where epochs take `slowness` times what was estimated."""
        if self.over:
            return 0.0
        since = now - (self.reported or self.started or now)
        return max(0.0, slowness * sum(self.estimated_s[self.epoch :]) - since)


@dataclass
class Board:
    """The table of trials; all calls come from one thread."""

    rows: dict[str, Row]
    concurrent: int
    objective: str
    console: Any
    clock: Callable[[], float] = time.monotonic
    _live: Any = None
    _told: float = field(default=0.0)
    _drawn: float = field(default=0.0)

    def __enter__(self) -> Board:
        if self.console.is_terminal:
            from rich.live import Live

            self._live = Live(self.table(), console=self.console, auto_refresh=False, transient=False)
            self._live.start()
        self._told = self.clock()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.update(self.table(), refresh=True)
            self._live.stop()
            self._live = None
        elif self.rows:
            self.console.print(self.table())

    def started(self, name: str) -> None:
        """A trial is being worked on."""
        row = self.rows[name]
        row.state, row.started = "running", row.started or self.clock()

    def epoch(self, name: str, epoch: int, phase: str, objective: float, seconds: float = 0.0) -> None:
        """An epoch of a trial ended, which took so many seconds of training."""
        row, now = self.rows[name], self.clock()
        if phase != row.phase:
            row.best = None  # the best of a frozen phase is not what a trial is judged by
        if row.best is None or math.isnan(row.best) or objective > row.best:
            row.best = objective
        # A resumed trial repeats at once what it had done: those epochs took what they took then.
        row.worked += max(seconds, now - (row.reported or row.started or now))
        row.epoch, row.phase, row.objective, row.reported = epoch, phase, objective, now

    def ended(self, name: str, how: str, reason: str = "") -> None:
        """A trial ended."""
        row = self.rows[name]
        row.state = how
        row.seconds = self.clock() - (row.started or self.clock())
        if self._live is None:
            best = "" if row.best is None else f", {self.objective} {row.best:.3f}"
            why = f": {reason.strip().splitlines()[-1]}" if reason else ""
            done = sum(r.over for r in self.rows.values())
            self.console.print(
                f"[{done}/{len(self.rows)}] {name} {how} after {row.epoch} epochs, {clock(row.seconds)}{best}{why}",
                highlight=False,
                markup=False,
            )

    def tick(self) -> None:
        """Redraw the table, or now and then say how far things are."""
        now = self.clock()
        if self._live is not None:
            if now - self._drawn > 0.5:
                self._live.update(self.table(), refresh=True)
                self._drawn = now
        elif now - self._told > QUIET_LINE_S:
            self._told = now
            running = [
                f"{r.name} {r.phase or 'starting'} {r.epoch}/{r.n_epochs}"
                + ("" if r.objective is None else f" ({r.objective:.3f})")
                for r in self.rows.values()
                if r.state == "running"
            ]
            self.console.print(
                f"... about {clock(self.left_s())} left; " + ("; ".join(running) or "starting workers"),
                highlight=False,
                markup=False,
            )

    def left_s(self) -> float:
        """Estimated seconds until the last trial ends."""
        now, slowness = self.clock(), self.slowness()
        left = [row.left_s(now, slowness) for row in self.rows.values()]
        return max(sum(left) / max(1, self.concurrent), max(left, default=0.0))

    def slowness(self) -> float:
        """How much longer epochs take than estimated: trials share a machine that was idle when it was timed."""
        pairs = [row.spent_s() for row in self.rows.values()]
        spent, estimated = sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs)
        return spent / estimated if estimated > LEARNT_S else EXPECTED_SLOWNESS

    def table(self) -> Any:
        """A rich table, a row a trial."""
        from rich.table import Table

        done = sum(row.over for row in self.rows.values())
        table = Table(
            title=f"{done} of {len(self.rows)} trials ended, about {clock(self.left_s())} left"
            if done < len(self.rows)
            else f"{done} trials",
            title_justify="left",
        )
        for heading in ("trial", "state", "phase", "epoch", self.objective, "best"):
            table.add_column(heading, justify="left" if heading in ("trial", "state", "phase") else "right")
        colours = {"running": "cyan", "finished": "green", "pruned": "yellow", "failed": "red", "stopped": "yellow"}
        for row in self.rows.values():
            colour = colours.get(row.state, "dim")
            table.add_row(
                row.name,
                f"[{colour}]{row.state}[/]",
                row.phase,
                f"{_bar(row.epoch, row.n_epochs)} {row.epoch:>3}/{row.n_epochs}",
                "" if row.objective is None else f"{row.objective:.3f}",
                "" if row.best is None else f"{row.best:.3f}",
            )
        return table


def _bar(done: int, total: int, width: int = 12) -> str:
    filled = round(width * done / total) if total else 0
    return "━" * filled + "╌" * (width - filled)


def clock(seconds: float) -> str:
    """Seconds as a person says them: 45 s, 3 min, 2 h 10 min."""
    if seconds < 90:
        return f"{round(seconds)} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def build_console() -> Any:
    """Standard output; as wide as the terminal, or 120 columns."""
    import os
    import sys

    from rich.console import Console

    return Console(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 120, soft_wrap=False)


def build_progress(console: Any) -> Callable[[str], Callable[[int, int], None]]:
    """Progress of long steps: one line that is rewritten on a terminal, first and last elsewhere."""

    def task(title: str) -> Callable[[int, int], None]:
        said: dict[str, float] = {}

        def tell(done: int, total: int) -> None:
            now = time.monotonic()
            if console.is_terminal and (done == total or now - said.get("at", 0) > 0.2):
                said["at"] = now
                console.print(f"{title}: {done:,} of {total:,}", end="\n" if done == total else "\r", highlight=False)
            elif not console.is_terminal and not said:
                said["at"] = now
                console.print(f"{title}: {total:,}", highlight=False)

        return tell

    return task

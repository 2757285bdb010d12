"""Terminal output: a live table of trials where there is a terminal, plain lines elsewhere; durations; progress."""

from __future__ import annotations

import heapq
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from muralab.heartbeat import beat

PLAIN_LINE_EVERY_S = 10.0
"""Without a terminal, progress is printed this often."""
MEASURED_AFTER_S = 5.0
"""Seconds of estimated work after which the measured slowdown is used."""
MOST_ROWS = 60
"""Of the table of trials: it is redrawn twice a second, and has to fit on a screen."""
EXPECTED_SLOWDOWN = 1.3
"""Before that: measured for trials that share a machine, relative to one alone."""


@dataclass
class TrialRow:
    """One trial in the table."""

    name: str
    estimated_s: list[float]
    """Seconds of each planned epoch."""
    over_phases: bool = True
    """Whether `best` is over both phases; if not, of the current one."""
    node: str = ""
    """Where it runs, on a cluster."""
    state: str = "waiting"
    epoch: int = 0
    phase: str = ""
    objective: float | None = None
    best: float | None = None
    started: float | None = None
    reported: float | None = None
    """Time at which its last epoch ended."""
    worked_s: float = 0.0
    """Seconds that its epochs have taken."""
    seconds: float = 0.0

    @property
    def n_epochs(self) -> int:
        """Planned."""
        return len(self.estimated_s)

    @property
    def has_ended(self) -> bool:
        """Whether nothing more will happen to it."""
        return self.state in ("finished", "pruned", "failed", "stopped")

    def spent_s(self) -> tuple[float, float]:
        """Seconds that its epochs have taken so far, and what was estimated for them."""
        return self.worked_s, sum(self.estimated_s[: self.epoch])

    def remaining_s(self, now: float, slowdown: float) -> float:
        """Estimated seconds of work left, if epochs take `slowdown` times what was estimated."""
        if self.has_ended:
            return 0.0
        since = now - (self.reported or self.started or now)
        running, later = self.estimated_s[self.epoch : self.epoch + 1], self.estimated_s[self.epoch + 1 :]
        # An epoch that takes longer than estimated uses up its own time only, not that of the later ones.
        return max(0.0, slowdown * sum(running) - since) + slowdown * sum(later)


@dataclass
class TrialTable:
    """The table of trials; all calls come from one thread."""

    rows: dict[str, TrialRow]
    concurrent: int
    objective: str
    console: Any
    clock: Callable[[], float] = time.monotonic
    _live: Any = None
    _n_ended: int = field(init=False)
    """Kept, since a search of thousands of trials prints it with each."""
    _printed_at: float = field(default=0.0)
    _drawn_at: float = field(default=0.0)

    def __post_init__(self) -> None:
        self._n_ended = sum(row.has_ended for row in self.rows.values())

    def __enter__(self) -> TrialTable:
        if self.console.is_terminal:
            from rich.live import Live

            self._live = Live(self.table(), console=self.console, auto_refresh=False, transient=False)
            self._live.start()
        self._printed_at = self.clock()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.update(self.table(), refresh=True)
            self._live.stop()
            self._live = None
        elif self.rows:
            self.console.print(self.table())

    def print(self, text: str) -> None:
        """Print a line above the table."""
        self.console.print(text, highlight=False, markup=False, soft_wrap=True)

    def started(self, name: str) -> None:
        """A trial is running."""
        row = self.change(name, "running")
        row.started = row.started or self.clock()

    def change(self, name: str, state: str) -> TrialRow:
        """Set the state of a trial; returns its row."""
        row = self.rows[name]
        before, row.state = row.has_ended, state
        self._n_ended += row.has_ended - before
        return row

    def placed(self, name: str, node: str) -> None:
        """A trial runs on a node of a cluster."""
        self.rows[name].node = node

    def epoch(self, name: str, epoch: int, phase: str, objective: float, seconds: float = 0.0) -> None:
        """An epoch of a trial ended; `seconds` of training."""
        row, now = self.rows[name], self.clock()
        if phase != row.phase and not row.over_phases:
            row.best = None
        if row.best is None or math.isnan(row.best) or objective > row.best:
            row.best = objective
        # A resumed trial repeats its old epochs at once; they count with the time that they took then.
        row.worked_s += max(seconds, now - (row.reported or row.started or now))
        row.epoch, row.phase, row.objective, row.reported = epoch, phase, objective, now

    def ended(self, name: str, how: str, reason: str = "") -> None:
        """A trial ended."""
        row = self.change(name, how)
        row.seconds = self.clock() - (row.started or self.clock())
        if self._live is None:
            best = "" if row.best is None else f", {self.objective} {row.best:.3f}"
            why = f": {reason.strip().splitlines()[-1]}" if reason else ""
            where, took = f" on {row.node}" if row.node else "", format_duration(row.seconds)
            self.console.print(
                f"[{self._n_ended}/{len(self.rows)}] {name} {how}{where} after {row.epoch} epochs, {took}{best}{why}",
                highlight=False,
                markup=False,
            )

    def tick(self) -> None:
        """Redraw the table, or print overall progress now and then."""
        now = self.clock()
        if self._live is not None:
            if now - self._drawn_at > 0.5:
                self._live.update(self.table(), refresh=True)
                self._drawn_at = now
        elif now - self._printed_at > PLAIN_LINE_EVERY_S:
            self._printed_at = now
            running = [
                f"{r.name} {r.phase or 'starting'} {r.epoch}/{r.n_epochs}{f' on {r.node}' if r.node else ''}"
                + ("" if r.objective is None else f" ({r.objective:.3f})")
                for r in self.rows.values()
                if r.state == "running"
            ]
            left = f"about {format_duration(self.remaining_s())} {'left' if self._has_begun() else 'to train'}"
            self.console.print(
                f"... {left}; " + ("; ".join(running) or "starting workers"),
                highlight=False,
                markup=False,
            )

    def _has_begun(self) -> bool:
        """Whether anything is trained; the estimate does not cover the start of the workers before that."""
        return any(row.epoch or row.has_ended for row in self.rows.values())

    def remaining_s(self) -> float:
        """Estimated seconds until the last trial ends."""
        now, slowdown = self.clock(), self.slowdown()
        left = [row.remaining_s(now, slowdown) for row in self.rows.values()]
        return max(sum(left) / max(1, self.concurrent), max(left, default=0.0))

    def slowdown(self) -> float:
        """How much longer epochs take than estimated: trials share a machine that was idle when it was timed."""
        pairs = [row.spent_s() for row in self.rows.values()]
        spent, estimated = sum(pair[0] for pair in pairs), sum(pair[1] for pair in pairs)
        return spent / estimated if estimated > MEASURED_AFTER_S else EXPECTED_SLOWDOWN

    def table(self) -> Any:
        """A rich table with one row per trial; of very many, those that run and the best."""
        done = self._n_ended
        left = f"{done} of {len(self.rows)} trials ended, about {format_duration(self.remaining_s())} left"
        table = narrow_table(
            f"{left if done < len(self.rows) else f'{done} trials'}; {self.objective}: last epoch, best"
        )
        on_nodes = any(row.node for row in self.rows.values())
        for heading in ("trial", "state", *(["node"] if on_nodes else []), "phase", "epoch", "last", "best"):
            is_text = heading in ("trial", "state", "node", "phase")
            table.add_column(heading, justify="left" if is_text else "right", no_wrap=True)
        colours = {"running": "cyan", "finished": "green", "pruned": "yellow", "failed": "red", "stopped": "yellow"}
        shown = self._shown_rows()
        if len(shown) < len(self.rows):
            table.caption = f"{len(self.rows) - len(shown):,} more trials are not shown"
            table.caption_justify = "left"
        for row in shown:
            colour = colours.get(row.state, "dim")
            table.add_row(
                row.name,
                f"[{colour}]{row.state}[/]",
                *([row.node] if on_nodes else []),
                row.phase,
                f"{_bar(row.epoch, row.n_epochs, _glyphs(self.console))} {row.epoch:>3}/{row.n_epochs}",
                "" if row.objective is None else f"{row.objective:.3f}",
                "" if row.best is None else f"{row.best:.3f}",
            )
        return table

    def _shown_rows(self) -> list[TrialRow]:
        rows = list(self.rows.values())
        if len(rows) <= MOST_ROWS:
            return rows

        def rank(row: TrialRow) -> tuple[bool, float]:
            unknown = row.best is None or math.isnan(row.best)
            return row.state != "running", math.inf if unknown else -(row.best or 0.0)

        names = {row.name for row in heapq.nsmallest(MOST_ROWS, rows, key=rank)}
        return [row for row in rows if row.name in names]


def narrow_table(title: str) -> Any:
    """A rich table without frames, for terminals of 80 columns."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    return Table(title=title, title_justify="left", box=SIMPLE_HEAD, pad_edge=False)


def _bar(done: int, total: int, glyphs: str, width: int = 12) -> str:
    filled = round(width * done / total) if total else 0
    return glyphs[0] * filled + glyphs[1] * (width - filled)


def _glyphs(console: Any) -> str:
    """A filled and an empty cell of a bar, in characters that the output can show."""
    return "━╌" if str(console.encoding).lower().startswith("utf") else "#-"


def format_duration(seconds: float) -> str:
    """45 s, 3 min, 2 h 10 min."""
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
    """Progress of long steps: a line that is rewritten on a terminal, a single line elsewhere."""

    def task(title: str) -> Callable[[int, int], None]:
        printed: dict[str, float] = {}

        def show(done: int, total: int) -> None:
            beat(title, done, total)
            now = time.monotonic()
            if console.is_terminal and (done == total or now - printed.get("at", 0) > 0.2):
                printed["at"] = now
                console.print(f"{title}: {done:,} of {total:,}", end="\n" if done == total else "\r", highlight=False)
            elif not console.is_terminal and not printed:
                printed["at"] = now
                console.print(f"{title}: {total:,}", highlight=False)

        return show

    return task

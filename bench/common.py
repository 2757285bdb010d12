"""Shared by all benchmarks: rows of the results table, interleaved measurements, and the command line.

A benchmark is a module with `measure(options) -> list[Row]`. Both sides of a ratio are measured in one run, in turn, so
that a busy machine slows both down; the spread of a ratio is over the rounds.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Options:
    """Options of a benchmark."""

    full: bool = False
    """More rounds and larger inputs, as in `make bench-full`."""
    weights: str = "auto"
    """Pretrained weights, where a benchmark can use them: `auto`, `none` or a file."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """One row of the table: one question, and whether its target is met."""

    what: str
    ours: str
    """Our figure, as text."""
    theirs: str
    """The figure of the other side, or a limit."""
    ratio: float
    """Ours over theirs where less is better (`at_most`), otherwise as `what` describes."""
    spread: tuple[float, float] | None = None
    """Lowest and highest ratio of the rounds; None after a single round."""
    at_least: float | None = None
    at_most: float | None = None
    """The target, a range if both are given; without a target the row is informative."""
    note: str = ""

    @property
    def met(self) -> bool | None:
        """Whether the ratio reaches its target; None without a target or a measurement."""
        if math.isnan(self.ratio) or (self.at_least is None and self.at_most is None):
            return None
        low, high = self.at_least, self.at_most
        return (low is None or self.ratio >= low) and (high is None or self.ratio <= high)

    def cells(self) -> list[str]:
        """The row as text."""
        limits = ((">=", self.at_least), ("<=", self.at_most))
        target = ", ".join(f"{sign} {limit:g}" for sign, limit in limits if limit is not None)
        if math.isnan(self.ratio):
            return [self.what, NOT_MEASURED, self.theirs, "", "", target, ""]
        spread = "one run" if self.spread is None else f"{short(self.spread[0])} to {short(self.spread[1])}"
        met = {None: "", True: "yes", False: "NO"}[self.met]
        return [self.what, self.ours, self.theirs, short(self.ratio), spread, target, met]


NOT_MEASURED = "not measured"
HEADINGS = ("what", "ours", "theirs or the limit", "ratio", "spread", "target", "met")


def short(number: float) -> str:
    """Three significant digits, without an exponent for common magnitudes."""
    return f"{number:.3f}" if 0.01 <= abs(number) < 10 else f"{number:.3g}"


def table(rows: Sequence[Row], *, markdown: bool = False) -> str:
    """The rows as an aligned table, with notes below it."""
    cells = [list(HEADINGS), *(row.cells() for row in rows)]
    widths = [max(len(row[i]) for row in cells) for i in range(len(HEADINGS))]
    edge = "| " if markdown else ""
    lines = [
        edge + (" | " if markdown else "  ").join(text.ljust(width) for text, width in zip(row, widths)) + edge[::-1]
        for row in cells
    ]
    rule = "|" + "|".join("-" * (width + 2) for width in widths) + "|" if markdown else "-" * len(lines[0])
    notes = [f"{'- ' if markdown else '  '}{row.what}: {row.note}" for row in rows if row.note]
    return "\n".join([line.rstrip() for line in [lines[0], rule, *lines[1:]]] + ([""] if notes else []) + notes)


def interleave(sides: Mapping[str, Callable[[], float]], rounds: int, *, warm_up: int = 1) -> dict[str, list[float]]:
    """Measure all sides in every round, in alternating order.

    Args:
        sides: name -> function that returns its figure.
        rounds: number of rounds that count.
        warm_up: number of earlier rounds that do not count.

    Returns:
        Name -> one figure per round.
    """
    figures: dict[str, list[float]] = {name: [] for name in sides}
    for number in range(-warm_up, rounds):
        names = list(sides) if number % 2 else list(sides)[::-1]
        for name in names:
            figure = sides[name]()
            if number >= 0:
                figures[name].append(figure)
    return figures


def seconds(work: Callable[[], object]) -> float:
    """Wall time of a call, in seconds."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def cpu_seconds(work: Callable[[], object]) -> float:
    """CPU time of a call in this process, in seconds: for a single thread, its wall time on an idle machine."""
    started = time.process_time()
    work()
    return time.process_time() - started


def memory_mib(field: str, process: int | str = "self") -> float:
    """Resident memory of a process: `VmRSS` now, `VmHWM` at its peak; in MiB.

    Raises:
        OSError: the process has ended.
    """
    lines = Path(f"/proc/{process}/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(field)) / 1024


def ratios(ours: Sequence[float], theirs: Sequence[float]) -> tuple[float, tuple[float, float]]:
    """Median and range of the ratios of the rounds."""
    each = [a / b for a, b in zip(ours, theirs, strict=True)]
    return statistics.median(each), (min(each), max(each))


def build_parser(description: str | None) -> argparse.ArgumentParser:
    """The options that a benchmark and the runner of all benchmarks share."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--full", action="store_true", help="more rounds and larger inputs, as in `make bench-full`")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    parser.add_argument("--weights", default="auto", help="pretrained weights: auto, none or a file")
    return parser


def run(measure: Callable[[Options], list[Row]], description: str | None) -> None:
    """Run a benchmark from the command line: `python -m bench.<name> [--full] [--weights FILE] [--json <file>]`."""
    given = build_parser(description).parse_args()
    rows = measure(Options(full=given.full, weights=given.weights))
    if given.json:
        given.json.write_text(json.dumps([asdict(row) for row in rows]), encoding="utf-8")
    print(table(rows))


def read_rows(path: Path) -> list[Row]:
    """Read rows that `--json` wrote."""
    return [Row(**{**row, "spread": row["spread"] and tuple(row["spread"])}) for row in json.loads(path.read_text())]

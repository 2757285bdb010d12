"""A table as the page shows it: cells with numbered footnotes, so that every dash has its reason."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field

import pandas as pd

from muralab.evaluation.intervals import Interval
from muralab.report.sentences import bounds, number

DASH = "–"
LONG = 24
"""Text of more characters than this may be wrapped."""


@dataclass(frozen=True, kw_only=True)
class Cell:
    """Text, optionally with a smaller second line and the number of a footnote."""

    text: str
    small: str = ""
    note: int = 0
    css: str = ""


Row = list[Cell]


@dataclass(frozen=True, kw_only=True)
class Group:
    """Rows under one heading."""

    rows: Sequence[Row]
    heading: str = ""
    remark: str = ""
    css: str = ""


@dataclass(kw_only=True)
class Table:
    """What the template renders. Cells are created by the table, which collects their footnotes."""

    columns: Sequence[str]
    groups: list[Group] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    spans: Sequence[tuple[str, int]] = ()
    """A first header row: text and how many columns it spans."""
    left: Collection[int] = (0,)
    """Columns of text, aligned left."""
    caption: str = ""

    def text(self, value: object, css: str = "") -> Cell:
        """A cell of text."""
        return Cell(text=str(value), css=css)

    def value(self, value: float, reason: str, digits: int = 3, *, note: str = "") -> Cell:
        """A number, with a footnote where there is a note, or a dash whose footnote is the reason."""
        if math.isnan(value):
            return Cell(text=DASH, note=self.footnote(reason))
        return Cell(text=number(value, digits), note=self.footnote(note) if note else 0)

    def interval(self, interval: Interval | None, reason: str) -> Cell:
        """An estimate above its bounds, or a dash whose footnote is the reason."""
        if interval is None or math.isnan(interval.estimate):
            return Cell(text=DASH, note=self.footnote((interval and interval.reason) or reason))
        note = self.footnote(interval.reason) if interval.reason else 0
        return Cell(text=number(interval.estimate), small=bounds(interval), note=note)

    def footnote(self, reason: str) -> int:
        """The number of a footnote, which is added unless it exists."""
        reason = reason.strip() or "unknown"
        if reason not in self.notes:
            self.notes.append(reason)
        return self.notes.index(reason) + 1


def frame_table(frame: pd.DataFrame, *, caption: str = "", limit: int = 200) -> Table:
    """Any small data frame as a table; numeric columns are aligned right.

    Args:
        frame: its index is not shown.
        caption: above the table.
        limit: rows beyond it are counted in a footnote instead.
    """
    table = Table(columns=[str(name).replace("_", " ") for name in frame.columns], caption=caption)
    table.left = [i for i, name in enumerate(frame.columns) if not pd.api.types.is_numeric_dtype(frame[name])]
    rows = [[_plain(table, value) for value in row] for row in frame.head(limit).itertuples(index=False)]
    table.groups.append(Group(rows=rows))
    if len(frame) > limit:
        table.footnote(f"{len(frame) - limit:,} more rows are not shown")
    return table


def _plain(table: Table, value: object) -> Cell:
    if isinstance(value, float):
        return table.value(value, "no value was recorded") if not value.is_integer() else table.text(f"{value:,.0f}")
    if isinstance(value, int):
        return table.text(f"{value:,}")
    return table.text(value, "wrap" if len(str(value)) > LONG else "")

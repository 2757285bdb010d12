"""How a trial has ended, on disk beside its weights, before the store hears of it.

The store may be down, and this process may be killed between any two writes. A resumed search reads these files: such a
trial is not trained again, and what the store lacks of it is written then.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from muralab.atomic import atomic_path

NAME = "ended.json"


@dataclass(frozen=True, kw_only=True)
class TrialEnding:
    """How a trial ended, and the metrics of all its epochs."""

    how: str
    """finished, pruned or stopped."""
    history: Sequence[Mapping[str, float]]


def write_ending(folder: Path, ending: TrialEnding) -> None:
    """Write how a trial ended; it is on disk when this returns."""
    folder.mkdir(parents=True, exist_ok=True)
    with atomic_path(folder / NAME, sync=True) as path:
        path.write_text(json.dumps(asdict(ending), default=float), encoding="utf-8")


def read_ending(folder: Path) -> TrialEnding | None:
    """How a trial ended; None if it has not, or if the file is damaged: it is then trained again."""
    try:
        return TrialEnding(**json.loads((folder / NAME).read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        return None

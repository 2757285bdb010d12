"""One image file to be answered, and the study that it belongs to."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, kw_only=True)
class Item:
    """One image file."""

    path: Path
    name: str
    """Path below the requested folder, with slashes."""
    study: str
    """Equal for the views of one study."""
    n_bytes: int = 0

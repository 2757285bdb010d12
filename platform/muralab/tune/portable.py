"""Paths in a plan: relative to what moves with it, so that a moved cache folder or checkout can resume.

A path below one of the anchors is stored as `{anchor}/rest`; any other path is stored as it is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import muralab
from muralab.tune.folders import Folders


def to_portable(value: Any, folders: Folders) -> Any:
    """Replace the start of every path in a JSON value that lies below an anchor."""
    return _replace(value, [(str(path), name) for name, path in _anchors(folders).items()])


def to_local(value: Any, folders: Folders) -> Any:
    """The opposite of `to_portable`, with the anchors as they are now."""
    return _replace(value, [(name, str(path)) for name, path in _anchors(folders).items()])


def _anchors(folders: Folders) -> dict[str, Path]:
    """Name -> folder, the inner ones first."""
    return {"{sweep}": folders.sweep, "{cache}": folders.cache, "{checkout}": Path(muralab.__file__).parents[2]}


def _replace(value: Any, starts: list[tuple[str, str]]) -> Any:
    if isinstance(value, dict):
        return {key: _replace(one, starts) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_replace(one, starts) for one in value]
    if isinstance(value, str):
        for before, after in starts:
            if value == before or value.startswith(f"{before}/"):
                return after + value.removeprefix(before)
    return value

"""Pictures that lie beside those of a list or manifest and are not named in it: it may be older than its folders."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from muralab.data.scan import FoundPicture, classify, find_heat_maps, spell
from muralab.errors import numbered


def unnamed_note(file: Path, paths: Iterable[str]) -> list[str]:
    """One note that counts and names the pictures in the folders of a table's images that it does not name, if any.

    Args:
        file: the table.
        paths: of all its images; only their own folders are looked through.
    """
    named: dict[str, set[str]] = defaultdict(set)
    for path in paths:
        folder, _, name = path.rpartition("/")
        named[folder].add(name)
    unnamed = [path for folder, names in sorted(named.items()) for path in _others(folder, names)]
    if not unnamed:
        return []
    heading = f"{file.name} does not name {len(unnamed):,} pictures in the folders of its images; they are not used:"
    return [numbered(heading, [spell(path) for path in unnamed])]


def _others(folder: str, names: set[str]) -> list[str]:
    """The pictures of a folder that are not among some names, sorted."""
    try:
        with os.scandir(folder) as entries:
            listed = {entry.name for entry in entries if not entry.name.startswith(".") and entry.is_file()}
    except OSError:  # the images in it are reported as missing
        return []
    others = sorted(listed - names - find_heat_maps(listed))
    paths = [f"{folder}/{name}" for name in others]
    return [path for path in paths if isinstance(classify(path, path, headers=False), FoundPicture)]

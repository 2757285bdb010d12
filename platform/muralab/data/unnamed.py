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
        listed = os.listdir(folder)  # noqa: PTH208  (a Path per file costs more than the call)
    except OSError:  # the images in it are reported as missing
        return []
    others = {name for name in listed if name not in names and not name.startswith(".")}
    if not others:
        return []
    paths = [f"{folder}/{name}" for name in sorted(others - find_heat_maps(listed))]
    files = [path for path in paths if os.path.isfile(path)]  # noqa: PTH113
    return [path for path in files if isinstance(classify(path, path, headers=False), FoundPicture)]

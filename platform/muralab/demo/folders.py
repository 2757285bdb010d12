"""Folders of synthetic data that are complete or absent."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path

from muralab.demo.dataset import MARKER_NAME, NOTICE_NAME, VERSION, is_complete
from muralab.errors import DataError

_NOTICE = """SYNTHETIC DATA - NOT RADIOGRAPHS OF PEOPLE

Every picture in this folder was drawn by a program (muralab, demo version {version}, seed {seed}). No patient is behind
the names in its tables. It is there so that the platform can be tried without real data.
Nothing measured on it says anything about medicine.
"""


def write_folder(folder: Path, *, layout: str, seed: int, n_images: int | None, write: Callable[[Path], None]) -> Path:
    """Write synthetic data into a new folder, unless the same data are there, and return its absolute path.

    Args:
        folder: created; it holds nothing else.
        layout: of the data.
        seed: of everything drawn.
        n_images: how many pictures; None: as many as the layout has.
        write: writes the data into the folder that it is given.

    Raises:
        DataError: the folder cannot be written, or holds something else.
    """
    folder = Path(folder).absolute()
    marker = json.dumps({"version": VERSION, "seed": seed, "layout": layout, "images": n_images})
    if is_complete(folder, marker):
        return folder
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise DataError(f"{folder} exists and holds other data than this demo. Give a new folder, or remove it.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        draft = Path(tempfile.mkdtemp(prefix=".demo-", dir=folder.parent))
        try:
            draft.chmod(0o755)
            write(draft)
            (draft / NOTICE_NAME).write_text(_NOTICE.format(version=VERSION, seed=seed), encoding="utf-8")
            (draft / MARKER_NAME).write_text(marker, encoding="utf-8")
            draft.replace(folder)  # an empty folder may be replaced
        finally:
            shutil.rmtree(draft, ignore_errors=True)
    except OSError as error:
        raise DataError(f"The demo data cannot be written to {folder}: {error.strerror or error}.") from error
    return folder

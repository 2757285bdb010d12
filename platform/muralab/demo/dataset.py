"""A synthetic MURA-v1.1 tree, for trying the platform without the real data.

The images are drawn by a program: they say nothing about patients, and no metric measured on them says anything about
medicine. The layout and the CSV files are those of MURA v1.1 (Rajpurkar et al. 2018, arXiv:1712.06957).
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import astuple
from pathlib import Path

import numpy as np
import psutil

from muralab.demo.plan import PARTS, PartPlan, StudyPlan, plan_images, plan_studies
from muralab.demo.views import render_view
from muralab.errors import DataError
from muralab.paths import cache_folder
from muralab.threads import map_in_threads

VERSION = 2
ROOT_NAME = "MURA-v1.1"
MARKER_NAME = ".muralab-demo.json"
NOTICE_NAME = "SYNTHETIC.txt"
_NOTICE = """SYNTHETIC DATA - NOT RADIOGRAPHS OF PEOPLE

Every picture below this folder was drawn by a program (muralab, demo version {version}, seed {seed}). No patient is
behind "patient00001". The tree has the form of MURA v1.1 so that the platform can be tried without the real data.
Nothing measured on it says anything about medicine.
"""


def default_folder(seed: int = 0) -> Path:
    """Folder in the user's cache for the demo of a seed; it may not exist yet."""
    return cache_folder() / f"demo-v{VERSION}-seed{seed}"


def is_synthetic(root: Path) -> bool:
    """Whether a tree was drawn by `write_demo`, even if it was moved since."""
    return (root / NOTICE_NAME).is_file()


def write_demo(
    folder: Path,
    *,
    seed: int = 0,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    n_images: int | None = None,
    parts: Sequence[PartPlan] = PARTS,
) -> Path:
    """Write the synthetic tree into a folder, unless it exists, and return its root.

    The files depend only on the seed and the parts. A complete tree is reused; a tree of another seed or version, or an
    incomplete one, is replaced. Two processes may write at the same time: each writes its own tree, the first stays.

    Args:
        folder: the parent of the tree "MURA-v1.1"; created if missing.
        seed: of everything drawn.
        workers: drawing threads; None takes one per core.
        progress: called with (studies written, studies in total), in the calling thread.
        n_images: how many pictures in all; None: as many as the parts say.
        parts: how much of each part to draw.

    Raises:
        DataError: the folder cannot be written, or contains a "MURA-v1.1" that is not a demo.
    """
    root = Path(folder) / ROOT_NAME
    marker = _marker_text(seed, parts, n_images)
    if is_complete(root, marker):
        return root
    if root.exists() and not is_synthetic(root):
        raise DataError(
            f"{root} is not a demo tree, and the demo will not overwrite it. Give another folder, or move that one."
        )
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        for abandoned in find_drafts(root.parent):
            shutil.rmtree(abandoned, ignore_errors=True)
        draft = Path(tempfile.mkdtemp(prefix=_draft_prefix(".demo-"), dir=root.parent))
    except OSError as error:
        raise DataError(
            f"The demo data cannot be written to {folder}: {error.strerror}. Give a folder that you can write to."
        ) from error
    try:
        draft.chmod(0o755)
        _write_tree(draft, plan_images(parts, seed, n_images), seed=seed, workers=workers, progress=progress)
        (draft / MARKER_NAME).write_text(marker, encoding="utf-8")
        _put_in_place(draft, root, marker)
    except OSError as error:
        raise DataError(f"The demo data cannot be written to {folder}: {error.strerror}.") from error
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    return root


def find_drafts(folder: Path) -> list[Path]:
    """What processes of this host that have ended left in the folder of a demo: half-drawn or replaced trees."""
    host = re.escape(socket.gethostname())
    form = re.compile(rf"\.(?:demo|stale)-{host}-(\d+)-.*")
    drafts = [(path, form.fullmatch(path.name)) for path in folder.glob(".*") if path.is_dir()]
    return sorted(path for path, match in drafts if match and not psutil.pid_exists(int(match[1])))


def _draft_prefix(kind: str) -> str:
    return f"{kind}{socket.gethostname()}-{os.getpid()}-"


def example_study(seed: int = 0) -> list[bytes]:
    """Two PNG files of one synthetic wrist study that shows a finding."""
    study = next(study for study in plan_studies(PARTS[:1], seed) if study.finding and study.n_views >= 2)
    return [data for _, data in zip(range(2), draw_views(study))]


def _marker_text(seed: int, parts: Sequence[PartPlan], n_images: int | None) -> str:
    digest = hashlib.sha256(repr([astuple(part) for part in parts]).encode()).hexdigest()[:16]
    extra = {} if n_images is None else {"images": n_images}
    return json.dumps({"version": VERSION, "seed": seed, "parts": digest, **extra})


def is_complete(root: Path, marker: str) -> bool:
    """Whether a folder holds the data that a marker describes."""
    try:
        return (root / MARKER_NAME).read_text(encoding="utf-8") == marker
    except OSError:
        return False


def draw_views(study: StudyPlan) -> Iterator[bytes]:
    """The views of a study as PNG files, in order."""
    seeds = np.random.SeedSequence(study.seed).spawn(study.n_views)
    for view, seed in enumerate(seeds):
        yield render_view(
            study.part, patient_seed=study.patient_seed, finding=study.finding, view=study.first_view + view, seed=seed
        )


def _write_study(root: Path, study: StudyPlan) -> None:
    folder = root / study.folder
    folder.mkdir(parents=True)
    for number, data in enumerate(draw_views(study), start=1):
        (folder / f"image{number}.png").write_bytes(data)


def _write_tree(
    root: Path,
    studies: Sequence[StudyPlan],
    *,
    seed: int,
    workers: int | None,
    progress: Callable[[int, int], None] | None,
) -> None:
    (root / NOTICE_NAME).write_text(_NOTICE.format(version=VERSION, seed=seed), encoding="utf-8")
    with closing(map_in_threads(lambda study: _write_study(root, study), studies, workers=workers)) as written:
        for done, _ in enumerate(written, start=1):
            if progress is not None:
                progress(done, len(studies))
    for split in ("train", "valid"):
        _write_csvs(root, split, [study for study in studies if study.split == split])


def _write_csvs(root: Path, split: str, studies: Sequence[StudyPlan]) -> None:
    """Write one split's two lists in MURA's format: no header, paths from the root's name, studies end in a slash."""
    images = [
        f"{ROOT_NAME}/{study.folder}/image{number}.png" for study in studies for number in range(1, study.n_views + 1)
    ]
    labels = [f"{ROOT_NAME}/{study.folder}/,{study.label}" for study in studies]
    for name, lines in (("image_paths", images), ("labeled_studies", labels)):
        (root / f"{split}_{name}.csv").write_text("".join(line + "\n" for line in lines), encoding="utf-8")


def _put_in_place(draft: Path, root: Path, marker: str) -> None:
    """Rename the draft to the root, unless another process completed its own meanwhile."""
    for _ in range(10):
        if is_complete(root, marker):
            return
        if root.exists():
            stale = Path(tempfile.mkdtemp(prefix=_draft_prefix(".stale-"), dir=root.parent))
            try:
                root.rename(stale / ROOT_NAME)
            except FileNotFoundError:  # another process moved it away first
                pass
            finally:
                shutil.rmtree(stale, ignore_errors=True)
        try:
            draft.rename(root)
        except OSError:  # another process renamed its own tree to it just now
            continue
        return
    raise DataError(f"Other processes keep changing {root}. Wait until they end and try again.")

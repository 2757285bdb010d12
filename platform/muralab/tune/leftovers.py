"""What ended commands have left in the cache: searches that can be resumed, and folders that nobody needs."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from muralab.demo.dataset import find_drafts
from muralab.tune.folders import SWEEPS, Folders
from muralab.tune.portable import to_local
from muralab.tune.resume import FOLDS_FILE
from muralab.tune.resume_command import resume_command
from muralab.tune.sweep_lock import is_locked

REMOVED = ".removed-"
"""What the name of a folder begins with while it is removed."""


@dataclass(frozen=True, kw_only=True)
class Interrupted:
    """A search that has a plan, and whose process has ended."""

    run_id: str
    kind: str
    part: str
    started_s: float
    """Unix time."""
    folds: int = 0
    """How many there are; 0 for a search with one test set."""
    is_above_folds: bool = False
    """Whether this is the run above several folds."""
    storage: str | None = None
    """Where its files are, if not only in its own folder."""

    @property
    def command(self) -> str:
        """What resumes it."""
        return resume_command(self.kind, self.part, self.run_id, self.storage)


def find_interrupted(cache: Path) -> list[Interrupted]:
    """The searches that can be resumed on this machine, the latest first; of several folds, the run above them."""
    folders = [folder for folder in (cache / SWEEPS).glob("*") if not folder.name.startswith(REMOVED)]
    found = [one for folder in folders if (one := _read(folder)) is not None and not is_locked(folder)]
    above = {one.folds for one in found if one.is_above_folds}
    single = [one for one in found if one.kind != "compare" and (one.is_above_folds or one.folds not in above)]
    return sorted(single, key=lambda one: -one.started_s)


def _read(folder: Path) -> Interrupted | None:
    """What can be resumed of a search's folder: a plan, or the options of several folds."""
    plan, folds, cache = folder / "plan.json", folder / FOLDS_FILE, folder.parents[1]
    try:
        content = json.loads((folds if folds.exists() else plan).read_text(encoding="utf-8"))
        options = content if folds.exists() else content["options"]
        kind = content.get("kind") or ("train" if "recipe" in options else "compare" if "seeds" in options else "tune")
        return Interrupted(
            run_id=folder.name,
            kind=kind,
            part=str(options["part"]),
            started_s=(folds if folds.exists() else folder / "split.csv").stat().st_mtime,
            folds=int((options.get("test_folds") or (0, 0))[1]),
            is_above_folds=folds.exists(),
            storage=to_local(options.get("storage"), Folders(cache=cache, sweep=folder)),
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def find_unneeded(cache: Path) -> list[Path]:
    """Folders of searches that never started or are half removed, and drafts of the demo, of processes that ended."""
    sweeps = [folder for folder in (cache / SWEEPS).glob("*") if folder.is_dir()]
    unneeded = [folder for folder in sweeps if folder.name.startswith(REMOVED) or not _is_resumable(folder)]
    drafts = [draft for folder in cache.glob("demo-*") for draft in find_drafts(folder)]
    return sorted([*(folder for folder in unneeded if not is_locked(folder)), *drafts])


def _is_resumable(folder: Path) -> bool:
    plan = _read(folder)
    return plan is not None and plan.kind != "compare"


def remove_sweep(folder: Path) -> None:
    """Remove a search's folder; one that is only half removed is never taken for one that can be resumed."""
    if not folder.is_dir():
        return
    doomed = folder.with_name(f"{REMOVED}{folder.name}")
    try:
        folder.rename(doomed)
    except OSError:  # the remains of an earlier removal
        doomed = folder
    shutil.rmtree(doomed, ignore_errors=True)

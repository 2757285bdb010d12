"""What ended commands have left in the cache: searches that can be resumed, and folders that nobody needs."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from muralab.demo.dataset import find_drafts
from muralab.tune.resume import resume_command
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

    @property
    def command(self) -> str:
        """What resumes it."""
        return resume_command(self.kind, self.part, self.run_id)


def find_interrupted(cache: Path) -> list[Interrupted]:
    """The searches that can be resumed on this machine, the latest first."""
    found = []
    for plan in (cache / "sweeps").glob("*/plan.json"):
        one = _read(plan)
        is_left = one is not None and one.kind != "compare" and not plan.parent.name.startswith(REMOVED)
        if one is not None and is_left and not is_locked(plan.parent):
            found.append(one)
    return sorted(found, key=lambda one: -one.started_s)


def _read(plan: Path) -> Interrupted | None:
    try:
        content = json.loads(plan.read_text(encoding="utf-8"))
        options = content["options"]
        kind = content.get("kind") or ("train" if "recipe" in options else "compare" if "seeds" in options else "tune")
        started_s = (plan.parent / "split.csv").stat().st_mtime
        return Interrupted(run_id=plan.parent.name, kind=kind, part=str(options["part"]), started_s=started_s)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def find_unneeded(cache: Path) -> list[Path]:
    """Folders of searches that never started or are half removed, and drafts of the demo, of processes that ended."""
    sweeps = [folder for folder in (cache / "sweeps").glob("*") if folder.is_dir()]
    unneeded = [folder for folder in sweeps if folder.name.startswith(REMOVED) or not _is_resumable(folder)]
    drafts = [draft for folder in cache.glob("demo-*") for draft in find_drafts(folder)]
    return sorted([*(folder for folder in unneeded if not is_locked(folder)), *drafts])


def _is_resumable(folder: Path) -> bool:
    plan = _read(folder / "plan.json")
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

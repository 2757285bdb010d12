"""`doctor`: what earlier commands left behind on this machine, what does not fit together, and `--fix`."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from muralab.config.commands import DoctorConfig
from muralab.config.environment import Environment
from muralab.config.installation import check_installation, installed_versions
from muralab.console import build_console, format_duration
from muralab.errors import MuraLabError
from muralab.redaction import redact
from muralab.scratch import find_stale, remove_folder
from muralab.tracking import Store, claim_run, close_dead_runs, find_dead_runs, open_store
from muralab.tracking.replay import left_journals
from muralab.tune.disk_space import folder_bytes
from muralab.tune.leftovers import Interrupted, find_interrupted, find_unneeded

CACHES = {
    "pixels": "decoded images",
    "mirrors": "copies of data sets that are named by a URI",
    "features": "features of frozen backbones",
    "audit": "audits",
    "sweeps": "searches",
}


def run(config: DoctorConfig, environment: Environment) -> None:
    """Print every finding; with `fix`, remove and close what is safe to. Interrupted searches and caches stay."""
    console = build_console()

    def show(*lines: str) -> None:
        for line in lines:
            console.print(line, highlight=False, markup=False, soft_wrap=True)

    store, problem = find_store(environment)
    show(f"Cache {environment.cache}:", *cache_lines(environment.cache))
    show(f"Tracking store {redact(environment.tracking_uri)}: {problem or 'answers'}")
    show(*removed_lines("Temporary folders of killed commands", find_stale(), fix=config.fix))
    show(*removed_lines("Folders that nobody needs", find_unneeded(environment.cache), fix=config.fix))
    show(*journal_lines(environment))
    if store is not None:
        show(*dead_run_lines(store, fix=config.fix))
    show(f"Versions: {', '.join(f'{name} {version}' for name, version in installed_versions().items())}")
    problems = check_installation(environment.tracking_uri)
    show(*[f"Problem: {text}" for text in problems] or ["The installation fits together."])
    show(*interrupted_lines(find_interrupted(environment.cache)))


def find_store(environment: Environment) -> tuple[Store | None, str]:
    """The tracking store; None with the reason where it cannot be used."""
    try:
        store = open_store(environment.tracking_uri, registry_uri=environment.registry_uri)
        if environment.run_id:
            claim_run(store, environment.run_id)
    except MuraLabError as error:
        return None, str(error)
    return store, ""


def cache_lines(cache: Path) -> list[str]:
    """The size of each part of the cache."""
    sizes = {title: folder_bytes([cache / name]) for name, title in CACHES.items()}
    return [f"  {title}: {size / 2**20:,.0f} MiB" for title, size in sizes.items()]


def removed_lines(title: str, folders: Sequence[Path], *, fix: bool) -> list[str]:
    """Folders that can be removed, and are with `fix`."""
    if not folders:
        return [f"{title}: none"]
    lines = [f"  {folder} ({folder_bytes([folder]) / 2**20:,.1f} MiB)" for folder in folders]
    if fix:
        for folder in folders:
            remove_folder(folder)
    return [f"{title}{_fixed(fix, 'removed')}:", *lines]


def journal_lines(environment: Environment) -> list[str]:
    """What waits to be written to a tracking store, and the command that writes it."""
    left = left_journals(environment.journals)
    if not left:
        return ["Journals that wait for a tracking store: none"]
    lines = [f"  {one.waiting + one.refused} entries of `{one.command}` for {one.store}" for one in left]
    return ["Journals that wait for a tracking store (muralab sync: written):", *lines]


def dead_run_lines(store: Store, *, fix: bool) -> list[str]:
    """Runs that are marked as running although their process has ended; closed with `fix`."""
    dead: list[Any] = find_dead_runs(store)
    if not dead:
        return ["Runs whose process has died: none"]
    if fix:
        close_dead_runs(store)
    return [f"Runs whose process has died{_fixed(fix, 'closed')}:", *[f"  {run_id}" for run_id in dead]]


def _fixed(fix: bool, done: str) -> str:
    return f", {done}" if fix else f" (--fix: {done})"


def interrupted_lines(found: Sequence[Interrupted]) -> list[str]:
    """How to resume each search that can be; last, since it is what is looked for."""
    if not found:
        return ["Searches that can be resumed: none"]
    lines = ["Searches that can be resumed:"]
    for one in found:
        age = format_duration(max(0.0, time.time() - one.started_s))
        lines += [f"  {one.run_id} ({one.kind} of {one.part}, started {age} ago):", f"    {one.command}"]
    return lines

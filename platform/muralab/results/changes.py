"""What has changed since a run was planned or trained: its pictures, its recipe, the code of the platform."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd

from muralab.data.audit.pictures import changed_pictures
from muralab.data.dataset import Dataset
from muralab.errors import DataError
from muralab.recipe_source import Sources, changed_files, read_sources
from muralab.results.from_mlflow import CONTEXTS
from muralab.results.run_recipe import is_present
from muralab.tracking import LoggedData, RunRecord, Store, locate_files, read_datasets
from muralab.tracking.pictures import describe_pictures, find_changed, read_pictures
from muralab.tracking.platform_version import DIRTY, platform_version
from muralab.tracking.tags import Tag

NOT_RECORDED = "recorded neither its code nor digests of single pictures: whether these have changed since is not known"


@dataclass(frozen=True, kw_only=True)
class Inputs:
    """What a search depends on besides its options and its pictures, as its plan keeps it."""

    recipes: Mapping[str, Sources] = field(default_factory=dict)
    """Recipe -> its source."""
    platform: str = ""
    """Version of the platform; empty in plans of earlier versions."""
    platform_code: str = ""
    """Digest of the platform's source."""


def present_inputs(recipes: Iterable[str]) -> Inputs:
    """The inputs of a search that is planned now."""
    own = platform_version()
    return Inputs(recipes={name: read_sources(name) for name in recipes}, platform=str(own), platform_code=own.code)


def changed_inputs(planned: Inputs, now: Inputs) -> list[str]:
    """A sentence for each recipe whose code has changed, and one for the platform."""
    sentences = []
    for name, sources in planned.recipes.items():
        if files := changed_files(sources, now.recipes.get(name, {})):
            sentences.append(f"The recipe '{name}' has changed ({', '.join(files)}); its trials keep their source.")
    if planned.platform_code not in ("", now.platform_code):
        sentences.append(f"The code of the platform has changed: from {planned.platform} to {now.platform}.")
    return sentences


def changed_data(before: pd.DataFrame | None, logged: Mapping[str, LoggedData], dataset: Dataset) -> list[str]:
    """A sentence if pictures have other bytes under the same names than when a split was logged.

    Args:
        before: the split with digests of its files; None, or without them, for earlier versions.
        logged: the sets that were logged with the run, by context, whose digests cover all files of a set.
        dataset: the same split now.
    """
    changed = None if before is None else changed_pictures(before, dataset.audit.pictures)
    if before is not None and changed is not None:
        return [f"{describe_pictures(changed, len(before))} at {dataset.root} have changed."] if changed else []
    sets = [name for name, context in CONTEXTS.items() if context in logged]
    sets = [name for name in sets if logged[CONTEXTS[name]].digest != dataset.digest(name)]
    return [f"Pictures of {' and '.join(sets)} at {dataset.root} have changed."] if sets else []


def changes_since_training(store: Store, record: RunRecord, dataset: Dataset) -> list[str]:
    """What has changed of platform and pictures since a run was trained, in sentences.

    Args:
        store: holds the run.
        record: of the trained run.
        dataset: that it is evaluated on; pictures are compared where this is the run's own.
    """
    logged = read_datasets(store, record.run_id)
    same_split = dataset.splits.fingerprint == record.tags.get(Tag.SPLIT_FINGERPRINT)
    same_root = any(data.root.resolve() == dataset.root.resolve() for data in logged.values())
    pictures = read_pictures(store, record.run_id) if same_split or same_root else None
    return [
        *platform_notes([record]),
        *(changed_data(pictures, logged if same_split else {}, dataset) if same_split or same_root else []),
    ]


def platform_notes(records: Sequence[RunRecord]) -> list[str]:
    """A sentence for each other version of the platform that logged some of these runs."""
    own = platform_version()
    names: dict[str, list[str]] = {}
    for one in records:
        if one.tags.get(Tag.PLATFORM_CODE) != own.code:
            names.setdefault(one.tags.get(Tag.PLATFORM, ""), []).append(one.name)
    return [_platform_note(version, runs, str(own)) for version, runs in names.items()]


def _platform_note(version: str, runs: Sequence[str], own: str) -> str:
    which = f"The run {runs[0]}" if len(runs) == 1 else f"{len(runs)} runs ({', '.join(runs)})"
    was = "was" if len(runs) == 1 else "were"
    if not version:
        return f"{which} {was} logged by an earlier version of the platform, which {NOT_RECORDED}."
    edited = "; what was edited then is an artifact of that command's run" if version.endswith(DIRTY) else ""
    return f"{which} {was} logged by other code of the platform: {version}, now {own}{edited}."


def changes_since_evaluation(store: Store, records: Sequence[RunRecord], cache: Path) -> list[str]:
    """What has changed since some runs were tested: platform, recipes and, where they are here, test pictures.

    Args:
        store: holds the runs.
        records: tested runs.
        cache: remembers digests of files.
    """
    notes = [*platform_notes(records), *_recipe_notes(records)]
    notes += [f"{one.name}: {one.tags[Tag.CHANGES]}" for one in records if one.tags.get(Tag.CHANGES)]
    notes += [f"{one.name}: {one.tags[Tag.ACCEPTED_CHANGES]}" for one in records if one.tags.get(Tag.ACCEPTED_CHANGES)]
    tested = {one.run_id: read_datasets(store, one.run_id).get("test") for one in records}
    distinct = {(data.root, data.digest): (one, data) for one in records if (data := tested[one.run_id]) is not None}
    return [*notes, *filter(None, (_picture_note(store, one, data, cache) for one, data in distinct.values()))]


def _recipe_notes(records: Sequence[RunRecord]) -> list[str]:
    names: dict[str, list[str]] = {}
    for one in records:
        if one.recipe and not is_present(one):
            names.setdefault(one.recipe, []).append(one.name)
    return [
        f"The recipe '{recipe}' is not as in this checkout in {', '.join(runs)}; figures and weights are the runs' own."
        for recipe, runs in names.items()
    ]


def _picture_note(store: Store, record: RunRecord, data: LoggedData, cache: Path) -> str:
    """A sentence if test pictures of a run have changed, where its tree is on this machine."""
    if "test" not in record.predictions or not data.root.is_dir():
        return ""
    try:
        table = locate_files(store, record.predictions["test"], data, record.tags)
    except DataError:  # the key of its names is on another machine
        return ""
    changed = find_changed(store, record.run_id, table, cache / "pixels")
    if not changed:
        return ""
    which = describe_pictures(changed, len(table))
    return f"{which} of the test set at {data.root} have changed since the figures were measured."

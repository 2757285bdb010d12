"""The recipe of a run as the run was trained with it: from the checkout where that is unchanged, else from the run."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path

from muralab.errors import RecipeError
from muralab.recipe import Recipe
from muralab.recipe_loader import load_recipe, module_name
from muralab.recipe_source import Sources, changed_files, digest_sources, load_kept_recipe, read_sources
from muralab.tracking import RunRecord, RunWriter, Store, download_artifact
from muralab.tracking.failures import store_error
from muralab.tracking.tags import Tag

FOLDER = "recipe"
SOURCES = f"{FOLDER}/sources.json"
"""Artifact of a run: the recipe's file and what it imports; runs of earlier versions have its file alone."""


@dataclass(frozen=True, kw_only=True)
class RunRecipe:
    """A recipe as a run was trained with it, as far as that is known."""

    recipe: Recipe
    changes: tuple[str, ...] = ()
    """What has changed since, in sentences."""


def log_source(writer: RunWriter, run: str, name: str) -> None:
    """Log the source of a recipe, as it is now, in a run that is trained with it."""
    sources = read_sources(name)
    writer.log_text(run, next(iter(sources.values())), _own_file(name))
    writer.log_text(run, json.dumps(sources, indent=1), SOURCES)
    writer.set_tags(run, {Tag.RECIPE_CODE: digest_sources(sources)})


def read_run_recipe(store: Store, record: RunRecord) -> RunRecipe:
    """The recipe of a run.

    Raises:
        RecipeError: neither the run nor this checkout has a recipe of its name that works.
    """
    name, kept = record.recipe, read_kept_sources(store, record)
    if not kept:
        return RunRecipe(
            recipe=load_recipe(name),
            changes=(f"The run keeps no source of its recipe '{name}': whether that has changed since is not known.",),
        )
    changed = changed_since(kept, name)
    if not changed:
        return RunRecipe(recipe=load_recipe(name))
    found = f"The recipe '{name}' has changed since the run was trained ({', '.join(changed)})"
    try:
        return RunRecipe(recipe=load_kept_recipe(name, kept), changes=(f"{found}; the run's own source is used.",))
    except RecipeError as error:
        try:
            return RunRecipe(recipe=load_recipe(name), changes=(f"{found}. {error} The recipe as it is now is used.",))
        except RecipeError as missing:
            raise RecipeError(f"{missing} {error}") from error


def is_present(record: RunRecord) -> bool:
    """Whether this checkout has the code of the recipe that a run states; True for runs of earlier versions.

    Decided by a digest, without reading what the run kept.
    """
    try:
        return record.tags.get(Tag.RECIPE_CODE, "") in ("", digest_sources(read_sources(record.recipe)))
    except RecipeError:
        return False


def changed_since(kept: Sources, name: str) -> list[str]:
    """The files of a recipe whose code is not as a run kept it; all of them where the checkout has no such recipe."""
    try:
        return changed_files(kept, read_sources(name))
    except RecipeError:
        return sorted(kept)


def read_kept_sources(store: Store, record: RunRecord) -> dict[str, str]:
    """The source of its recipe that a run kept; empty if it kept none.

    Raises:
        StoreError: the store failed.
    """
    own = _own_file(record.recipe)
    try:
        found = {item.path for item in store.client.list_artifacts(record.run_id, FOLDER)}
    except Exception as error:
        raise store_error(store, f"list the artifacts of the run {record.run_id}", error) from error
    if not {own, SOURCES} & found:
        return {}
    with tempfile.TemporaryDirectory() as folder:
        path = download_artifact(store, record.run_id, SOURCES if SOURCES in found else own, Path(folder))
        text = path.read_text(encoding="utf-8")
    return dict(json.loads(text)) if SOURCES in found else {f"{module_name(record.recipe).replace('.', '/')}.py": text}


def _own_file(name: str) -> str:
    return f"{FOLDER}/{name.rpartition('.')[2]}.py"

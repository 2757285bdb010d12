"""Whether an interrupted search would continue as it started: the same pictures, recipes, weights and platform."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from muralab.config.parsing import weights_by_recipe
from muralab.config.search import SearchConfig
from muralab.data.audit.pictures import DIGEST_CHARACTERS, changed_pictures
from muralab.data.cache import file_names
from muralab.data.digests import FileDigests
from muralab.data.source import DatasetSource
from muralab.errors import SettingsError, numbered
from muralab.tracking.pictures import describe_pictures
from muralab.tracking.tags import Tag
from muralab.training.checkpoint import read_tensors, without_prefix
from muralab.training.trainer import LAST
from muralab.training.weights import AUTO, file_digest, resolve_weights
from muralab.trial import TrialSpec, recipes_of

UNRECORDED = (
    "An earlier version of the platform planned this run. It recorded neither its own code nor that of the recipes: "
    "whether these have changed since is not known."
)


def refuse_changes(run_id: str, changes: Sequence[str], kind: str) -> None:
    """Refuse to resume a search if anything that it depends on has changed.

    Raises:
        SettingsError: there are changes; names each, and how to accept them.
    """
    if changes:
        command = f"mlflow run . -e {kind} --env-manager local -P resume={run_id} -P accept_changes=true"
        heading = f"resume={run_id}: this run would not continue as it started:"
        advice = "Undo that, start a new run, or accept it; the run then states it:"
        raise SettingsError(f"{numbered(heading, changes)}\n{advice}\n  {command}")


def compare_pictures(planned: pd.DataFrame | None, source: DatasetSource, cache: Path) -> list[str]:
    """A sentence, with names, if files have other bytes under the same names; nothing is decoded.

    Args:
        planned: the split with digests of its files; None in plans of earlier versions.
        source: the data set now.
        cache: remembers digests of files.
    """
    if planned is None:
        return []
    digests = FileDigests(source.index, cache / "pixels")
    digests.read()
    files = [digest[:DIGEST_CHARACTERS] for digest in digests.of(source.index)]
    before = planned.assign(image=file_names(planned))
    changed = changed_pictures(before, source.index[["image"]].assign(file=files))
    return [f"{describe_pictures(changed, len(planned))} at {source.root} have changed."] if changed else []


def compare_corrections(tags: Mapping[str, str], source: DatasetSource) -> list[str]:
    """A sentence if the table of corrected labels is another one than the run's tags state."""
    now = "" if source.corrections is None else source.corrections.digest
    if now == tags.get(Tag.LABEL_CORRECTIONS, ""):
        return []
    return [f"The label corrections {source.label_corrections} have changed."]


def find_weights_again(specs: Sequence[TrialSpec], config: SearchConfig) -> list[TrialSpec]:
    """The trials with their files of pretrained weights where these are now.

    Raises:
        WeightsError: a file is gone.
    """
    given = config.options.weights
    own = [Path(one).resolve() for one in (weights_by_recipe(given) or {"": given}).values()]
    found: dict[tuple[str, str], str] = {}
    for spec in specs:
        key = spec.weights, config.recipes[spec.recipe].pretrained
        if spec.weights and key not in found:
            path = Path(spec.weights)
            is_downloaded = bool(key[1]) and not path.is_file() and not {path, *path.parents} & set(own)
            found[key] = str(resolve_weights(AUTO if is_downloaded else spec.weights, key[1]))
    return [
        replace(spec, weights=found[spec.weights, config.recipes[spec.recipe].pretrained]) if spec.weights else spec
        for spec in specs
    ]


def compare_weights(specs: Sequence[TrialSpec], planned: str) -> list[str]:
    """A sentence for each file of pretrained weights whose digest is not in their planned description."""
    files = sorted({spec.weights for spec in specs if spec.weights})
    return [f"The weights {file} have changed." for file in files if file_digest(Path(file)) not in planned]


def check_checkpoints(specs: Sequence[TrialSpec], run_id: str) -> None:
    """Refuse recipes that build other networks than those whose training is to be continued.

    Raises:
        SettingsError: names the trials.
    """
    unfit = [spec.name for spec in specs if (Path(spec.folder) / LAST).is_file() and not _fits(spec)]
    if unfit:
        raise SettingsError(
            f"resume={run_id}: the checkpoints of {', '.join(unfit)} do not fit the networks that their recipes build "
            "now. Put the recipes back, or start a new run."
        )


def _fits(spec: TrialSpec) -> bool:
    """Whether a checkpoint holds the tensors of the network, or those of its head where only that was trained."""
    tensors, _ = read_tensors(Path(spec.folder) / LAST)
    _, recipe = recipes_of(spec)
    network = recipe.build(image_size=recipe.image_size, **recipe.model)
    shapes = {name: value.shape for name, value in without_prefix("module", tensors).items()}
    parts = (network.state_dict(), network.head.state_dict())
    return any({name: value.shape for name, value in part.items()} == shapes for part in parts)

"""A trained network read back from its MLflow run, with its resolved recipe and calibration."""

from __future__ import annotations

import itertools
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import numpy as np

from muralab.data.files import read_square
from muralab.data.images.value_range import range_from_text
from muralab.data.local_files import missing_files
from muralab.errors import StoreError
from muralab.evaluation.calibration import Calibration
from muralab.evaluation.evaluated_model import EvaluatedModel
from muralab.recipe import Recipe, override, resolved_values
from muralab.redaction import redact
from muralab.registry.fast_engine import BATCH_SIZE, EngineTest
from muralab.registry.register import MAX_FAMILIAR, FamiliarImages
from muralab.results.final_test import FinalTest
from muralab.results.from_mlflow import read_calibration, read_model
from muralab.results.run_recipe import RunRecipe, read_run_recipe
from muralab.threads import map_in_threads
from muralab.tracking import (
    RunRecord,
    Store,
    download_artifact,
    locate_files,
    read_datasets,
    read_run,
    read_trained_split,
)
from muralab.tracking.failures import store_errors
from muralab.tracking.tags import Tag, member_of
from muralab.training.checkpoint import read_tensors
from muralab.training.ensemble import average_networks
from muralab.training.network import Network
from muralab.trial import TrialSpec

T = TypeVar("T")
N_VERIFIED = 32
"""Validation images on which an export is compared with torch."""


@dataclass(frozen=True, kw_only=True, eq=False)
class TrainedModel:
    """What a run trained."""

    network: Network
    """With its selected weights, in eval mode, on the CPU."""
    recipe: Recipe
    """As the run carried it out."""
    calibration: Calibration
    changes: tuple[str, ...] = ()
    """What has changed of its recipe since, in sentences."""


def source_run(store: Store, model: str) -> str:
    """The run that a model came from: a run's id as it is, or that of a registered version.

    Raises:
        StoreError: there is no such registered model.
    """
    if not model.startswith("models:/"):
        return model
    name, _, version = model.removeprefix("models:/").replace("@", "/@").partition("/")
    try:
        if version.startswith("@"):
            return str(store.client.get_model_version_by_alias(name, version[1:]).run_id)
        return str(store.client.get_model_version(name, version).run_id)
    except Exception as error:
        with store_errors(store, "read the registered models"):
            known = ", ".join(sorted(m.name for m in store.client.search_registered_models())) or "none"
        raise StoreError(
            f"There is no registered model '{model}' in {redact(store.uri)} ({type(error).__name__}). "
            f"Registered: {known}; write models:/<name>@champion or models:/<name>/<version>."
        ) from error


def trained_run(store: Store, run_id: str, *, predictions: bool = False) -> RunRecord:
    """A run, or the one that trained its model where this one only evaluated it (`evaluate`).

    Raises:
        StoreError: there is no such run.
    """
    record = read_run(store, run_id, predictions=predictions)
    source = record.tags.get(Tag.EVALUATES)
    return trained_run(store, source, predictions=predictions) if source else record


def read_final_test(spec: TrialSpec, store: Store, run_id: str) -> FinalTest:
    """A trial that was evaluated on the test set before, as its run keeps it: the test set is not evaluated again.

    Raises:
        StoreError: the run keeps no weights or no test predictions.
    """
    record = read_run(store, run_id)
    network, model = load_trained_model(store, record).network, read_model(store, record)
    return FinalTest(spec=spec, network=network, model=model, fingerprint=record.test_fingerprint)


def load_trained_model(store: Store, record: RunRecord) -> TrainedModel:
    """A run's network with its selected weights, its resolved recipe and its calibration.

    Raises:
        StoreError: the run keeps no weights: only the best trial of each recipe does.
    """
    resolved = record.values
    if not record.recipe or "recipe" not in resolved:
        raise StoreError(
            f"The run {record.run_id} ({record.name}) trained no recipe: give the run of a trial or of `train`."
        )
    found = read_run_recipe(store, record)
    recipe = found.recipe
    known = resolved_values(recipe)
    recipe = override(recipe, {**recipe.earlier, **{key: value for key, value in resolved.items() if key in known}})
    try:
        networks = [recipe.build(image_size=recipe.image_size, **recipe.model) for _ in range(ensemble_size(record))]
        network = networks[0] if len(networks) == 1 else average_networks(networks)
    except Exception as error:  # whatever the code of a recipe raises
        raise _unfit(record, found, f"{error} ({type(error).__name__})") from error
    calibration = read_calibration(store, record.run_id)
    if calibration is None or not store.client.list_artifacts(record.run_id, "weights"):
        raise StoreError(
            f"The run {record.run_id} ({record.name}) keeps no weights: in a sweep the best trial of each recipe "
            "does, in a comparison none. Give that trial, a run of `train`, or a registered model."
        )
    with tempfile.TemporaryDirectory() as folder:
        tensors, _ = read_tensors(download_artifact(store, record.run_id, "weights/weights.safetensors", Path(folder)))
    try:
        network.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise _unfit(record, found, "the shapes of its weights are others") from error
    return TrainedModel(network=network.eval(), recipe=recipe, calibration=calibration, changes=found.changes)


def ensemble_size(record: RunRecord) -> int:
    """How many networks the model of a run averages."""
    tag = record.tags.get(Tag.ENSEMBLE, "")
    return int(tag) if tag and member_of(tag) is None else 1


def _unfit(record: RunRecord, found: RunRecipe, reason: str) -> StoreError:
    """The error of a recipe that does not build the network of a run."""
    return StoreError(
        f"The recipe '{record.recipe}' does not fit the run {record.run_id} ({record.name}): {reason}. "
        f"{' '.join(found.changes)} Check out the commit in the run's tags; its registered model still works."
    )


def verification_images(store: Store, record: RunRecord, size: int) -> np.ndarray:
    """Validation images of a run, on which torch and the served model are compared, uint8 [N, size, size].

    Raises:
        StoreError: the run names none, or they are not on this machine.
    """
    n_images = len(record.predictions.get("validation", ()))
    return np.stack(list(_read_predicted(store, record, "validation", size, spread_evenly(range(n_images)))))


def engine_test(
    store: Store, record: RunRecord, model: EvaluatedModel, size: int, *, required: bool = False
) -> EngineTest:
    """The evaluation of a run with its test images, on which a fast engine is compared with the exact one.

    Args:
        store: holds the run.
        record: the run.
        model: its evaluation.
        size: side of the network's input in px.
        required: see `EngineTest`.

    Raises:
        StoreError: the run names no test images, or they are not on this machine.
    """
    rows = range(len(model.predictions()))
    squares = _read_predicted(store, record, "test", size, rows)

    def batches() -> Iterator[np.ndarray]:
        while batch := list(itertools.islice(squares, BATCH_SIZE)):
            yield np.stack(batch)

    return EngineTest(model=model, batches=batches(), required=required)


def _read_predicted(store: Store, record: RunRecord, name: str, size: int, rows: Sequence[int]) -> Iterator[np.ndarray]:
    """Images of a set that a run predicted, by their rows, uint8 [size, size] each; read as they are asked for."""
    source = read_datasets(store, record.run_id).get(name)
    if source is None or not rows:
        raise StoreError(f"The run {record.run_id} names no {name} images to check the export on.")
    table = locate_files(store, record.predictions[name].iloc[rows], source, record.tags)
    missing = missing_files(table)
    if missing:
        raise StoreError(
            f"The images of the run {record.run_id} are not on this machine (below {source.source}, such as "
            f"{missing[0]}), and a model is registered only after its export was checked on them. Promote it where its "
            "data are."
        )
    shown = range_from_text(record.tags.get(Tag.VALUE_RANGE, ""))
    return map_in_threads(lambda path: read_square(path, size, value_range=shown), table["path"])


def familiar_images(store: Store, record: RunRecord, size: int) -> FamiliarImages | None:
    """Training and validation images of a run, which show a served model what is familiar to it.

    Returns:
        None where the run logged no split, or its images are not on this machine.
    """
    source, split = read_datasets(store, record.run_id).get("training"), read_trained_split(store, record.run_id)
    if source is None or split is None:
        return None
    shown = range_from_text(record.tags.get(Tag.VALUE_RANGE, ""))
    found: dict[str, np.ndarray] = {}
    sets = {name: split.rows[split.rows["set"] == name] for name in MAX_FAMILIAR}
    if sets["validation"].empty:  # the networks of an ensemble were trained on all of them
        sets = {"train": sets["train"].iloc[::2], "validation": sets["train"].iloc[1::2]}
    for name, n in MAX_FAMILIAR.items():
        rows = sets[name]
        table = locate_files(store, rows.iloc[spread_evenly(range(len(rows)), n)], source, record.tags)
        if table.empty or missing_files(table):
            return None
        found[name] = np.stack([read_square(path, size, value_range=shown) for path in table["path"]])
    return FamiliarImages(**found)


def spread_evenly(items: Sequence[T], n: int = N_VERIFIED) -> list[T]:
    """At most n of some items, evenly spread."""
    return [items[place] for place in np.linspace(0, len(items) - 1, min(n, len(items))).astype(int)]

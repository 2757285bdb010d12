"""`evaluate`: a trained run's weights on a data set, its own or another, logged as a run of its own."""

from __future__ import annotations

import json
import tempfile
from pathlib import Path
from typing import Any

import pandas as pd
import torch

from muralab.config.settings import count_cpus, count_gpus
from muralab.console import build_console, build_progress
from muralab.data.dataset import Dataset, find_dataset, open_dataset
from muralab.errors import SettingsError, StoreError
from muralab.evaluation.bootstrap import bootstrap
from muralab.evaluation.calibration import Calibration
from muralab.evaluation.predictions import predict_images
from muralab.experiment import set_threads
from muralab.recipe import Recipe, override, resolved_values
from muralab.recipe_loader import load_recipe
from muralab.results.final_test import WITH_INTERVALS, test_metrics
from muralab.results.leakage import OWN, check_split, count_learnt, learnt_note, own_data, own_split
from muralab.tracking import (
    RunRecord,
    RunWriter,
    Store,
    close_dead_runs,
    download_artifact,
    open_store,
    read_datasets,
    read_run,
    shown,
)
from muralab.tracking.tags import Tag, resolved_values_of
from muralab.training.checkpoint import read_tensors
from muralab.training.network import Network
from muralab.tune.finish import DISCLAIMER, ui_command
from muralab.tune.prepare import Job
from muralab.tune.trial_logger import log_audit

SETS = ("test", "validation", "train", "all")


def run_evaluation(
    model: str, data: str, part: str, job: Job, *, which: str = "test", protocol: str = OWN, seed: str = OWN
) -> None:
    """Judge a trained run on a set of a data set, with its own calibration.

    Args:
        model: a run's id, or a registered model such as models:/mura-wrist@champion.
        data: `demo`, the path of a MURA tree, or `run`: the one that the model was trained on.
        part: one of its parts, or `all`; `run`: likewise.
        job: where this command runs.
        which: one of SETS.
        protocol: of the split; `run`: the one that the model was trained under.
        seed: of the split; `run`: likewise.

    Raises:
        MuraLabError: the run has no weights, or the data cannot be used.
    """
    if which not in SETS:
        raise SettingsError(f"set={which}: expected one of {', '.join(SETS)}.")
    check_split(protocol, seed)
    console = build_console()
    store = open_store(job.tracking_uri)
    close_dead_runs(store, claim=job.run_id)
    record = trained_run(store, source_run(store, model))
    trained_on = read_datasets(store, record.run_id).get("training")
    protocol, drawn = own_split(record, protocol, seed)
    data, part = own_data(record, data, part, trained_on)
    network, recipe, calibration = load_model(store, record)
    dataset = open_dataset(
        find_dataset(data, part, protocol=protocol, seed=drawn),
        image_sizes=[recipe.image_size],
        cache_folder=job.cache,
        progress=build_progress(console),
    )
    whole = dataset.index[~dataset.index["image"].isin(set(dataset.unreadable))]
    table = whole.reset_index(drop=True) if which == "all" else dataset.tables[which]
    learnt = count_learnt(table, record, dataset, trained_on)
    for note in filter(None, [*dataset.notes, learnt_note(learnt, len(table))]):
        console.print(f"Note: {note}", style="yellow", highlight=False, markup=False, soft_wrap=True)
    predictions = _predict(network, recipe, dataset, table)
    intervals = bootstrap(
        predictions,
        level="study",
        metrics=WITH_INTERVALS,
        threshold=calibration.threshold,
        temperature=calibration.study_temperature,
    )
    tags = {
        Tag.PART: part,
        Tag.RECIPE: record.recipe,
        Tag.SYNTHETIC: str(dataset.synthetic).lower(),
        Tag.EVALUATES: record.run_id,
        Tag.SET: which,
        Tag.LEAKED_IMAGES: str(sum(learnt.values())),
        Tag.SPLIT_FINGERPRINT: dataset.splits.fingerprint,
        Tag.PROTOCOL: protocol,
        Tag.SEED: str(drawn),
        Tag.OBJECTIVE: record.tags.get(Tag.OBJECTIVE, ""),
        Tag.WEIGHTS: record.tags.get(Tag.WEIGHTS, ""),
        Tag.RUN_NAME: f"evaluate-{record.name}",
    }
    with RunWriter(store) as writer:
        if job.run_id:
            run = writer.adopt_run(job.run_id, tags, kind="evaluate")
        else:
            experiment = job.experiment or f"mura-{part}"
            run = writer.start_run(experiment=experiment, kind="evaluate", name=f"evaluate-{record.name}", tags=tags)
        _log_set(writer, run, dataset, which, predictions)
        writer.log_predictions(run, "test", predictions)
        writer.log_text(run, json.dumps(calibration.to_dict(), indent=1), "calibration.json")
        writer.log_epoch(run, 0, test_metrics(predictions, calibration, intervals))
        writer.finish(run)
        run = writer.run_id(run)
    figures = ", ".join(f"{name} {interval}" for name, interval in intervals.items())
    console.print(
        f"{record.name} ({record.recipe}) on the {which} set of {data} {part}: "
        f"{predictions['study'].nunique()} studies, study level, {figures}",
        highlight=False,
        markup=False,
    )
    console.print(f"Run {run}:\n  {ui_command(store.uri)}\n{DISCLAIMER}", highlight=False, soft_wrap=True)


def _log_set(writer: RunWriter, run: Any, dataset: Dataset, which: str, predictions: pd.DataFrame) -> None:
    """The set that was judged, as the run's test input, and the audit of the whole."""
    writer.log_dataset(
        run,
        name=f"{'synthetic-' if dataset.synthetic else ''}mura-{dataset.part}-{which}",
        digest=dataset.audit.digest if which == "all" else dataset.digest(which),
        source=str(dataset.root),
        context="test",
        profile={
            "images": len(predictions),
            "studies": predictions["study"].nunique(),
            "patients": predictions["patient"].nunique(),
            "abnormal": int(predictions["label"].sum()),
        },
    )
    log_audit(writer, run, dataset)


def source_run(store: Store, model: str) -> str:
    """The run that a model came from.

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
        known = ", ".join(sorted(m.name for m in store.client.search_registered_models())) or "none"
        raise StoreError(
            f"There is no registered model '{model}' in {shown(store.uri)} ({type(error).__name__}). "
            f"Registered: {known}; write models:/<name>@champion or models:/<name>/<version>."
        ) from error


def trained_run(store: Store, run_id: str, *, predictions: bool = False) -> RunRecord:
    """A run, or the one that was trained where this one only judged it again (`evaluate`).

    Raises:
        StoreError: no such run.
    """
    record = read_run(store, run_id, predictions=predictions)
    source = record.tags.get(Tag.EVALUATES)
    return trained_run(store, source, predictions=predictions) if source else record


def load_model(store: Store, record: RunRecord) -> tuple[Network, Recipe, Calibration]:
    """A run's network with its best weights, its resolved recipe and its calibration.

    Raises:
        StoreError: the run keeps no weights: only the best trial of each recipe does.
    """
    resolved = resolved_values_of(record.params)
    if not record.recipe or "recipe" not in resolved:
        raise StoreError(f"The run {record.run_id} ({record.name}) trained no recipe: give a trial's or a training's.")
    recipe = load_recipe(record.recipe)
    known = resolved_values(recipe)
    recipe = override(recipe, {key: value for key, value in resolved.items() if key in known})
    network = recipe.build(image_size=recipe.image_size, **recipe.model)
    with tempfile.TemporaryDirectory() as folder:
        if not store.client.list_artifacts(record.run_id, "weights"):
            raise StoreError(
                f"The run {record.run_id} ({record.name}) keeps no weights: of a sweep the best trial of each recipe "
                "does, of a comparison none. Give that trial, a run of `train`, or a registered model."
            )
        tensors, _ = read_tensors(download_artifact(store, record.run_id, "weights/weights.safetensors", Path(folder)))
        path = download_artifact(store, record.run_id, "calibration.json", Path(folder))
        calibration = Calibration.from_dict(json.loads(path.read_text(encoding="utf-8")))
    try:
        network.load_state_dict(tensors, strict=True)
    except RuntimeError as error:
        raise StoreError(
            f"The weights of the run {record.run_id} ({record.name}) do not fit the recipe '{record.recipe}' as it is "
            "now: it has changed since. Take the commit in the run's tags; its registered model goes on as it is."
        ) from error
    return network.eval(), recipe, calibration


def _predict(network: Network, recipe: Recipe, dataset: Dataset, table: pd.DataFrame) -> pd.DataFrame:
    set_threads(count_cpus())
    cache = dataset.caches[recipe.image_size]
    device = "cuda" if count_gpus() else "cpu"
    network = network.to(device).to(memory_format=torch.channels_last)
    return predict_images(network, cache, cache.readable(table), device=device)

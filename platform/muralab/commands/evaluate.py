"""`evaluate`: a trained run's weights on a data set, its own or another, logged as a run of its own."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pandas as pd
import torch

from muralab.commands.remote_data import fetch_data
from muralab.commands.session import Session, open_session
from muralab.config.commands import NONE, EvaluateConfig
from muralab.config.environment import Environment
from muralab.config.parsing import unless_auto
from muralab.config.resources import count_gpus
from muralab.config.training_options import DEMO, DUPLICATES, RUN
from muralab.data.dataset import Dataset, open_dataset
from muralab.data.images.value_range import range_from_text
from muralab.data.manifest import is_manifest
from muralab.data.mirror import uri_of
from muralab.data.sheet import file_digest
from muralab.data.source import AUTO, DatasetSource
from muralab.errors import SettingsError
from muralab.evaluation.evaluated_model import EvaluatedModel
from muralab.evaluation.leakage import Leakage
from muralab.evaluation.metrics import main_metrics
from muralab.evaluation.predictions import predict_images
from muralab.experiment import set_threads
from muralab.processor import count_cpus
from muralab.report.sentences import calibration_notes, calibration_sentence
from muralab.report.verdict import confusion_sentence, missed_sentence, model_note
from muralab.results.changes import changes_since_training
from muralab.results.duplicates import handle_duplicates
from muralab.results.final_test import log_test
from muralab.results.inputs import data_tags, log_audit, log_evaluated_set, log_split, names_tag
from muralab.results.leakage import data_of, leakage_note, leakage_on, split_of
from muralab.results.trained_model import TrainedModel, load_trained_model, source_run, trained_run
from muralab.tracking import LoggedData, RunRecord, read_datasets
from muralab.tracking.tags import Tag, member_of


def run(config: EvaluateConfig, environment: Environment) -> None:
    """Evaluate a trained run on a set of a data set, with its own calibration.

    Raises:
        MuraLabError: the run has no weights, or the data cannot be used.
    """
    with open_session("evaluate", environment) as session:
        record = trained_run(session.store, source_run(session.store, config.model))
        trained_on = read_datasets(session.store, record.run_id).get("training")
        source = find_source(config, record, trained_on, session).checked()
        session.require_access(source.part)
        trained = load_trained_model(session.store, record)
        if config.prevalence is not None:
            trained = replace(trained, calibration=trained.calibration.at_prevalence(config.prevalence))
        dataset = open_dataset(
            source,
            image_sizes=[trained.recipe.image_size],
            cache_folder=session.cache,
            progress=session.progress,
            value_range=range_from_text(record.tags.get(Tag.VALUE_RANGE, "")),  # the model's, whatever the data hold
            names_key=unless_auto(config.names_key),
        )
        duplicates = duplicates_of(record, config.duplicates)
        dataset = handle_duplicates(dataset, duplicates)
        table = rows_of(dataset, config.set)
        leaked = leakage_on(table, record, dataset, session.store)
        changes = [*trained.changes, *changes_since_training(session.store, record, dataset)]
        session.warn(filter(None, [*dataset.notes, *changes, leakage_note(leaked)]))
        model = evaluate(trained, record, dataset, table)
        tags = {
            **describe(record, dataset, leaked),
            Tag.PART: source.part,
            Tag.SET: config.set,
            Tag.DUPLICATES: duplicates,
            **({Tag.CHANGES: " ".join(changes)} if changes else {}),
        }
        print_figures(
            session, record, model, f"the {config.set} set of {uri_of(source.data) or source.data} {source.part}"
        )
        run_id = session.start_run(
            name=f"evaluate {title_of(record)} on {config.set} · {source.part}", part=source.part, tags=tags
        )
        log_evaluated_set(session.writer, run_id, dataset, config.set, model.predictions())
        log_split(session.writer, run_id, dataset)
        log_audit(session.writer, run_id, dataset)
        fingerprint = dataset.fingerprint(model.predictions())
        log_test(session.writer, run_id, model, fingerprint)
        where = f"Evaluated on the {config.set} set of {source.part}: the model of the run `{record.run_id}`."
        session.writer.set_tags(run_id, {Tag.NOTE: f"{where}\n\n{model_note(model)}"})
        session.writer.finish(run_id)
        session.writer.flush()
        if config.set == "test":
            session.count_evaluations(source.part, fingerprint)
        session.print_run(run_id)


def find_source(
    config: EvaluateConfig, record: RunRecord, trained_on: LoggedData | None, session: Session
) -> DatasetSource:
    """The data set to evaluate on; its split is the trained run's where it is the run's own data.

    Raises:
        SettingsError: a manifest does not say which of its images are for testing.
        DataError: the data cannot be used, or the set lacks a class.
    """
    protocol, seed = split_of(record, config.protocol, config.seed)
    named, part = data_of(record, config.data, config.part, trained_on)
    own = trained_on if config.data == RUN else None
    own_columns = json.loads(record.tags.get(Tag.COLUMNS) or "{}")
    is_own_uri = own is not None or record.tags.get(Tag.DATA_URI) == named
    data = fetch_data(named, part, config.columns or (own_columns if is_own_uri else {}), session)
    is_table = data != DEMO and is_manifest(data)
    is_own_table = is_table and file_digest(Path(data)) == record.tags.get(Tag.MANIFEST)
    if config.protocol == RUN and not is_own_table and (is_table or Tag.MANIFEST in record.tags):
        protocol = AUTO  # the run's protocol is of another kind of data
    image_root = config.root or (own.image_root if own and data == named else None)
    source = DatasetSource(
        data=data,
        part=part,
        protocol=protocol,
        seed=seed,
        validation_fold=member_of(record.tags.get(Tag.ENSEMBLE, "")) if own or is_own_table else None,
        image_root=image_root,
        columns=config.columns or (own_columns if own or is_own_table else {}),
        sets=() if config.set == "all" else (config.set,),
        label_corrections=corrections_of(config, record, is_own=own is not None or is_own_table),
    )
    manifest = source.manifest
    if protocol == AUTO and manifest is not None and not manifest.has_split and config.set != "all":
        raise SettingsError(
            f"set={config.set}: the manifest {data} has no column split, and the model was not trained on it. Give "
            "set=all to evaluate all of its images, or add the column."
        )
    return source


def corrections_of(config: EvaluateConfig, record: RunRecord, *, is_own: bool) -> str | None:
    """Resolve the option label_corrections: `run` are those that the run was trained with, on its own data.

    Raises:
        SettingsError: that file is gone, or has changed.
    """
    if config.label_corrections != RUN:
        return None if config.label_corrections == NONE else config.label_corrections
    digest, path = record.tags.get(Tag.LABEL_CORRECTIONS, ""), record.tags.get(Tag.LABEL_CORRECTIONS_PATH, "")
    if not (is_own and digest):
        return None
    if file_digest(Path(path)) not in (digest, "") or not Path(path).is_file():  # why it is unreadable is said later
        state = "has changed" if Path(path).is_file() else "is gone"
        raise SettingsError(
            f"label_corrections=run: {path} {state} since the run {record.run_id} was trained with it. Put it back, or "
            "give label_corrections=<file>, or none for the labels of the data set itself."
        )
    return path


def describe(record: RunRecord, dataset: Dataset, leakage: Leakage | None) -> dict[str, str]:
    """Tags of an evaluation: of the trained run, the split, and what the model has seen (None: not known)."""
    return {
        Tag.RECIPE: record.recipe,
        Tag.SYNTHETIC: str(dataset.synthetic).lower(),
        Tag.EVALUATES: record.run_id,
        Tag.LEAKED_IMAGES: "unknown" if leakage is None else str(leakage.n_images),
        Tag.SPLIT_FINGERPRINT: dataset.splits.fingerprint,
        Tag.PROTOCOL: dataset.splits.protocol,
        Tag.SEED: str(dataset.splits.seed),
        **data_tags(dataset.source, dataset.manifest, dataset.corrections),
        **names_tag(dataset),
        **{key: record.tags.get(key, "") for key in (Tag.OBJECTIVE, Tag.WEIGHTS, Tag.KEPT_PHASE, Tag.VALUE_RANGE)},
    }


def title_of(record: RunRecord) -> str:
    """What the name of an evaluation calls the model."""
    return record.short_name if record.kind == "trial" else record.recipe


def duplicates_of(record: RunRecord, duplicates: str) -> str:
    """Resolve the option duplicates: `run` is what the run was trained with."""
    return record.tags.get(Tag.DUPLICATES, DUPLICATES[0]) if duplicates == RUN else duplicates


def rows_of(dataset: Dataset, name: str) -> pd.DataFrame:
    """The readable images of one set, or of `all`."""
    if name != "all":
        return dataset.tables[name]
    return dataset.index[~dataset.index["image"].isin(set(dataset.unreadable))].reset_index(drop=True)


def evaluate(trained: TrainedModel, record: RunRecord, dataset: Dataset, table: pd.DataFrame) -> EvaluatedModel:
    """A trained model with its predictions of some images as test."""
    set_threads(count_cpus())
    cache = dataset.caches[trained.recipe.image_size]
    device = "cuda" if count_gpus() else "cpu"
    network = trained.network.to(device).to(memory_format=torch.channels_last)
    predictions = predict_images(network, cache, cache.readable(table), device=device)
    return EvaluatedModel(
        recipe=record.recipe,
        title=trained.recipe.summary,
        run_id=record.run_id,
        test=predictions,
        calibration=trained.calibration,
    )


def print_figures(session: Session, record: RunRecord, model: EvaluatedModel, where: str) -> None:
    """Print the model's figures on a set."""
    figures = ", ".join(f"{name} {model.intervals()[name]}" for name in main_metrics())
    n_studies = model.predictions()["study"].nunique()
    session.print(f"{record.name} ({record.recipe}) on {where}: {n_studies} studies, study level, {figures}")
    session.print(*filter(None, [confusion_sentence(model), missed_sentence(model)]))
    session.print(calibration_sentence(model))
    session.warn(calibration_notes([model]))

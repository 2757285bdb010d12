"""`train`: one recipe, one run, in this process and without a search."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from muralab.commands.ensemble import build_ensemble
from muralab.commands.folds import Fold, find_folds, run_over_folds
from muralab.commands.remote_data import with_fetched_data
from muralab.commands.session import Session, open_session, with_latest
from muralab.config.commands import TrainConfig
from muralab.config.environment import Environment
from muralab.config.search import resolve_search
from muralab.console import TrialRow, TrialTable, format_duration
from muralab.data.source import DatasetSource
from muralab.evaluation.evaluated_model import EvaluatedModel
from muralab.evaluation.metrics import main_metrics
from muralab.experiment import predictions_path, run_trial
from muralab.processor import count_cpus
from muralab.report.page import write_report
from muralab.report.results_table import results_table
from muralab.report.sentences import calibration_notes, calibration_sentence
from muralab.report.verdict import confusion_sentence, missed_sentence, model_note
from muralab.results.checks import log_checks, run_checks, study_groups
from muralab.results.context import build_context
from muralab.results.final_test import FinalTest, run_final_test
from muralab.results.inputs import log_audit, log_sets, log_split
from muralab.results.previews import build_previews
from muralab.results.suspicious_labels import write_labels
from muralab.tracking import read_predictions, read_run
from muralab.tracking.tags import Tag, member_tag
from muralab.trial import TrialSpec, recipes_of
from muralab.tune.disk_space import check_space
from muralab.tune.estimate import Estimate, estimate, measure_paces
from muralab.tune.finish import SweepResult, draw_galleries
from muralab.tune.leftovers import remove_sweep
from muralab.tune.plan import Sweep, format_cores, prepare_sweep
from muralab.tune.resume import is_described, load_sweep, write_plan
from muralab.tune.resume_command import resume_command
from muralab.tune.trial_logger import log_description, relog_changed, trial_tags
from muralab.tune.trial_notes import ended_note, running_note
from muralab.tune.trial_score import objectives_of, score_trial


def run(config: TrainConfig, environment: Environment) -> None:
    """Train one recipe, evaluate it on the test set, and write its report; with `test_folds=5` once for each fold.

    Raises:
        MuraLabError: user errors.
    """
    with open_session("train", environment, resuming=config.resume) as session:
        config = with_latest(config, session)
        folds = find_folds(config, session, TrainConfig)
        if folds is None:
            train_once(config, session)
            return
        folds = replace(folds, options=with_fetched_data(folds.options, session))
        what = f"ensemble of {folds.number}" if folds.is_ensemble else f"{folds.number} folds"
        run_over_folds(
            folds,
            session,
            lambda fold: [train_once(fold.options, session, fold)],
            name=f"train {folds.options.recipe} · {folds.options.part} · {what}",
            finish=partial(finish_ensemble, folds.options) if folds.is_ensemble else None,
        )


def train_once(config: TrainConfig, session: Session, fold: Fold | None = None) -> EvaluatedModel:
    """Train, test and report once; of one of several folds, in a run below that of all folds."""
    sweep = load(config, session)
    session.warn(sweep.notes)
    estimated = plan(sweep, session)
    run_id = open_run(sweep, session, fold)
    sweep = sweep.of_run(run_id)
    session.hold(sweep.folders.sweep, run_id)
    resume = run_id if fold is None else fold.parent
    with session.resumable(resume_command("train", sweep.part, resume), run_id):
        spec = sweep.specs[0]
        describe(sweep, session, run_id)
        history = train(spec, session, run_id, estimated)
        session.writer.flush()
        record = read_run(session.store, run_id, predictions=False)
        tested = run_final_test(spec, record, session.writer, rule=sweep.config.options.threshold)
        print_figures(sweep, tested, session)
        save_report(sweep, tested, session)
        session.count_evaluations(sweep.part, tested.fingerprint)
    note = f"{model_note(tested.model)}\n\n{ended_note(spec, [], history, 'finished', '')}"
    session.writer.set_tags(run_id, {Tag.NOTE: note})
    session.writer.finish(run_id)
    session.writer.set_tags(run_id, {Tag.ENDED: "finished"})
    session.print_run(run_id)
    session.writer.flush()
    remove_sweep(sweep.folders.sweep)
    return tested.model


def finish_ensemble(
    config: TrainConfig, session: Session, parent: str, tested: Sequence[Sequence[EvaluatedModel]], _: DatasetSource
) -> None:
    """Make one model of the networks of an ensemble, test and report it in the run above theirs."""
    sweep = prepare(replace(config, ensemble=None, resume=None), session)
    ensemble = build_ensemble(session, parent, sweep, [models[0] for models in tested])
    print_figures(sweep, ensemble, session)
    save_report(sweep, ensemble, session)
    session.count_evaluations(sweep.part, ensemble.fingerprint)
    session.writer.set_tags(parent, {Tag.NOTE: model_note(ensemble.model)})


def load(config: TrainConfig, session: Session) -> Sweep:
    """A new training with all cores, or an interrupted one with its own options."""
    if config.resume is not None:
        session.hold_folder_of(config.resume)
        return load_sweep(
            config.resume,
            session.store,
            session.cache,
            session.progress,
            command=TrainConfig,
            kind="train",
            data=config.data,
            fetch=partial(with_fetched_data, session=session),
            accept_changes=config.accept_changes,
        )
    session.require_access(config.part)
    return prepare(config, session)


def prepare(config: TrainConfig, session: Session) -> Sweep:
    """A new training with all cores."""
    config = with_fetched_data(config, session)
    config = replace(config, cpus_per_trial=config.cpus_per_trial or count_cpus())
    sweep = prepare_sweep(resolve_search(config, (config.recipe,), trials=1), session.cache, session.progress)
    return replace(sweep, kind="train")


def plan(sweep: Sweep, session: Session) -> Estimate:
    """Print what is trained, on what, and about how long that takes.

    Raises:
        DiskError: the disk is too small for it.
    """
    estimated = estimate(sweep.specs, sweep.dataset, 1, paces=measure_paces(sweep.specs))
    sizes = {name: f"{len(table):,}" for name, table in sweep.dataset.tables.items()}
    (spec,), (_, recipe) = sweep.specs, recipes_of(sweep.specs[0])
    session.print(
        f"{recipe.summary}: {recipe.upper.epochs} + {recipe.full.epochs} epochs at {recipe.image_size} px, batches of "
        f"{recipe.batch_size}, {spec.precision} on {'a GPU' if spec.gpu else format_cores(spec.threads)}; about "
        f"{format_duration(estimated.wall_s)}, {estimated.disk_bytes / 2**30:.1f} GiB of disk.",
        f"Images of {sweep.part}: {sizes['train']} to train on, {sizes['validation']} for validation, "
        f"{sizes['test']} to test on.",
    )
    check_space(estimated.disk_bytes - estimated.present_bytes, sweep.folders.cache)
    return estimated


def open_run(sweep: Sweep, session: Session, fold: Fold | None = None) -> str:
    """The training's run: resumed, adopted from `mlflow run`, or started; of a fold, below that of all folds."""
    if sweep.resumed:
        return session.resume_run(sweep.resumed, nested=fold is not None, accepted=sweep.accepted)
    spec = sweep.specs[0]
    name, tags = f"train {spec.recipe} · {sweep.part}", trial_tags(spec, sweep.tags)
    if member := sweep.config.options.validation_fold:
        tags[Tag.ENSEMBLE] = member_tag(member)
    if fold is None:
        return session.start_run(name=name, part=sweep.part, tags=tags)
    return session.start_run(name=f"{name} · fold {fold.number}", part=sweep.part, tags=tags, parent=fold.parent)


def describe(sweep: Sweep, session: Session, run_id: str) -> None:
    """Write the plan, and log what is trained on what (of a resumed training, what has changed of it).

    The store takes it, or nothing is trained.

    Raises:
        StoreError: the store refuses something.
    """
    writer, spec, dataset = session.writer, sweep.specs[0], sweep.dataset
    write_plan(sweep)
    known = sweep.resumed is not None and (bool(sweep.accepted) or is_described(session.store, run_id))
    if known:
        relog_changed(writer, read_run(session.store, run_id, predictions=False), spec, dataset)
    else:
        log_description(writer, run_id, spec)
        writer.set_tags(run_id, {Tag.NOTE: running_note(spec, [])})
        log_sets(writer, run_id, dataset)
    if sweep.accepted or not known:
        log_split(writer, run_id, dataset)
        log_audit(writer, run_id, dataset)
    writer.require_written()
    writer.set_tags(run_id, {Tag.DESCRIBED: "true"})


def train(spec: TrialSpec, session: Session, run_id: str, estimated: Estimate) -> list[Mapping[str, Any]]:
    """Train to the end, logging and printing each epoch and which weights are kept; returns the epochs' metrics."""
    history: list[Mapping[str, Any]] = []
    row = TrialRow(name=spec.name, estimated_s=list(estimated.epoch_s[spec.recipe]))
    table = TrialTable({spec.name: row}, 1, spec.objective, session.console)
    table.started(spec.name)
    phases = recipes_of(spec)[1].phases
    with closing(run_trial(spec)) as epochs:
        for result in epochs:
            metrics = result.metrics()
            history.append(metrics)
            session.writer.log_epoch(run_id, result.global_epoch, objectives_of(history, spec) | metrics)
            table.epoch(spec.name, result.global_epoch, result.phase, metrics[spec.objective], result.seconds)
            left = format_duration(table.remaining_s())
            session.print(
                f"{result.phase} {result.epoch}/{phases[result.phase].epochs}: loss {result.train_loss:.3f}, val_loss "
                f"{metrics['val_loss']:.3f}, {spec.objective} {metrics[spec.objective]:.3f}"
                f"{' (best of this phase)' if result.best else ''}; {left} left"
            )
    score = score_trial(history, spec.objective, recipes_of(spec)[1].kept_phase)
    assert score is not None  # a recipe without an epoch is refused
    session.print(f"Kept: the best weights of the {score.phase} phase, {spec.objective} {score.objective:.4f}")
    session.writer.log_epoch(run_id, len(history), score.summary)
    session.writer.set_tags(run_id, {Tag.KEPT_PHASE: score.phase})
    predictions = read_predictions(predictions_path(spec.folder, score.phase))
    session.writer.log_predictions(run_id, "validation", predictions)
    return history


def print_figures(sweep: Sweep, tested: FinalTest, session: Session) -> None:
    """Print the figures before anything is uploaded: whatever happens to the store, they have been seen."""
    model = tested.model
    figures = ", ".join(f"{name} {model.intervals()[name]}" for name in main_metrics())
    session.print(f"{model.recipe}, test set of {sweep.part}, study level: {figures}")
    session.print(*filter(None, [confusion_sentence(model), missed_sentence(model)]))
    session.print(calibration_sentence(model))
    session.warn(calibration_notes([model]))


def save_report(sweep: Sweep, tested: FinalTest, session: Session) -> None:
    """Write the report of one model, and log it with its results in the model's run."""
    run_id = tested.model.run_id
    checks, groups = run_checks(sweep.dataset, tested), study_groups(sweep.dataset)
    log_checks(session.writer, run_id, checks, groups)
    session.print(*(f"{check.title}: {check.text}" for check in checks))
    session.print(*write_labels(tested.model, sweep.dataset, session.cache, run_id))
    context = build_context(
        sweep.config, sweep.dataset, weights=sweep.weights, notes=sweep.notes, checks=checks, groups=groups
    )
    with tempfile.TemporaryDirectory() as folder:
        page = write_report(
            Path(folder) / "report.html",
            context=context,
            models=[tested.model],
            previews=build_previews([tested.spec]),
            galleries=draw_galleries(SweepResult(sweep=sweep, parent=run_id, tests=[tested])),
        )
        session.writer.log_file(run_id, page)
        session.writer.log_table(run_id, results_table([tested.model]), "results.csv")
        session.writer.flush()

"""`tune`, the main job: search every recipe, test the best trial of each once, report, register the best model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from muralab.commands.folds import Fold, find_folds, run_over_folds
from muralab.commands.remote_data import with_fetched_data
from muralab.commands.session import Session, open_session, page_lines, with_latest
from muralab.commands.stored_sweep import bring_here, folders_of, open_storage, reach, storage_of
from muralab.config.commands import REGISTER_NONE, TuneConfig
from muralab.config.environment import Environment
from muralab.config.search import SearchConfig, resolve_search
from muralab.evaluation.evaluated_model import EvaluatedModel
from muralab.experiment import set_threads
from muralab.processor import count_cpus
from muralab.report.verdict import registered_sentence
from muralab.results.checks import log_checks, run_checks, study_groups
from muralab.results.context import build_context
from muralab.results.final_test import FinalTest
from muralab.results.inputs import log_audit, log_sets, log_split
from muralab.results.suspicious_labels import write_labels
from muralab.tracking import RunWriter, experiment_of, read_children, with_histories
from muralab.tracking.tags import Tag
from muralab.tune.cluster import early_ray, machines_of
from muralab.tune.disk_space import check_places, check_space
from muralab.tune.estimate import Estimate, estimate, measure_paces
from muralab.tune.extend import extend, fetch_plan
from muralab.tune.finish import (
    check_failures,
    closing_lines,
    describe_sweep,
    evaluate_best_trials,
    figure_lines,
    log_outcome,
    save_importances,
    save_report,
    save_results,
)
from muralab.tune.gpu_packing import pack_gpus
from muralab.tune.leftovers import remove_sweep
from muralab.tune.plan import Sweep, in_order, plan_summary, plan_table, prepare_sweep
from muralab.tune.preflight import memory_notes
from muralab.tune.ray_handle import EarlyRay, check_folder
from muralab.tune.registration import Registration, may_register, register, register_candidate
from muralab.tune.resume import is_described, load_sweep, write_plan
from muralab.tune.resume_command import resume_command
from muralab.tune.search import build_logger, run_search
from muralab.tune.sweep_notes import SweepPages, build_views, started_note
from muralab.tune.trial_logger import TrialLogger
from muralab.tune.warm_start import describe_choice, start_warm


def run(config: TuneConfig, environment: Environment) -> None:
    """Search, test, report, register; with `test_folds=5` search and test once for each fold.

    Raises:
        MuraLabError: user errors, before any trial starts.
    """
    with (
        early_ray(config, is_dry_run=config.dry_run) as ray,
        open_session("tune", environment, resuming=config.resume) as session,
    ):
        check_folder()
        config = with_latest(config, session)
        folds = find_folds(config, session, TuneConfig)
        if folds is None:
            search_once(config, session, ray)
            return
        folds = replace(folds, options=with_fetched_data(folds.options, session))
        if config.dry_run:
            search_once(folds.options_of(1), session, ray)
            session.print(f"This is the plan of each of the {folds.number} folds, which are searched in turn.")
        else:
            name = f"tune {folds.options.part} · {folds.number} folds"
            run_over_folds(folds, session, lambda fold: search_once(fold.options, session, ray, fold), name=name)


def search_once(
    config: TuneConfig, session: Session, ray: EarlyRay, fold: Fold | None = None
) -> Sequence[EvaluatedModel]:
    """One search with its final test; of one of several folds, in a run below that of all folds."""
    sweep = load(config, session)
    session.warn(sweep.notes)
    sweep, estimated = plan(sweep)
    session.console.print(plan_table(sweep.config, estimated))
    session.console.print(plan_summary(sweep.config, estimated), highlight=False)
    check_space(estimated.disk_bytes - estimated.present_bytes, sweep.folders.cache)
    check_places(session.store, len(sweep.config.recipes), estimated.weights_bytes)
    if config.dry_run:
        session.print("dry_run: nothing was started.")
        session.close_own_run("tune, dry run", "dry_run: the plan was printed and nothing was started.")
        return []
    options = sweep.config.options
    if sweep.resumed is not None:  # what another command works on is refused before its run is touched
        session.hold(sweep.folders.sweep, sweep.resumed)
        open_storage(options, sweep.folders, session, is_new=False)
    parent = open_run(sweep, session, fold)
    sweep = sweep.of_run(parent)
    session.hold(sweep.folders.sweep, parent)
    storage = open_storage(options, sweep.folders, session, is_new=sweep.resumed is None)
    resume = resume_command("tune", sweep.part, parent if fold is None else fold.parent, storage_of(options))
    with session.resumable(resume, parent):
        logger = build_logger(
            sweep,
            session.writer,
            session.console,
            parent=parent,
            epoch_s=estimated.epoch_s,
            on_interrupt=lambda: session.interrupted(resume, parent),
            storage=storage,
        )
        search(sweep, logger, session, ray)
        ray.end()  # where no trial was left to run
        logger.require_owner()
        models = finish(sweep, logger, session)
        logger.require_owner()
        session.writer.finish(parent)
        check_failures(logger)
    session.writer.flush()
    remove_sweep(sweep.folders.sweep)
    if storage is not None:
        session.warn(storage.remove())
    return models


def load(config: TuneConfig, session: Session) -> Sweep:
    """A new search, or an interrupted one with its own options."""
    if config.resume is None:
        if config.storage is not None:
            reach(config.storage)
        config = with_fetched_data(config, session)
        search_config = resolve_search(
            config,
            config.recipes,
            trials=config.trials,
            max_concurrent=config.max_concurrent,
            time_budget_s=config.time_budget,
            search=config.search,
            pruning=config.pruning,
            machines=machines_of(config),
        )
        check = partial(check_access, search_config, session, is_dry_run=config.dry_run)
        sweep = prepare_sweep(search_config, session.cache, session.progress, check_access=check)
        if config.warm_start:
            sweep = start_warm(sweep, session.store, config.warm_start)
        return sweep.with_notes(describe_choice(sweep))
    session.hold_folder_of(config.resume)  # before files are brought there, and after, if they make the folder
    folders = folders_of(config.resume, session)
    if not config.dry_run or not folders.plan.is_file():  # a dry run takes no sweep away
        bring_here(config.resume, config.storage, session)
    session.hold_folder_of(config.resume)
    more = int(config.trials) if isinstance(config.trials, str) else 0
    ended = fetch_plan(session.store, config.resume, folders) if more and not folders.plan.exists() else None
    sweep = load_sweep(
        config.resume,
        session.store,
        session.cache,
        session.progress,
        command=TuneConfig,
        kind="tune",
        data=config.data,
        fetch=partial(with_fetched_data, session=session),
        accept_changes=config.accept_changes,
        elsewhere={"ray_address": config.ray_address, "storage": config.storage},
        plan=ended,
    )
    check_access(sweep.config, session, resumed=config.resume, is_dry_run=config.dry_run)
    session.print(f"Resuming the sweep {config.resume} with its own options.")
    return extend(sweep, more, has_ended=ended is not None) if more else sweep


def check_access(config: SearchConfig, session: Session, *, is_dry_run: bool, resumed: str | None = None) -> None:
    """Make sure, before any trial, that this user may write what a search will write, and register its model.

    Raises:
        StoreError: the experiment or the registered model is another user's.
    """
    options = config.options
    registers = options.test_folds is None and may_register(config.recipes, getattr(options, "register", REGISTER_NONE))
    if not is_dry_run:
        session.require_access(options.part, registers=registers, resumed=resumed)


def plan(sweep: Sweep) -> tuple[Sweep, Estimate]:
    """Settle shared GPUs and the order of the trials, and estimate the cost."""
    paces = measure_paces(sweep.specs)
    sweep = pack_gpus(sweep, paces).with_notes(memory_notes(paces))
    resources = sweep.config.resources
    estimated = estimate(sweep.specs, sweep.dataset, resources.max_concurrent, paces=paces, gpus=resources.gpus)
    return sweep.with_specs(in_order(sweep.specs, estimated)), estimated


def open_run(sweep: Sweep, session: Session, fold: Fold | None = None) -> str:
    """The search's own run: resumed, adopted from `mlflow run`, or started; of a fold, below that of all folds."""
    if sweep.resumed:
        return session.resume_run(sweep.resumed, nested=fold is not None, accepted=sweep.accepted)
    name = sweep_title(sweep)
    if fold is None:
        return session.start_run(name=name, part=sweep.part, tags=sweep.tags)
    return session.start_run(name=f"{name} · fold {fold.number}", part=sweep.part, tags=sweep.tags, parent=fold.parent)


def search(sweep: Sweep, logger: TrialLogger, session: Session, ray: EarlyRay) -> None:
    """Describe a new search in its run, or restore what a resumed one has done; then run its trials.

    Raises:
        StoreError: the store does not take a tag, a param or an artifact of the search's own run.
    """
    writer, parent, past = session.writer, logger.parent, {}
    write_plan(sweep)  # also of a resumed one: its folders may have moved, and its inputs may have changed
    if logger.storage is not None:
        logger.storage.start()
    known = sweep.resumed is not None and (bool(sweep.accepted) or is_described(session.store, parent))
    if not known:
        log_options(sweep, parent, writer)
    if sweep.accepted or not known:
        log_sets(writer, parent, sweep.dataset)
        log_split(writer, parent, sweep.dataset)
        log_audit(writer, parent, sweep.dataset)
    writer.set_tags(parent, {Tag.DESCRIBED: "true"})
    if sweep.resumed:
        records = read_children(session.store, parent, history=False)
        past = logger.restore(with_histories(session.store, records, {"phase", sweep.config.options.objective}))
    writer.log_file(parent, sweep.folders.plan)
    writer.require_written()
    if not sweep.resumed:
        show(sweep, parent, session)
    if sweep.extended:
        writer.set_tags(parent, {Tag.RUN_NAME: sweep_title(sweep), Tag.EXTENDED: str(sweep.extended)})
    run_search(sweep, logger, session.console, past=past, prune=sweep.config.pruning, start_ray=ray)
    writer.log_file(parent, sweep.folders.plan)  # with the values that were chosen: it may be extended
    writer.flush()


def log_options(sweep: Sweep, parent: str, writer: RunWriter) -> None:
    """Log the options of a search in its own run."""
    config = sweep.config
    register = getattr(config.options, "register", "")
    drawn = {"search": config.search, "pruning": "on" if config.pruning else "off", "register": register}
    drawn["warm_start"] = str(getattr(config.options, "warm_start", False)).lower()
    budget = "none" if config.time_budget_s is None else f"{config.time_budget_s:g}"
    writer.log_used(parent, sweep.used | drawn | {"time_budget": budget})


def show(sweep: Sweep, parent: str, session: Session) -> None:
    """Save the views of the trials, and print where they can be watched."""
    pages = pages_of(parent, session)
    for view in build_views(sweep, sweep_title(sweep), parent):
        session.writer.save_view(parent, view)
    session.writer.set_tags(parent, {Tag.NOTE: started_note(sweep, pages)})
    session.print("Watch it in MLflow:", *page_lines(session.store, pages.view))


def pages_of(parent: str, session: Session) -> SweepPages:
    """Where the pages of a search are."""
    return SweepPages(experiment_id=experiment_of(session.store, parent), run_id=parent)


def finish(sweep: Sweep, logger: TrialLogger, session: Session) -> Sequence[EvaluatedModel]:
    """Final test, results, registration (not of a fold), report, closing lines; returns the tested models.

    Raises:
        MuraLabError: no trial of any recipe reached its full phase.
        Exception: whatever kept the model from being registered; the report is written by then, and says so.
    """
    session.print("Evaluating the best trial of each recipe on the test set.")
    set_threads(count_cpus())
    result = evaluate_best_trials(sweep, logger, session.store)
    session.print(*figure_lines(result))
    save_results(result, session.writer)
    save_importances(result, session.writer)
    checks, groups = run_checks(sweep.dataset, result.best), study_groups(sweep.dataset)
    log_checks(session.writer, result.parent, checks, groups)
    session.print(*(f"{check.title}: {check.text}" for check in checks))
    if result.best is not None:
        session.print(*write_labels(result.best.model, sweep.dataset, session.cache, result.parent))
    context = build_context(
        sweep.config, sweep.dataset, weights=sweep.weights, notes=result.notes, checks=checks, groups=groups
    )

    def register_model(test: FinalTest) -> Registration:
        session.print(f"Exporting, checking and registering the model of {test.model.recipe}.")
        why = registered_sentence(result.models, test.model.recipe, part=sweep.part)
        return register(test, sweep, session.store, context, why)

    outcome = register_candidate(sweep, result.tests, register_model)
    save_report(result, outcome, context, session.writer)
    log_outcome(result, outcome, session.writer)
    describe_sweep(result, outcome, pages_of(result.parent, session), session.writer)
    session.count_evaluations(sweep.part, result.tests[0].fingerprint)
    session.print(*closing_lines(result, outcome, session.store), "")
    session.print_run(result.parent, "The report and all runs are in MLflow, run")
    if outcome.error is not None:
        raise outcome.error
    return result.models


def sweep_title(sweep: Sweep) -> str:
    """The name of a search's run, such as `tune wrist · 4 recipes × 8 trials`."""
    recipes, trials = list(sweep.config.recipes), sweep.config.trials
    what = recipes[0] if len(recipes) == 1 else f"{len(recipes)} recipes"
    return f"tune {sweep.part} · {what} × {trials} trial{'s' * (trials > 1)}"

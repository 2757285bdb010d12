"""`tune`, the main job: search every recipe, test the best trial of each once, report, register the best model."""

from __future__ import annotations

from muralab.commands.session import Session, find_resumed, open_session
from muralab.config.commands import TuneConfig
from muralab.config.environment import Environment
from muralab.config.resources import count_cpus
from muralab.config.search import resolve_search
from muralab.experiment import set_threads
from muralab.results.context import build_context
from muralab.results.final_test import FinalTest
from muralab.results.inputs import log_audit, log_sets, log_split
from muralab.tracking import read_children
from muralab.tracking.tags import Tag
from muralab.tune.disk_space import check_places, check_space
from muralab.tune.estimate import Estimate, estimate, measure_paces
from muralab.tune.finish import (
    check_failures,
    closing_lines,
    evaluate_best_trials,
    log_outcome,
    save_report,
    save_results,
)
from muralab.tune.gpu_packing import pack_gpus
from muralab.tune.leftovers import remove_sweep
from muralab.tune.plan import Sweep, in_order, plan_summary, plan_table, prepare_sweep
from muralab.tune.preflight import memory_notes
from muralab.tune.ray_handle import check_folder
from muralab.tune.registration import Registration, register, register_candidate
from muralab.tune.resume import is_described, load_sweep, resume_command, write_plan
from muralab.tune.search import build_logger, run_search
from muralab.tune.trial_logger import TrialLogger


def run(config: TuneConfig, environment: Environment) -> None:
    """Search, test, report, register.

    Raises:
        MuraLabError: user errors, before any trial starts.
    """
    with open_session("tune", environment, resuming=config.resume) as session:
        check_folder()
        sweep = load(config, session)
        session.warn(sweep.notes)
        sweep, estimated = plan(sweep)
        session.console.print(plan_table(sweep.config, estimated))
        session.console.print(plan_summary(sweep.config, estimated), highlight=False)
        check_space(estimated.disk_bytes - estimated.present_bytes, sweep.folders.cache)
        check_places(session.store, len(sweep.config.recipes), estimated.weights_bytes)
        if config.dry_run:
            session.print("dry_run: nothing was started.")
            return
        parent = open_run(sweep, session)
        sweep = sweep.of_run(parent)
        if not sweep.resumed:
            session.hold(sweep.folders.sweep, parent)
        resume = resume_command("tune", sweep.part, parent)
        with session.resumable(resume):
            logger = build_logger(
                sweep,
                session.writer,
                session.console,
                parent=parent,
                epoch_s=estimated.epoch_s,
                on_interrupt=lambda: session.interrupted(resume),
            )
            search(sweep, logger, session)
            finish(sweep, logger, session)
            session.writer.finish(parent)
            session.writer.flush()
            check_failures(logger)
    remove_sweep(sweep.folders.sweep)


def load(config: TuneConfig, session: Session) -> Sweep:
    """A new search, or an interrupted one with its own options."""
    if config.resume is None:
        search_config = resolve_search(
            config,
            config.recipes,
            trials=config.trials,
            max_concurrent=config.max_concurrent,
            time_budget_s=config.time_budget,
            sampler=config.sampler,
            pruning=config.pruning,
        )
        return prepare_sweep(search_config, session.cache, session.progress)
    run_id = find_resumed(config.resume, session, "tune")
    sweep = load_sweep(run_id, session.store, session.cache, session.progress, command=TuneConfig, kind="tune")
    session.print(f"Resuming the sweep {run_id} with its own options.")
    return sweep


def plan(sweep: Sweep) -> tuple[Sweep, Estimate]:
    """Settle shared GPUs and the order of the trials, and estimate the cost."""
    paces = measure_paces(sweep.specs)
    sweep = pack_gpus(sweep, paces).with_notes(memory_notes(paces))
    resources = sweep.config.resources
    estimated = estimate(sweep.specs, sweep.dataset, resources.max_concurrent, paces=paces, gpus=resources.gpus)
    return sweep.with_specs(in_order(sweep.specs, estimated)), estimated


def open_run(sweep: Sweep, session: Session) -> str:
    """The search's own run: resumed, adopted from `mlflow run`, or started."""
    if sweep.resumed:
        return session.resume_run(sweep.resumed, {**sweep.tags})
    return session.start_run(name=f"tune-{sweep.part}", part=sweep.part, tags=sweep.tags)


def search(sweep: Sweep, logger: TrialLogger, session: Session) -> None:
    """Describe a new search in its run, or restore what a resumed one has done; then run its trials."""
    writer, parent, past = session.writer, logger.parent, {}
    if not sweep.resumed:
        write_plan(sweep)
    if not sweep.resumed or not is_described(session.store, parent):
        writer.log_resolved(parent, {"recipes": ",".join(sweep.config.recipes), "trials": sweep.config.trials})
        log_sets(writer, parent, sweep.dataset)
        log_split(writer, parent, sweep.dataset)
        log_audit(writer, parent, sweep.dataset)
        writer.set_tags(parent, {Tag.DESCRIBED: "true"})
    if sweep.resumed:
        past = logger.restore(read_children(session.store, parent))
    run_search(sweep, logger, session.console, past=past, prune=sweep.config.pruning)
    writer.flush()


def finish(sweep: Sweep, logger: TrialLogger, session: Session) -> None:
    """Final test, results, registration, report, closing lines.

    Raises:
        MuraLabError: no trial of any recipe reached its full phase.
        Exception: whatever kept the model from being registered; the report is written by then, and says so.
    """
    session.print("Evaluating the best trial of each recipe on the test set.")
    set_threads(count_cpus())
    result = evaluate_best_trials(sweep, logger, session.store)
    save_results(result, session.writer)
    context = build_context(sweep.config, sweep.dataset, weights=sweep.weights, notes=result.notes)

    def register_model(test: FinalTest) -> Registration:
        session.print(f"Exporting, checking and registering the model of {test.model.recipe}.")
        return register(test, sweep, session.store, context)

    outcome = register_candidate(sweep, result.tests, register_model)
    save_report(result, outcome, context, session.writer)
    log_outcome(result, outcome, session.writer)
    session.count_evaluations(sweep.part, result.models[0].predictions())
    session.print(*closing_lines(result, outcome, session.store.uri), "")
    session.print_run(result.parent, "The report and all runs are in MLflow, run")
    if outcome.error is not None:
        raise outcome.error

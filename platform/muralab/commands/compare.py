"""`compare`: does one architecture beat another? Every recipe unchanged, several seeds, one budget, one sentence.

No search and no pruning: each recipe trains once with each seed on the same split, and each model is evaluated on the
test set. What differs between two models of one seed is the recipe alone; what differs between seeds is chance.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from muralab.commands.session import Session, open_session
from muralab.config.commands import CompareConfig
from muralab.config.environment import Environment
from muralab.config.search import resolve_search
from muralab.console import format_duration
from muralab.errors import SettingsError
from muralab.evaluation.evaluated_model import EvaluatedModel
from muralab.experiment import set_threads
from muralab.processor import count_cpus
from muralab.report.page import write_report
from muralab.report.results_table import results_table
from muralab.report.sentences import calibration_notes
from muralab.results.checks import log_checks, run_checks
from muralab.results.comparison_text import budget, comparison_sentence, difference_table, unpaired
from muralab.results.context import build_context
from muralab.results.final_test import run_final_test
from muralab.results.inputs import log_audit, log_sets, log_split
from muralab.results.leakage import without_leakage
from muralab.results.seed_comparison import Comparison, compare_models
from muralab.tracking import find_records
from muralab.tracking.tags import Tag
from muralab.trial import TrialSpec
from muralab.tune.disk_space import check_space
from muralab.tune.estimate import Estimate, estimate, measure_paces
from muralab.tune.gpu_packing import pack_gpus
from muralab.tune.leftovers import remove_sweep
from muralab.tune.plan import Sweep, prepare_sweep
from muralab.tune.ray_handle import check_folder
from muralab.tune.resume import write_plan
from muralab.tune.search import build_logger, run_search
from muralab.tune.trial_logger import TrialLogger


def run(config: CompareConfig, environment: Environment) -> None:
    """Train every recipe with every seed, and state the paired differences to the first recipe.

    Raises:
        MuraLabError: user errors; no recipe that could be compared.
    """
    with open_session("compare", environment) as session:
        check_folder()
        search_config = resolve_search(config, config.recipes, trials=1, max_concurrent=config.max_concurrent)
        if not config.dry_run:
            session.require_access(config.part)
        sweep = prepare_sweep(search_config, session.cache, session.progress)
        _, left_out = without_leakage(sweep.dataset)
        session.warn(filter(None, [*sweep.notes, left_out]))
        sweep, estimated = plan(sweep, config)
        check_space(estimated.disk_bytes - estimated.present_bytes, sweep.folders.cache)
        session.print(plan_line(sweep, config, estimated))
        if config.dry_run:
            session.print("dry_run: nothing was started.")
            session.close_own_run("compare, dry run", "dry_run: the plan was printed and nothing was started.")
            return
        parent = session.start_run(name=comparison_title(sweep, config), part=sweep.part, tags=sweep.tags)
        sweep = replace(sweep.of_run(parent), kind="compare")
        session.hold(sweep.folders.sweep, parent)
        try:
            logger = start(sweep, session, parent, config, estimated.epoch_s)
            run_search(sweep, logger, session.console, prune=False)
            finish(sweep, logger, session)
        except KeyboardInterrupt:
            session.print("The comparison was stopped and cannot be resumed; the figures of its trials stay in MLflow.")
            raise
        finally:  # a comparison is never resumed, and every trial has kept its weights there
            remove_sweep(sweep.folders.sweep)
        session.writer.finish(parent)


def plan(sweep: Sweep, config: CompareConfig) -> tuple[Sweep, Estimate]:
    """Every recipe with every seed, and about what that costs."""
    paces = measure_paces(sweep.specs)
    seeds = range(config.seed, config.seed + config.seeds)
    sweep = pack_gpus(sweep.with_specs([with_seed(spec, seed) for seed in seeds for spec in sweep.specs]), paces)
    resources = sweep.config.resources
    concurrent, gpus = resources.max_concurrent, resources.gpus
    return sweep, estimate(sweep.specs, sweep.dataset, concurrent, paces=paces, gpus=gpus, keep_all=True)


def plan_line(sweep: Sweep, config: CompareConfig, estimated: Estimate) -> str:
    """The plan in one line."""
    recipes = sweep.config.recipes
    return (
        f"{len(recipes)} recipes x {config.seeds} seed{'s' * (config.seeds > 1)} on one split, "
        f"{budget(recipes)}, no pruning: {len(sweep.specs)} trials, about {format_duration(estimated.wall_s)}."
    )


def comparison_title(sweep: Sweep, config: CompareConfig) -> str:
    """The name of a comparison's run."""
    return f"compare {', '.join(sweep.config.recipes)} · {config.seeds} seed{'s' * (config.seeds > 1)} · {sweep.part}"


def with_seed(spec: TrialSpec, seed: int) -> TrialSpec:
    """A recipe's trial with another seed."""
    name = f"{spec.recipe}-seed{seed}"
    return replace(spec, name=name, seed=seed, folder=str(Path(spec.folder).parent / name))


def start(
    sweep: Sweep, session: Session, parent: str, config: CompareConfig, epoch_s: Mapping[str, list[float]]
) -> TrialLogger:
    """Describe the comparison in its run; returns the listener of its trials.

    Raises:
        StoreError: the store refuses something.
    """
    writer = session.writer
    write_plan(sweep)
    used = {key: value for key, value in sweep.used.items() if key != "trials"}
    writer.log_used(parent, used | {"seeds": config.seeds})
    log_sets(writer, parent, sweep.dataset)
    log_split(writer, parent, sweep.dataset)
    log_audit(writer, parent, sweep.dataset)
    writer.require_written()
    return build_logger(
        sweep,
        writer,
        session.console,
        parent=parent,
        epoch_s=epoch_s,
        on_interrupt=lambda: writer.end_open_runs("KILLED"),
        keep_all=True,
    )


def finish(sweep: Sweep, logger: TrialLogger, session: Session) -> None:
    """Evaluate every model on the test set, and state and report the differences.

    Raises:
        SettingsError: no recipe shares a finished seed with the first one.
    """
    session.print("Evaluating every model on the test set.")
    set_threads(count_cpus())
    complete = [
        spec for spec in sweep.specs if spec.name not in logger.failures and logger.reached_full_phase(spec.name)
    ]
    models = evaluate_models(complete, sweep, logger, session)
    if models:
        any_model = next(iter(models.values()))  # all have one test set
        session.count_evaluations(sweep.part, sweep.dataset.fingerprint(any_model.predictions()))
    recipes = list(sweep.config.recipes)
    unseen, left_out = without_leakage(sweep.dataset)
    studies = list(unseen.tables["test"]["study"].unique())
    comparisons = compare_models({name: model.on(studies) for name, model in models.items()}, complete, recipes)
    missing = unpaired(comparisons, recipes, logger.failures)
    if not models:
        raise SettingsError(" ".join(missing))
    found = [comparison_sentence(one, sweep.config.recipes, unseen) for one in comparisons]
    sentences = [*found, *filter(None, [left_out]), *missing]
    if comparisons:
        session.print("", *sentences, "")
        session.warn(calibration_notes(list(models.values())))
    save_report(sweep, logger, session, list(models.values()), comparisons, sentences)
    if not comparisons:
        raise SettingsError(f"{' '.join(missing)} The figures of complete trainings are in the run {logger.parent}.")
    session.print_run(logger.parent)


def evaluate_models(
    specs: Sequence[TrialSpec], sweep: Sweep, logger: TrialLogger, session: Session
) -> dict[str, EvaluatedModel]:
    """Trial -> its model, evaluated on the test set. Each network is released at once: ten of them fill the memory."""
    session.writer.flush()
    run_ids = [session.writer.run_id(logger.runs[spec.name]) for spec in specs]
    records = find_records(session.store, logger.parent, run_ids)
    models = {}
    for spec, run_id in zip(specs, run_ids, strict=True):
        record = records[run_id]
        rule = sweep.config.options.threshold
        model = run_final_test(spec, record, session.writer, rule=rule, keep_weights=False).model
        models[spec.name] = replace(model, name=spec.name, title=f"{model.title}, seed {spec.seed}")
    return models


def save_report(
    sweep: Sweep,
    logger: TrialLogger,
    session: Session,
    models: Sequence[EvaluatedModel],
    comparisons: Sequence[Comparison],
    sentences: Sequence[str],
) -> None:
    """Log the sentences, the differences, the results and the report in the comparison's run."""
    writer, parent = session.writer, logger.parent
    failed = [f"The trial {name} failed and its seed is left out." for name in logger.failures]
    checks = run_checks(sweep.dataset, None)
    log_checks(writer, parent, checks)
    context = build_context(
        sweep.config,
        sweep.dataset,
        weights=sweep.weights,
        notes=[*sweep.notes, *failed],
        statements=sentences,
        title=f"MURA Lab: {sweep.part}, a comparison",
        comparison=True,
        checks=checks,
    )
    with tempfile.TemporaryDirectory() as folder:
        page = write_report(Path(folder) / "report.html", context=context, models=models, champion="")
        writer.log_file(parent, page)
        writer.log_table(parent, results_table(models), "results.csv")
        writer.log_table(parent, difference_table(comparisons), "differences.csv")
        writer.log_text(parent, "\n".join(sentences) + "\n", "comparison.md")
        writer.set_tags(parent, {Tag.COMPARISON: " ".join(sentences), Tag.NOTE: "\n\n".join(sentences)})
        writer.flush()

"""`compare`: does one architecture beat another? Every recipe unchanged, several seeds, one budget, one sentence.

No search and no pruning: each recipe trains once with each seed on the same split, and each model is evaluated on the
test set. What differs between two models of one seed is the recipe alone; what differs between seeds is chance. With
`test_folds=5` this is done for each fold, in a run below the comparison's, and the models of all folds are evaluated as
one: every patient is tested once by each recipe and seed.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from muralab.commands.remote_data import with_fetched_data
from muralab.commands.session import Session, open_session
from muralab.config.commands import CompareConfig
from muralab.config.environment import Environment
from muralab.config.search import resolve_search
from muralab.console import format_duration
from muralab.data.dataset import Dataset
from muralab.errors import SettingsError
from muralab.evaluation.evaluated_model import EvaluatedModel
from muralab.evaluation.pooled_model import pool_models
from muralab.experiment import set_threads
from muralab.processor import count_cpus
from muralab.report.page import write_report
from muralab.report.results_table import results_table
from muralab.report.sentences import calibration_notes
from muralab.results.checks import log_checks, run_checks
from muralab.results.comparison_text import budget, comparison_sentence, difference_table, unpaired
from muralab.results.context import build_context
from muralab.results.final_test import run_final_test
from muralab.results.folds import count_folds
from muralab.results.inputs import log_audit, log_sets, log_split
from muralab.results.leakage import without_leakage
from muralab.results.seed_comparison import Comparison, compare_models
from muralab.tracking import find_records
from muralab.tracking.tags import Tag
from muralab.trial import TrialSpec
from muralab.tune.cluster import early_ray
from muralab.tune.disk_space import check_space
from muralab.tune.estimate import Estimate, estimate, measure_paces
from muralab.tune.gpu_packing import pack_gpus
from muralab.tune.leftovers import remove_sweep
from muralab.tune.plan import Sweep, prepare_sweep, source_of
from muralab.tune.ray_handle import EarlyRay, check_folder
from muralab.tune.resume import write_plan
from muralab.tune.search import build_logger, run_search
from muralab.tune.trial_logger import TrialLogger


@dataclass(frozen=True, kw_only=True)
class SplitResult:
    """What was trained and tested on one split: the only one, or that of a fold."""

    sweep: Sweep
    models: Mapping[str, EvaluatedModel]
    """Trial -> its model, of the trials that were complete."""
    unseen: Dataset
    """The data set without the test patients of whom every model has seen a copy; see `without_leakage`."""
    left_out: str
    """What `unseen` leaves out, in a sentence; empty for nothing."""
    failures: Mapping[str, str]
    """Trial -> why it failed."""

    @property
    def compared(self) -> dict[str, EvaluatedModel]:
        """The models on the test studies that they are compared on."""
        studies = list(self.unseen.tables["test"]["study"].unique())
        return {name: model.on(studies) for name, model in self.models.items()}


def run(config: CompareConfig, environment: Environment) -> None:
    """Train every recipe with every seed, and state the paired differences to the first recipe.

    With `test_folds=5` once for each fold; the differences are then over all patients, each tested once.

    Raises:
        MuraLabError: user errors; no recipe that could be compared.
    """
    with early_ray(config, is_dry_run=config.dry_run) as ray, open_session("compare", environment) as session:
        check_folder()
        if not config.dry_run:
            session.require_access(config.part)
        config = with_fetched_data(config, session)
        splits = options_by_fold(config)
        for options in splits[1:]:  # what is wrong with a later fold is found before the first is trained
            source_of(options)
        sweep, estimated = prepare(splits[0], session)
        session.print(plan_line(sweep, config, estimated, n_folds=len(splits)))
        if config.dry_run:
            session.print("dry_run: nothing was started.")
            session.close_own_run("compare, dry run", "dry_run: the plan was printed and nothing was started.")
            return
        title = comparison_title(sweep, config)
        parent = session.start_run(name=title, part=sweep.part, tags=parent_tags(sweep, config))
        tested = []
        try:
            if len(splits) == 1:
                tested.append(train_and_test(sweep, estimated, config, session, parent, ray))
            for number, options in enumerate(splits if len(splits) > 1 else (), start=1):
                session.print(f"\nFold {number} of {len(splits)}:")
                if number > 1:
                    sweep, estimated = prepare(options, session)
                name = f"{title} · fold {number}"
                run_id = session.start_run(name=name, part=sweep.part, tags=sweep.tags, parent=parent)
                tested.append(train_and_test(sweep, estimated, config, session, run_id, ray))
                session.writer.finish(run_id)
        except KeyboardInterrupt:
            session.print("The comparison was stopped and cannot be resumed; the figures of its trials stay in MLflow.")
            raise
        finish(tested, session, parent)
        session.writer.finish(parent)


def options_by_fold(config: CompareConfig) -> list[CompareConfig]:
    """The options of each fold; the given ones alone for one test set."""
    if config.test_folds is None or config.test_folds[0]:
        return [config]
    n_folds = config.test_folds[1]
    return [replace(config, test_folds=(fold, n_folds)) for fold in range(1, n_folds + 1)]


def parent_tags(sweep: Sweep, config: CompareConfig) -> dict[str, str]:
    """Tags of the comparison's run; over folds, without those of the first fold's split."""
    if len(options_by_fold(config)) == 1:
        return sweep.tags
    tags = {key: value for key, value in sweep.tags.items() if key != Tag.SPLIT_FINGERPRINT}
    return tags | {Tag.PROTOCOL: f"test_folds={len(options_by_fold(config))}"}


def prepare(config: CompareConfig, session: Session) -> tuple[Sweep, Estimate]:
    """The trials of one split, checked in full, and about what they cost."""
    search_config = resolve_search(config, config.recipes, trials=1, max_concurrent=config.max_concurrent)
    sweep = prepare_sweep(search_config, session.cache, session.progress)
    _, left_out = without_leakage(sweep.dataset)
    session.warn(filter(None, [*sweep.notes, left_out]))
    sweep, estimated = plan(sweep, config)
    check_space(estimated.disk_bytes - estimated.present_bytes, sweep.folders.cache)
    return sweep, estimated


def train_and_test(
    sweep: Sweep, estimated: Estimate, config: CompareConfig, session: Session, run_id: str, ray: EarlyRay
) -> SplitResult:
    """Train every recipe with every seed on one split, and evaluate each model on its test set."""
    sweep = replace(sweep.of_run(run_id), kind="compare")
    session.hold(sweep.folders.sweep, run_id)
    try:
        logger = start(sweep, session, run_id, config, estimated.epoch_s)
        run_search(sweep, logger, session.console, prune=False, start_ray=ray)
        session.print("Evaluating every model on the test set.")
        set_threads(count_cpus())
        complete = [
            spec for spec in sweep.specs if spec.name not in logger.failures and logger.reached_full_phase(spec.name)
        ]
        models = evaluate_models(complete, sweep, logger, session)
    finally:  # a comparison is never resumed, and every trial has kept its weights there
        remove_sweep(sweep.folders.sweep)
    if models:
        any_model = next(iter(models.values()))  # all have one test set
        session.count_evaluations(sweep.part, sweep.dataset.fingerprint(any_model.predictions()))
    unseen, left_out = without_leakage(sweep.dataset)
    return SplitResult(sweep=sweep, models=models, unseen=unseen, left_out=left_out, failures=dict(logger.failures))


def plan(sweep: Sweep, config: CompareConfig) -> tuple[Sweep, Estimate]:
    """Every recipe with every seed, and about what that costs."""
    paces = measure_paces(sweep.specs)
    seeds = range(config.seed, config.seed + config.seeds)
    sweep = pack_gpus(sweep.with_specs([with_seed(spec, seed) for seed in seeds for spec in sweep.specs]), paces)
    resources = sweep.config.resources
    concurrent, gpus = resources.max_concurrent, resources.gpus
    return sweep, estimate(sweep.specs, sweep.dataset, concurrent, paces=paces, gpus=gpus, keep_all=True)


def plan_line(sweep: Sweep, config: CompareConfig, estimated: Estimate, n_folds: int = 1) -> str:
    """The plan in one line."""
    recipes = sweep.config.recipes
    where = "one split" if n_folds == 1 else f"each of {n_folds} folds"
    return (
        f"{len(recipes)} recipes x {config.seeds} seed{'s' * (config.seeds > 1)} on {where}, "
        f"{budget(recipes)}, no pruning: {n_folds * len(sweep.specs)} trials, about "
        f"{format_duration(n_folds * estimated.wall_s)}."
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


def finish(tested: Sequence[SplitResult], session: Session, parent: str) -> None:
    """State and report the differences.

    Raises:
        SettingsError: no recipe shares a finished seed with the first one.
    """
    sweep, recipes = tested[0].sweep, list(tested[0].sweep.config.recipes)
    models = over_folds([dict(one.models) for one in tested])
    complete = [spec for spec in sweep.specs if spec.name in models]
    comparisons = compare_models(over_folds([one.compared for one in tested]), complete, recipes)
    failures = {
        name if len(tested) == 1 else f"{name} of fold {fold}": reason
        for fold, one in enumerate(tested, start=1)
        for name, reason in one.failures.items()
    }
    missing = unpaired(comparisons, recipes, failures)
    if not models:
        raise SettingsError(" ".join(missing))
    unseen = [one.unseen for one in tested]
    found = [comparison_sentence(one, sweep.config.recipes, *unseen) for one in comparisons]
    sentences = [*found, *dict.fromkeys(one.left_out for one in tested if one.left_out), *missing]
    if comparisons:
        session.print("", *sentences, "")
        session.warn(calibration_notes(list(models.values())))
    save_report(tested, session, parent, list(models.values()), comparisons, sentences, list(failures))
    if not comparisons:
        raise SettingsError(f"{' '.join(missing)} The figures of complete trainings are in the run {parent}.")
    session.print_run(parent)


def over_folds(models: Sequence[Mapping[str, EvaluatedModel]]) -> dict[str, EvaluatedModel]:
    """Trial -> its model, or its models of all folds as one; only trials that every fold has.

    Args:
        models: of each fold.
    """
    if len(models) == 1:
        return dict(models[0])
    names = [name for name in models[0] if all(name in fold for fold in models)]
    return {name: pool_models([fold[name] for fold in models], name=name) for name in names}


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
    tested: Sequence[SplitResult],
    session: Session,
    parent: str,
    models: Sequence[EvaluatedModel],
    comparisons: Sequence[Comparison],
    sentences: Sequence[str],
    failures: Sequence[str],
) -> None:
    """Log the sentences, the differences, the results and the report in the comparison's run."""
    writer, sweep = session.writer, tested[0].sweep
    failed = [f"The trial {name} failed and its seed is left out." for name in failures]
    checks = run_checks(sweep.dataset, None) if len(tested) == 1 else []
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
    if len(tested) > 1:
        context = replace(
            context,
            protocol=f"test_folds={len(tested)}",
            split_counts=count_folds([one.sweep.dataset.tables["test"] for one in tested]),
            fingerprint=" / ".join(one.sweep.dataset.splits.fingerprint for one in tested),
        )
    with tempfile.TemporaryDirectory() as folder:
        page = write_report(Path(folder) / "report.html", context=context, models=models, champion="")
        writer.log_file(parent, page)
        writer.log_table(parent, results_table(models), "results.csv")
        writer.log_table(parent, difference_table(comparisons), "differences.csv")
        writer.log_text(parent, "\n".join(sentences) + "\n", "comparison.md")
        writer.set_tags(parent, {Tag.COMPARISON: " ".join(sentences), Tag.NOTE: "\n\n".join(sentences)})
        writer.flush()

"""`test_folds=5` of `train` and `tune`: one run per fold below a run of their own, then the figures over all folds.

`ensemble=5` of `train` goes over folds of the training patients in the same way; what follows them is in `ensemble`.

Each fold is a training or a search like any other, with its own test patients. The run above them holds `folds.csv`
(the figures of each fold and over all of them) and `out_of_fold.csv` (every study, tested by a model trained without
it).
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from muralab.atomic import atomic_path
from muralab.commands.session import Session
from muralab.commands.stored_sweep import (
    fetch_folds,
    folders_of,
    moved_options,
    open_storage,
    reach,
    refuse_ended,
    storage_of,
)
from muralab.config.options import restore_options
from muralab.config.training_options import DEMO, TrainingOptions
from muralab.data.mirror import path_or_uri
from muralab.data.name_keys import NAMES_FOLDER
from muralab.data.names import code_names
from muralab.data.source import DatasetSource
from muralab.errors import SettingsError, StoreError
from muralab.evaluation.evaluated_model import EvaluatedModel
from muralab.evaluation.pooled_model import PooledModel, pool_models
from muralab.report.context import Check, Context
from muralab.report.page import write_report
from muralab.results.checks import log_checks
from muralab.results.folds import count_folds, fold_lines, fold_metrics, fold_table, pooled_studies
from muralab.results.from_mlflow import PARENT_KINDS, read_context, read_models
from muralab.results.inputs import data_tags, log_corrections, log_manifest
from muralab.results.suspicious_labels import label_check, write_suspicious_labels
from muralab.tracking import RunRecord, read_children, read_run
from muralab.tracking.tags import Tag, member_tag
from muralab.tune.folders import SWEEPS, Folders
from muralab.tune.leftovers import remove_sweep
from muralab.tune.plan import source_of
from muralab.tune.resume import FOLDS_FILE, RUN_ID
from muralab.tune.resume_command import resume_command
from muralab.tune.sweep_storage import SweepStorage


@dataclass(frozen=True, kw_only=True)
class Folds:
    """A command over several folds, new or resumed."""

    options: Any
    """Of the command."""
    option: str = "test_folds"
    """The one that asks for folds: `test_folds`, or `ensemble`, whose folds are of the training patients."""
    resumed: str | None = None
    """The run above the folds that is resumed; None for a new one."""

    @property
    def is_ensemble(self) -> bool:
        """Whether each fold gives one network of an ensemble."""
        return self.option == ENSEMBLE

    @property
    def number(self) -> int:
        """How many folds."""
        return int(getattr(self.options, self.option)[1])

    def options_of(self, fold: int) -> Any:
        """The options of one fold, from 1."""
        return replace(self.options, **{self.option: (fold, self.number)}, resume=None)

    def tag_of(self, fold: int) -> str:
        """The value of the tag that identifies a fold's run: `Tag.ENSEMBLE` or `Tag.PROTOCOL`."""
        return member_tag((fold, self.number)) if self.is_ensemble else str(self.options_of(fold).test_set)


@dataclass(frozen=True, kw_only=True)
class Fold:
    """One fold to train or to search."""

    options: Any
    """Of the command; of an interrupted fold, its run to resume."""
    parent: str
    """The run above the folds, which is resumed where this fold is interrupted."""
    number: int


ENSEMBLE = "ensemble"
RunFold = Callable[[Fold], Sequence[EvaluatedModel]]
"""Trains or searches one fold; its tested models, one per recipe."""
FinishFolds = Callable[[Session, str, Sequence[Sequence[EvaluatedModel]], DatasetSource], None]
"""Logs what the folds below a run have shown: (session, that run, tested models of each fold, data of the first)."""


def find_folds(config: Any, session: Session, command: type[TrainingOptions]) -> Folds | None:
    """The folds that a command goes over; None where it has one test set."""
    if config.resume is None:
        found, uri = _folds_of(config), storage_of(config)
        if found is not None and uri is not None:
            reach(uri)  # before anything is written there: that would create what a typing error names
        return found
    fetch_folds(config.resume, storage_of(config), session)
    path = _file(session, config.resume)
    if not RUN_ID.fullmatch(config.resume) or not path.is_file():
        return None
    if isinstance(getattr(config, "trials", None), str):
        raise SettingsError(f"trials={config.trials}: a sweep over folds cannot be extended.")
    try:
        options = restore_options(command, json.loads(path.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise StoreError(f"resume={config.resume}: {path} is damaged ({error}). Start again.") from error
    tags = read_run(session.store, config.resume, predictions=False).tags
    data = path_or_uri(options.data, tags.get(Tag.DATA_URI, "")) if config.data == DEMO else config.data
    given = {"accept_changes": config.accept_changes, "data": data}
    if hasattr(options, "dry_run"):
        given["dry_run"] = config.dry_run
    options = replace(options, **given, **moved_options(config, options))
    if (uri := storage_of(options)) is not None:
        refuse_ended(config.resume, reach(uri), path, session)
    found = _folds_of(options)
    return None if found is None else replace(found, resumed=config.resume)


def _folds_of(options: Any) -> Folds | None:
    """The folds that some options ask for; None where they ask for none, or for one of them."""
    for option in (ENSEMBLE, "test_folds"):
        chosen = getattr(options, option, None)
        if chosen is not None and chosen[0] == 0:
            return Folds(options=options, option=option)
    return None


def run_over_folds(
    folds: Folds, session: Session, run_fold: RunFold, *, name: str, finish: FinishFolds | None = None
) -> None:
    """Run every fold that is not finished yet, and what follows the last one.

    Args:
        folds: from `find_folds`.
        session: of the command.
        run_fold: runs one fold.
        name: of the run above the folds.
        finish: logs and prints what the folds have shown; None: `log_folds`.

    Raises:
        MuraLabError: user errors; those of any fold's data before the first one is trained.
    """
    options = folds.options
    sources = [source_of(folds.options_of(fold)) for fold in range(1, folds.number + 1)]
    synthetic = str(sources[0].is_synthetic).lower()
    tags = {
        Tag.PART: options.part,
        Tag.SYNTHETIC: synthetic,
        Tag.SEED: str(options.seed),
        Tag.PROTOCOL: sources[0].split_protocol if folds.is_ensemble else f"test_folds={folds.number}",
        **data_tags(sources[0].location, sources[0].manifest, sources[0].corrections),
    }
    if folds.resumed:
        session.hold_folder_of(folds.resumed)
        open_storage(options, folders_of(folds.resumed, session), session, is_new=False)  # first: it may be refused
        parent = session.resume_run(folds.resumed)
    else:
        parent = session.start_run(name=name, part=options.part, tags=tags)
        log_manifest(session.writer, parent, sources[0].manifest)
        log_corrections(session.writer, parent, sources[0].corrections)
        session.hold(_file(session, parent).parent, parent)
    write_options(_file(session, parent), options)  # also of a resumed command: its storage may be another one
    with session.resumable(resume_command(session.kind, options.part, parent, storage_of(options)), parent):
        stored = open_storage(options, folders_of(parent, session), session, is_new=not folds.resumed)
        if stored is not None:
            stored.upload(_file(session, parent))
        finished, interrupted = find_finished(session, parent, stored) if folds.resumed else ({}, {})
        tested: list[Sequence[EvaluatedModel]] = []
        for number in range(1, folds.number + 1):
            own, tag = folds.options_of(number), folds.tag_of(number)
            if tag in finished:
                tested.append(finished[tag])
                continue
            session.print(f"\nFold {number} of {folds.number}:")
            own = replace(own, resume=interrupted.get(tag))
            tested.append(run_fold(Fold(options=own, parent=parent, number=number)))
        (finish or log_folds)(session, parent, tested, sources[0])
    session.writer.set_tags(parent, {Tag.ENDED: "finished"})
    session.writer.finish(parent)
    session.writer.flush()
    session.print_run(parent, "The overall figures and the runs of the folds are in the run")
    remove_sweep(_file(session, parent).parent)
    if stored is not None:
        session.warn(stored.remove())


def find_finished(
    session: Session, parent: str, stored: SweepStorage | None = None
) -> tuple[dict[str, Sequence[EvaluatedModel]], dict[str, str]]:
    """Of the folds below a run: tag -> its tested models where it has ended, or else its run to resume."""
    finished: dict[str, Sequence[EvaluatedModel]] = {}
    interrupted: dict[str, str] = {}
    for record in read_children(session.store, parent, predictions=True):
        fold = record.tags.get(Tag.ENSEMBLE) or record.tags.get(Tag.PROTOCOL, "")
        if record.status == "FINISHED":
            finished[fold] = read_models(session.store, _tested(session, record))
        elif _is_kept(folders_of(record.run_id, session), stored):
            interrupted[fold] = record.run_id
    return finished, interrupted


def _is_kept(folders: Folders, stored: SweepStorage | None) -> bool:
    """Whether the plan of a fold is on this machine, or in the storage of all folds."""
    return folders.plan.is_file() or (stored is not None and replace(stored, folders=folders).is_known)


def _tested(session: Session, record: RunRecord) -> list[RunRecord]:
    """The runs with test predictions of one fold: itself, or the best trials below a search."""
    below = read_children(session.store, record.run_id, predictions=True) if record.kind in PARENT_KINDS else [record]
    return [one for one in below if "test" in one.predictions]


def pool_folds(tested: Sequence[Sequence[EvaluatedModel]], session: Session) -> list[PooledModel]:
    """The models of each recipe over all folds; a recipe that some fold has no model of is left out, with a warning.

    Args:
        tested: the tested models of each fold, one per recipe.
        session: warns.
    """
    by_recipe: dict[str, list[EvaluatedModel]] = {}
    for models in tested:
        for model in models:
            by_recipe.setdefault(model.recipe, []).append(model)
    for recipe, models in by_recipe.items():
        if len(models) < len(tested):
            missing = len(tested) - len(models)
            session.warn([f"{recipe} has no figures over folds: {missing} of them have no model of it."])
    return [pool_models(models) for models in by_recipe.values() if len(models) == len(tested)]


def log_folds(session: Session, parent: str, tested: Sequence[Sequence[EvaluatedModel]], source: DatasetSource) -> None:
    """Log and print the figures over all folds, how suspicious labels are, and the report.

    Args:
        session: of the command.
        parent: the run above the folds.
        tested: the tested models of each fold, one per recipe.
        source: the data set, with names.
    """
    models = pool_folds(tested, session)
    if not models:
        return
    tables = [fold_table(model).assign(recipe=model.recipe) for model in models]
    lines = []
    for model, table in zip(models, tables, strict=True):
        prefix = f"recipes/{model.recipe}/" if len(models) > 1 else ""
        metrics = fold_metrics(model, table)
        session.writer.log_epoch(parent, 0, {f"{prefix}{name}": value for name, value in metrics.items()})
        lines += fold_lines(model, table)
    session.print("", *lines)
    folds, studies = pd.concat(tables, ignore_index=True), pd.concat(map(_recipe_studies, models), ignore_index=True)
    session.writer.log_table(parent, folds, "folds.csv")
    session.writer.log_table(parent, studies, "out_of_fold.csv")
    session.writer.set_tags(parent, {Tag.NOTE: "\n\n".join(lines)})
    check = rank_over_folds(session, parent, studies, source)
    log_checks(session.writer, parent, [] if check is None else [check])
    context = replace(
        folds_context(session, models),
        statements=lines,
        folds=folds.drop(columns="run_id"),
        checks=[] if check is None else [check],
    )
    with tempfile.TemporaryDirectory() as folder:
        page = write_report(Path(folder) / "report.html", context=context, models=models, champion="")
        session.writer.log_file(parent, page)
        session.writer.flush()


def _recipe_studies(model: PooledModel) -> pd.DataFrame:
    return pooled_studies(model).assign(recipe=model.recipe)


def rank_over_folds(session: Session, parent: str, studies: pd.DataFrame, source: DatasetSource) -> Check | None:
    """Rank the labels of all studies, each by the answers of the models that were trained without its patient.

    Args:
        session: prints where the table is.
        parent: the run above the folds.
        studies: of all folds and recipes; the probability of a study is the mean over the recipes.
        source: the data set, with names.
    """
    mean = studies.groupby("study", as_index=False).agg(
        patient=("patient", "first"),
        label=("label", "first"),
        probability=("probability", "mean"),
        fold=("fold", "first"),
    )
    mean["set"] = "test of fold " + mean["fold"].astype(str)
    key = source.name_key(session.cache / NAMES_FOLDER)
    index = code_names(source.index, key, keep=True)
    check = label_check(mean, index["study"].nunique())
    if check is not None:
        session.print(f"{check.title}: {check.text}")
    session.print(*write_suspicious_labels(mean, index, session.cache, parent, source.corrections))
    return check


def folds_context(session: Session, models: Sequence[PooledModel]) -> Context:
    """What the report says of the data: that of the folds' runs, with the sizes of all folds together."""
    session.writer.flush()
    ids = {fold.run_id for model in models for fold in model.folds}
    records = [read_run(session.store, run_id) for run_id in sorted(ids)]
    found = read_context(session.store, records)
    return replace(
        found,
        title=f"MURA Lab: {found.part}, {len(models[0].folds)} folds",
        split_counts=count_folds([fold.predictions() for fold in models[0].folds]),
        comparison=True,
        groups=None,
    )


def write_options(path: Path, options: TrainingOptions) -> None:
    """Keep the options of a command over folds, so that it can be resumed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_path(path) as file:
        file.write_text(json.dumps(options.to_dict()), encoding="utf-8")


def _file(session: Session, run_id: str) -> Path:
    return session.cache / SWEEPS / run_id / FOLDS_FILE

"""`report`: any set of evaluated runs -> one self-contained HTML page, rebuilt from what MLflow holds."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import pandas as pd

from muralab.commands.session import Session, open_session
from muralab.config.commands import ReportConfig
from muralab.config.environment import Environment
from muralab.data.images.value_range import range_from_text
from muralab.errors import DataError, MuraLabError, SettingsError
from muralab.evaluation.best_of_many import range_sentence
from muralab.evaluation.evaluated_model import EvaluatedModel, best_of
from muralab.evaluation.gallery import Pictures
from muralab.registry.evaluation_count import count_test_evaluations
from muralab.registry.promote import CHALLENGER, CHAMPION, find_alias
from muralab.report.context import Context, SearchTrial
from muralab.report.page import write_report
from muralab.report.results_table import results_table
from muralab.report.sentences import calibration_notes, difference_sentences
from muralab.results.changes import changes_since_evaluation
from muralab.results.from_mlflow import PARENT_KINDS, read_context, read_models, read_trials, select_runs
from muralab.results.gallery import build_gallery, may_show, open_test_images
from muralab.results.leakage import check_leakage
from muralab.results.trained_model import load_trained_model, trained_run
from muralab.tracking import RunRecord, Store, locate_files, read_children, read_datasets, read_run
from muralab.tracking.pictures import describe_pictures, find_changed
from muralab.tracking.tags import Tag

REPORT_NAME = "report.html"


def run(config: ReportConfig, environment: Environment) -> None:
    """Write the report of some runs into a run of its own and, if asked, to a path.

    Raises:
        MuraLabError: unknown runs, runs that were not tested, runs of different parts or test sets.
    """
    with open_session("report", environment) as session:
        records = select_runs(session.store, config.runs)
        session.require_access(records[0].part)
        notes = [
            *check_leakage(session.store, records),
            *changes_since_evaluation(session.store, records, session.cache),
        ]
        session.warn(notes)
        models = read_models(session.store, records)
        context = read_context(session.store, records)
        if not context.comparison:
            notes += selection_notes(session.store, records[0], models)
        context = replace(context, notes=[*context.notes, *notes])
        champion = registered_run(session.store, context.part, records)
        galleries: dict[str, Pictures] = {}
        if may_show(config.pictures, synthetic=context.synthetic) and not context.comparison:
            galleries = draw_galleries(session, records, models, champion)
        tags = {
            Tag.PART: context.part,
            Tag.SYNTHETIC: str(context.synthetic).lower(),
            Tag.REPORTS: ",".join(config.runs),
        }
        session.print(*(f"  {sentence}" for sentence in findings(context, models)))
        session.warn(calibration_notes(models))
        n_runs = f"{len(records)} run{'s' * (len(records) > 1)}"
        run_id = session.start_run(name=f"report of {n_runs} · {context.part}", part=context.part, tags=tags)
        found = "\n".join(f"- {sentence}" for sentence in findings(context, models))
        note = f"report.html, among the artifacts, shows {n_runs}.\n\n{found}"
        session.writer.set_tags(run_id, {Tag.NOTE: note})
        out = write(config, session, run_id, context, models, champion, galleries)
        where = f"{out} and run" if out is not None else "run"
        session.print_run(run_id, f"The report of {len(records)} runs: {where}")


def write(
    config: ReportConfig,
    session: Session,
    run_id: str,
    context: Context,
    models: Sequence[EvaluatedModel],
    champion: str,
    galleries: Mapping[str, Pictures],
) -> Path | None:
    """Write the page and the table into the run; returns where the page was copied to."""
    with tempfile.TemporaryDirectory() as folder:
        page = write_report(
            Path(folder) / REPORT_NAME,
            context=context,
            models=models,
            trials=trials_of_sweeps(session.store, config.runs),
            champion=champion,
            galleries=galleries,
        )
        session.writer.log_file(run_id, page)
        session.writer.log_table(run_id, results_table(models), "results.csv")
        session.writer.finish(run_id)
        out = None if config.out is None else copy_page(page, config.out)
        session.writer.flush()
    return out


def findings(context: Context, models: Sequence[EvaluatedModel]) -> Sequence[str]:
    """What the report found, in sentences: the comparison's own, or the paired differences."""
    return context.statements if context.comparison else difference_sentences(models)


def selection_notes(store: Store, record: RunRecord, models: Sequence[EvaluatedModel]) -> list[str]:
    """How to read the figures of the selected model after all evaluations on its test set."""
    best = best_of(models)
    if best is None or best.problem() is not None:
        return []
    n_evaluations = count_test_evaluations(store, f"mura-{record.part}", record.test_fingerprint)
    sentence = range_sentence(best.intervals()["auroc"], n_evaluations)
    return [sentence] if sentence else []


def registered_run(store: Store, part: str, records: Sequence[RunRecord]) -> str:
    """The run among these that the part's champion came from, or else its challenger; empty where there is neither."""
    ids = {one.run_id for one in records}
    held = (find_alias(store, f"mura-{part}", alias) for alias in (CHAMPION, CHALLENGER))
    return next((str(version.run_id) for version in held if version is not None and version.run_id in ids), "")


def copy_page(page: Path, out: Path) -> Path:
    """Copy the page to a file, or into a folder.

    Raises:
        DataError: it cannot be written there.
    """
    target = out if out.suffix in (".html", ".htm") else out / REPORT_NAME
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(page, target)
    except OSError as error:
        raise DataError(f"The report cannot be written to {target}: {error.strerror or error}.") from error
    return target


def trials_of_sweeps(store: Store, ids: Sequence[str]) -> list[SearchTrial]:
    """All trials of the sweeps among some ids, tested or not."""
    sweeps = [run_id for run_id in ids if read_run(store, run_id, predictions=False).kind in PARENT_KINDS]
    children = [child for run_id in sweeps for child in read_children(store, run_id, history=False) if child.recipe]
    return read_trials(store, sorted(children, key=lambda child: child.name))


def refuse_changed(session: Session, record: RunRecord, table: pd.DataFrame) -> None:
    """Refuse to show pictures, of a table from `locate_files`, that are not those that a model was tested on.

    Raises:
        DataError: some have changed.
    """
    changed = find_changed(session.store, record.run_id, table, session.cache / "pixels")
    if changed:
        raise DataError(f"{describe_pictures(changed, len(table))} have changed since the model was tested on them.")


def draw_galleries(
    session: Session, records: Sequence[RunRecord], models: Sequence[EvaluatedModel], champion: str
) -> dict[str, Pictures]:
    """Run id -> hard studies, of the model that validation chose and of the champion if it is among these."""
    best = best_of(models)
    if best is None:
        session.print("No gallery: validation selected none of these models.")
    shown = [model for model in models if model is best or (champion and model.run_id == champion)]
    return {model.run_id: draw_gallery(session, records[list(models).index(model)], model) for model in shown}


def draw_gallery(session: Session, record: RunRecord, model: EvaluatedModel) -> Pictures:
    """Hard studies of a model; empty, with a printed reason, where they cannot be drawn."""
    try:
        trained = load_trained_model(session.store, trained_run(session.store, record.run_id))
        tested_on = read_datasets(session.store, record.run_id).get("test")
        if tested_on is None:
            raise DataError(f"the run {record.run_id} names no test set")
        table = locate_files(session.store, model.predictions(), tested_on, record.tags)
        refuse_changed(session, record, table)
        shown = range_from_text(record.tags.get(Tag.VALUE_RANGE, ""))
        images = open_test_images(table, trained.recipe.image_size, tested_on.root, session.cache, value_range=shown)
        return build_gallery(model, trained.network, images)
    except SettingsError:  # names may be burned into the pixels
        raise
    except MuraLabError as error:
        session.print(f"No gallery: {error}")
        return {}

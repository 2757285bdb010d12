"""`train`: one recipe, one run, in this process and without a search."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Mapping
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

from muralab.config.parsing import PACK
from muralab.config.settings import Request, count_cpus
from muralab.console import build_console, clock
from muralab.errors import SettingsError
from muralab.evaluation.gallery import Pictures
from muralab.experiment import predictions_path, run_trial
from muralab.report import Entry, results_table, write_report
from muralab.results.final_test import Judged, build_context, build_entry, build_previews, judge_trial
from muralab.results.gallery import build_gallery, may_show
from muralab.tracking import RunWriter, close_dead_runs, open_store, process_tags, read_predictions, read_run
from muralab.tracking.tags import Tag
from muralab.training.phases import PHASES
from muralab.trial import TrialSpec, recipes_of, write_table
from muralab.tune.finish import DISCLAIMER, ui_command
from muralab.tune.plan import Folders, write_plan
from muralab.tune.prepare import Job, Sweep, prepare, take_up_sweep
from muralab.tune.trial_logger import log_audit, log_data, log_description, phase_summary, trial_tags


def run_training(request: Request, job: Job, *, resume: str | None = None) -> str:
    """Train one recipe, judge it on the test set, and write its report.

    Args:
        request: what was asked for; `recipes` names one, `trials` is 1.
        job: where this command runs.
        resume: the run of an interrupted training, to go on with.

    Returns:
        The run's id.

    Raises:
        MuraLabError: what a user can mend.
    """
    console = build_console()
    store = open_store(job.tracking_uri)
    close_dead_runs(store, claim=job.run_id)
    if resume:
        sweep = take_up_sweep(resume, job, store, console, kind="train")
    else:
        sweep = prepare(_one_trial(request), job, store, console)
    for note in sweep.notes:
        console.print(f"Note: {note}", style="yellow", highlight=False, markup=False, soft_wrap=True)
    with RunWriter(store) as writer:
        run, spec = _open_run(sweep, job, writer)
        try:
            _train(sweep, spec, writer, run)
            judged = judge_trial(spec, run, writer, rule=sweep.settings.request.threshold)
            writer.flush()
            _report(sweep, judged, writer)
        except BaseException as error:  # a store that went away, a full disk, a bug: the checkpoint is there
            how = (
                "Interrupted. Go on" if isinstance(error, KeyboardInterrupt) else "Stopped. Once that is mended, go on"
            )
            line = f"mlflow run . -e train --env-manager local -P resume={run}"
            with contextlib.suppress(OSError):  # nobody reads a lost terminal
                console.print(f"\n{how} with it by:\n  {line}", highlight=False, markup=False, soft_wrap=True)
            raise
        writer.set_tags(run, {Tag.ENDED: "finished"})
        writer.finish(run)
    shutil.rmtree(sweep.folders.sweep, ignore_errors=True)
    figures = ", ".join(f"{name} {interval}" for name, interval in judged.intervals.items())
    console.print(
        f"{spec.recipe}, test set of {sweep.dataset.part}, study level: {figures}",
        highlight=False,
        markup=False,
        soft_wrap=True,
    )
    console.print(f"Run {run}:\n  {ui_command(store.uri)}\n{DISCLAIMER}", highlight=False, soft_wrap=True)
    return run


def _one_trial(request: Request) -> Request:
    """The request of one trial with all cores.

    Raises:
        SettingsError: it names several recipes.
    """
    if request.recipes.strip() == "all" or "," in request.recipes:
        raise SettingsError(
            f"recipe={request.recipes}: a training takes one recipe. Give one name, or search several with `tune`."
        )
    if request.gpus_per_trial == PACK:
        raise SettingsError(f"gpus_per_trial={PACK}: a training is one trial, and shares no GPU. Give auto.")
    cpus = str(count_cpus()) if request.cpus_per_trial == "auto" else request.cpus_per_trial
    return replace(request, trials="1", cpus_per_trial=cpus)


def _open_run(sweep: Sweep, job: Job, writer: RunWriter) -> tuple[str, TrialSpec]:
    spec = sweep.specs[0]
    tags = {**trial_tags(spec, sweep.facts), Tag.RUN_NAME: f"train-{spec.recipe}"}
    if sweep.resumed:
        if job.run_id and job.run_id != sweep.resumed:
            writer.adopt_run(job.run_id, {Tag.RESUMES: sweep.resumed}, kind="resume")
            writer.finish(job.run_id)
        writer.resume_run(sweep.resumed, {Tag.KIND: "train"})
        return sweep.resumed, spec
    if job.run_id:
        run = writer.adopt_run(job.run_id, tags, kind="train")
    else:
        experiment = job.experiment or f"mura-{sweep.settings.request.part}"
        run = writer.run_id(
            writer.start_run(experiment=experiment, kind="train", name=f"train-{spec.recipe}", tags=tags)
        )
    spec = _settle(sweep, spec, run)
    log_description(writer, run, spec)
    log_data(writer, run, sweep.dataset)
    log_audit(writer, run, sweep.dataset)
    return run, spec


def _settle(sweep: Sweep, spec: TrialSpec, run: str) -> TrialSpec:
    """Name the folder by the run, so that `resume` finds it."""
    sweep.folders = Folders(cache=sweep.folders.cache, sweep=sweep.folders.sweep.parent / run)
    spec = replace(spec, table=str(sweep.folders.table), folder=str(sweep.folders.sweep / "trial"))
    write_table(sweep.folders.table, sweep.dataset.index, sweep.dataset.tables)
    facts = {"fingerprint": sweep.dataset.splits.fingerprint, "weights": sweep.weights, "notes": sweep.notes}
    write_plan(sweep.folders, sweep.settings.request, [spec], facts)
    return spec


def _train(sweep: Sweep, spec: TrialSpec, writer: RunWriter, run: str) -> None:
    history: list[Mapping[str, Any]] = []
    phase = PHASES[0]
    with closing(run_trial(spec)) as epochs:
        for result in epochs:
            metrics = result.metrics()
            history.append(metrics)
            writer.log_epoch(run, result.global_epoch, metrics)
            phase = result.phase
            sweep.console.print(
                f"{result.phase} {result.epoch}: train_loss {result.train_loss:.4f}, "
                f"val_loss {metrics['val_loss']:.4f}, {spec.objective} {metrics[spec.objective]:.4f}"
                f"{' (best)' if result.best else ''}, {clock(result.seconds)}",
                highlight=False,
            )
    writer.log_epoch(run, len(history), phase_summary(history, spec.objective))
    writer.log_predictions(run, "validation", read_predictions(predictions_path(spec.folder, phase)))


def _report(sweep: Sweep, judged: Judged, writer: RunWriter) -> None:
    entry = build_entry(judged, read_run(sweep.store, judged.run_id, predictions=False))
    commit = process_tags().get(Tag.GIT_COMMIT, "")
    context = build_context(sweep.settings, sweep.dataset, sweep.weights, sweep.notes, commit)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "report.html"
        write_report(
            path,
            context=context,
            entries=[entry],
            previews=build_previews([judged.spec]),
            gallery=_gallery(sweep, judged, entry),
        )
        writer.log_file(judged.run_id, path)
        writer.log_table(judged.run_id, results_table([entry]), "results.csv")
        writer.flush()


def _gallery(sweep: Sweep, judged: Judged, entry: Entry) -> Pictures:
    """Hard studies of the model, unless pictures are to stay out of the report."""
    if not may_show(sweep.settings.request.pictures, synthetic=sweep.dataset.synthetic):
        return {}
    size = recipes_of(judged.spec)[1].image_size
    return build_gallery(entry, judged.network.cpu().eval(), size, sweep.dataset.root, sweep.folders.cache)

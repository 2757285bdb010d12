"""A sweep from its parameters to its last line. Read `run_sweep`; each step is below it or in a module beside it."""

from __future__ import annotations

import shutil
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from muralab.config.settings import Request
from muralab.console import Board, Row, build_console, clock
from muralab.experiment import warm_up
from muralab.tracking import RunRecord, RunWriter, close_dead_runs, open_store, read_children
from muralab.tracking.tags import Tag
from muralab.training.trainer import best_name
from muralab.trial import TrialSpec, recipes_of, write_table
from muralab.tune.disk_space import check_space, feature_group
from muralab.tune.executor import run_search
from muralab.tune.finish import conclude
from muralab.tune.gpu_packing import share_gpus
from muralab.tune.plan import Folders, estimate, in_order, measure_paces, plan_sentence, plan_table, write_plan
from muralab.tune.prepare import Job, Sweep, prepare, take_up_sweep
from muralab.tune.scheduler import Past
from muralab.tune.trial_logger import Logbook, log_audit, log_data

ENDED = ("finished", "pruned", "stopped")


def run_sweep(request: Request, job: Job, *, resume: str | None = None, dry_run: bool = False) -> None:
    """Search every recipe, test the best trial of each once, report, and register the best add-gate model.

    Args:
        request: what was asked for; a resumed sweep takes what was asked for then.
        job: where this command runs.
        resume: the run of an interrupted sweep, to go on with.
        dry_run: print the plan and stop.

    Raises:
        MuraLabError: what a user can mend, before any trial starts.
    """
    console = build_console()
    store = open_store(job.tracking_uri)
    closed = close_dead_runs(store, claim=job.run_id)
    if closed:
        console.print(f"Closed {len(closed)} runs whose process had died.")
    sweep = take_up_sweep(resume, job, store, console) if resume else prepare(request, job, store, console)
    for note in sweep.notes:
        console.print(f"Note: {note}", style="yellow", highlight=False, markup=False, soft_wrap=True)
    paces = measure_paces(sweep.specs)
    share_gpus(sweep, paces)
    resources = sweep.settings.resources
    estimated = estimate(sweep.specs, sweep.dataset, resources.max_concurrent, paces=paces, gpus=resources.gpus)
    sweep.specs = in_order(sweep.specs, estimated)
    console.print(plan_table(sweep.settings, estimated))
    console.print(plan_sentence(sweep.settings, estimated), highlight=False)
    check_space(estimated.disk_bytes - estimated.there_bytes, sweep.folders.cache)
    if dry_run:
        console.print("dry_run: nothing was started.")
        return
    rows = {
        spec.name: Row(
            name=spec.name,
            estimated_s=estimated.epoch_s[spec.recipe],
        )
        for spec in sweep.specs
    }
    _run(sweep, job, rows)


def _run(sweep: Sweep, job: Job, rows: dict[str, Row]) -> None:
    """The part that MLflow sees: from the parent's start to its end."""
    with RunWriter(sweep.store) as writer:
        parent = _open_parent(sweep, job, writer)
        board = Board(rows, sweep.settings.resources.max_concurrent, sweep.settings.request.objective, sweep.console)
        book = Logbook(
            writer=writer,
            board=board,
            specs={spec.name: spec for spec in sweep.specs},
            dataset=sweep.dataset,
            parent=parent,
            facts=sweep.facts,
            resume=resume_line(parent, sweep.settings.request.part),
        )
        try:
            if not sweep.resumed:
                _describe(sweep, writer, parent)
            past = _take_up(sweep, book) if sweep.resumed else {}
            _search(sweep, book, past)
            writer.flush()
            conclude(sweep, book)
        except KeyboardInterrupt:
            book.interrupted()
            raise
        except BaseException:  # a store that went away, a full disk, a bug: the plan and the checkpoints are there
            book.say_how_to_go_on("The sweep stopped. Once what is said below is mended, go on with it by:")
            raise
        writer.finish(parent)
    shutil.rmtree(sweep.folders.sweep, ignore_errors=True)


def resume_line(run_id: str, part: str) -> str:
    """The command that goes on with a sweep."""
    return f"make tune PART={part} ARGS='-P resume={run_id}'"


def _open_parent(sweep: Sweep, job: Job, writer: RunWriter) -> str:
    """The sweep's own run: a resumed one's, the one that `mlflow run` made, or a new one."""
    request = sweep.settings.request
    if sweep.resumed:
        if job.run_id and job.run_id != sweep.resumed:
            writer.adopt_run(job.run_id, {Tag.RESUMES: sweep.resumed, Tag.PART: request.part}, kind="resume")
            writer.finish(job.run_id)  # `mlflow run` ends it again as the command ends
        writer.resume_run(sweep.resumed, {Tag.KIND: "tune"})
        return sweep.resumed
    if job.run_id:
        parent = writer.adopt_run(job.run_id, {**sweep.facts, Tag.RUN_NAME: f"tune-{request.part}"})
    else:
        parent = writer.run_id(
            writer.start_run(
                experiment=job.experiment or f"mura-{request.part}",
                kind="tune",
                name=f"tune-{request.part}",
                tags=sweep.facts,
            )
        )
    settle_folder(sweep, parent)
    return parent


def _describe(sweep: Sweep, writer: RunWriter, parent: str) -> None:
    """What the sweep is about, in its own run."""
    writer.log_resolved(parent, {"recipes": ",".join(sweep.settings.recipes), "trials": sweep.settings.trials})
    log_data(writer, parent, sweep.dataset)
    log_audit(writer, parent, sweep.dataset)


def settle_folder(sweep: Sweep, parent: str) -> None:
    """Name the sweep's folder by its run, so that `resume` finds it, and write the plan there."""
    folders = Folders(cache=sweep.folders.cache, sweep=sweep.folders.sweep.parent / parent)
    before, after = str(sweep.folders.sweep), str(folders.sweep)
    sweep.specs = [
        replace(spec, table=spec.table.replace(before, after), folder=spec.folder.replace(before, after))
        for spec in sweep.specs
    ]
    sweep.folders = folders
    write_table(folders.table, sweep.dataset.index, sweep.dataset.tables)
    facts = {"fingerprint": sweep.dataset.splits.fingerprint, "weights": sweep.weights, "notes": sweep.notes}
    write_plan(folders, sweep.settings.request, sweep.specs, facts)


def _take_up(sweep: Sweep, book: Logbook) -> dict[str, Past]:
    """Tell the logbook what the interrupted sweep has done; returns the objectives of trials that have ended."""
    past: dict[str, Past] = {}
    for record in read_children(sweep.store, book.parent):
        name = record.tags.get(Tag.TRIAL, "")
        if name not in book.specs:
            continue
        book.runs[name] = record.run_id
        if record.tags.get(Tag.ENDED) in ENDED:
            past[name] = (record.recipe, _full_objectives(record, book.specs[name].objective))
            book.board.rows[name].state = record.tags[Tag.ENDED]
            if past[name][1] and has_weights(book.specs[name]):
                book.consider(name, record.metrics["objective"])
        else:
            # It may end well this time: why it failed before is not how it ended.
            book.writer.resume_run(record.run_id, {Tag.ERROR: ""} if Tag.ERROR in record.tags else {})
    return past


def has_weights(spec: TrialSpec) -> bool:
    """Whether a trial that ended still can be chosen.

    One that lost cannot, and its winner may not count as ended: a process that is killed has removed the loser's
    weights before the store heard of it.
    """
    return (Path(spec.folder) / best_name("full")).is_file()


def _full_objectives(record: RunRecord, objective: str) -> Sequence[float]:
    if not {"phase", objective} <= set(record.history):
        return []
    return [float(value) for value in record.history.loc[record.history["phase"] == 2, objective]]


def _search(sweep: Sweep, book: Logbook, past: dict[str, Past]) -> None:
    waiting = [spec for spec in sweep.specs if spec.name not in past]
    if not waiting:
        return
    sweep.console.print("Computing what the trials share: decoded images, features of frozen backbones.")
    started = time.monotonic()
    for spec in {feature_group(s.recipe, recipes_of(s)[0]): s for s in waiting}.values():
        warm_up(spec)
    sweep.console.print(f"Ready after {clock(time.monotonic() - started)}; starting Ray.", highlight=False)
    budget = sweep.settings.time_budget_s
    with book.board:
        book.deadline = None if budget is None else time.monotonic() + budget
        run_search(
            waiting,
            resources=sweep.settings.resources,
            listener=book,
            folder=sweep.folders.sweep / "ray",
            time_budget_s=budget,
            past=past,
        )
        book.stop_running()

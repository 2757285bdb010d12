"""`compare`: does one architecture beat another? Every recipe unchanged, several seeds, one budget, one sentence.

No search and no pruning: each recipe trains once with each seed on the same split, and each model meets the test set.
What differs between two models of one seed is the recipe alone; what differs between seeds is chance.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from muralab.commands.tune import settle_folder
from muralab.config.parsing import LARGEST_COUNT, LARGEST_SEED
from muralab.config.settings import Request, check_request, count_cpus
from muralab.console import Board, Row, build_console, clock
from muralab.errors import SettingsError
from muralab.experiment import set_threads, warm_up
from muralab.report import Entry, results_table, write_report
from muralab.results.final_test import Judged, build_context, build_entry, judge_trial
from muralab.results.statement import budget, compare_entries, difference_table, sentence, unpaired
from muralab.tracking import RunWriter, close_dead_runs, open_store, process_tags, read_children
from muralab.tracking.tags import Tag
from muralab.trial import TrialSpec, recipes_of
from muralab.tune.disk_space import check_space, feature_group
from muralab.tune.executor import run_search
from muralab.tune.finish import DISCLAIMER, ui_command
from muralab.tune.gpu_packing import share_gpus
from muralab.tune.plan import estimate, measure_paces
from muralab.tune.prepare import Job, Sweep, prepare
from muralab.tune.trial_logger import Logbook, log_audit, log_data


def run_compare(request: Request, job: Job, *, seeds: int, dry_run: bool = False) -> str | None:
    """Train every recipe with every seed, and state the paired differences.

    Args:
        request: what was asked for; the first of `recipes` is what the others are compared with; `seed` splits the
            data and is the first of the seeds.
        job: where this command runs.
        seeds: how many.
        dry_run: print the plan and stop.

    Returns:
        The comparison's run; None after a dry run.

    Raises:
        MuraLabError: what a user can mend.
    """
    if not 1 <= seeds <= LARGEST_COUNT:
        raise SettingsError(f"seeds={seeds}: expected a whole number from 1 to {LARGEST_COUNT:,}; 5 is a good start.")
    if request.seed + seeds - 1 > LARGEST_SEED:
        raise SettingsError(f"seed={request.seed} with seeds={seeds}: the last seed is above {LARGEST_SEED:,}.")
    if len(check_request(request).recipes) < 2:
        raise SettingsError("compare needs at least two recipes, such as recipes=inception,inception_add_gate.")
    console = build_console()
    store = open_store(job.tracking_uri)
    close_dead_runs(store, claim=job.run_id)
    sweep = prepare(replace(request, trials="1"), job, store, console)
    for note in sweep.notes:
        console.print(f"Note: {note}", style="yellow", highlight=False, markup=False, soft_wrap=True)
    paces = measure_paces(sweep.specs)
    sweep.specs = [with_seed(spec, request.seed + k) for k in range(seeds) for spec in sweep.specs]
    share_gpus(sweep, paces)
    resources = sweep.settings.resources
    estimated = estimate(
        sweep.specs, sweep.dataset, resources.max_concurrent, paces=paces, gpus=resources.gpus, keep_all=True
    )
    check_space(estimated.disk_bytes - estimated.there_bytes, sweep.folders.cache)
    console.print(
        f"{len(sweep.settings.recipes)} recipes x {seeds} seed{'s' * (seeds > 1)} on one split, "
        f"{budget(sweep.settings.recipes)}, nothing pruned: {len(sweep.specs)} trials, "
        f"about {clock(estimated.wall_s)}.",
        highlight=False,
    )
    if dry_run:
        console.print("dry_run: nothing was started.")
        return None
    try:
        with RunWriter(store) as writer:
            book = _open(sweep, job, writer, seeds, estimated.epoch_s)
            _train(sweep, book)
            _conclude(sweep, book)
            writer.finish(book.parent)
    except KeyboardInterrupt:
        console.print("The comparison was stopped and cannot be resumed; what its trials reached stays in MLflow.")
        raise
    finally:  # nothing takes up a comparison again, and every trial has kept its weights there
        shutil.rmtree(sweep.folders.sweep, ignore_errors=True)
    return book.parent


def with_seed(spec: TrialSpec, seed: int) -> TrialSpec:
    """A recipe's trial with another seed."""
    name = f"{spec.recipe}-seed{seed}"
    return replace(spec, name=name, seed=seed, folder=str(Path(spec.folder).parent / name))


def _open(sweep: Sweep, job: Job, writer: RunWriter, seeds: int, epoch_s: Mapping[str, list[float]]) -> Logbook:
    part = sweep.settings.request.part
    tags = {**sweep.facts, Tag.RUN_NAME: f"compare-{part}"}
    if job.run_id:
        parent = writer.adopt_run(job.run_id, tags, kind="compare")
    else:
        experiment = job.experiment or f"mura-{part}"
        started = writer.start_run(experiment=experiment, kind="compare", name=f"compare-{part}", tags=tags)
        parent = writer.run_id(started)
    settle_folder(sweep, parent)
    writer.log_resolved(parent, {"recipes": ",".join(sweep.settings.recipes), "seeds": seeds})
    log_data(writer, parent, sweep.dataset)
    log_audit(writer, parent, sweep.dataset)
    rows = {
        spec.name: Row(
            name=spec.name,
            estimated_s=epoch_s[spec.recipe],
        )
        for spec in sweep.specs
    }
    return Logbook(
        writer=writer,
        board=Board(rows, sweep.settings.resources.max_concurrent, sweep.settings.request.objective, sweep.console),
        specs={spec.name: spec for spec in sweep.specs},
        dataset=sweep.dataset,
        parent=parent,
        facts=sweep.facts,
        keep_all=True,
    )


def _train(sweep: Sweep, book: Logbook) -> None:
    started = time.monotonic()
    for spec in {(feature_group(s.recipe, recipes_of(s)[0]), s.seed): s for s in sweep.specs}.values():
        warm_up(spec)
    sweep.console.print(f"Ready after {clock(time.monotonic() - started)}; starting Ray.", highlight=False)
    with book.board:
        run_search(
            sweep.specs,
            resources=sweep.settings.resources,
            listener=book,
            folder=sweep.folders.sweep / "ray",
            prune=False,
        )


def _conclude(sweep: Sweep, book: Logbook) -> None:
    sweep.console.print("Judging every model on the test set.")
    set_threads(count_cpus())
    whole = [s for s in sweep.specs if s.name not in book.failures and _reached_full(book, s.name)]
    judged = {spec.name: _judge(book, spec, sweep.settings.request.threshold) for spec in whole}
    book.writer.flush()
    records = {record.run_id: record for record in read_children(sweep.store, book.parent)}
    entries = {spec.name: _entry(build_entry(judged[spec.name], records[_run(book, spec)]), spec) for spec in whole}
    comparisons = compare_entries(entries, whole, list(sweep.settings.recipes))
    absent = unpaired(comparisons, list(sweep.settings.recipes), book.failures)
    if not entries:
        raise SettingsError(" ".join(absent))
    sentences = [*(sentence(one, sweep.settings.recipes, sweep.dataset) for one in comparisons), *absent]
    notes = [*sweep.notes, *(f"The trial {name} failed and its seed is left out." for name in book.failures)]
    commit = process_tags().get(Tag.GIT_COMMIT, "")
    context = build_context(sweep.settings, sweep.dataset, sweep.weights, notes, commit)
    context = replace(
        context, title=f"MURA Lab: {sweep.settings.request.part}, a comparison", statements=sentences, comparison=True
    )
    with tempfile.TemporaryDirectory() as folder:
        page = write_report(Path(folder) / "report.html", context=context, entries=list(entries.values()), champion="")
        book.writer.log_file(book.parent, page)
        book.writer.log_table(book.parent, results_table(list(entries.values())), "results.csv")
        book.writer.log_table(book.parent, difference_table(comparisons), "differences.csv")
        book.writer.log_text(book.parent, "\n".join(sentences) + "\n", "comparison.md")
        book.writer.set_tags(book.parent, {Tag.COMPARISON: " ".join(sentences)})
        book.writer.flush()
    if not comparisons:
        raise SettingsError(f"{' '.join(absent)} What was trained to its end has its figures in the run {book.parent}.")
    lines = ["", *sentences, "", f"Run {book.parent}:", f"  {ui_command(sweep.store.uri)}", DISCLAIMER]
    for line in lines:
        sweep.console.print(line, highlight=False, markup=False, soft_wrap=True)


def _judge(book: Logbook, spec: TrialSpec, rule: str) -> Judged:
    judged = judge_trial(spec, _run(book, spec), book.writer, rule=rule, keep_weights=False)
    return replace(judged, network=None)  # type: ignore[arg-type]  # ten of them fill the memory, none is needed again


def _run(book: Logbook, spec: TrialSpec) -> str:
    return book.writer.run_id(book.runs[spec.name])


def _reached_full(book: Logbook, name: str) -> bool:
    return any(row["phase"] == 2 for row in book.history.get(name, []))


def _entry(entry: Entry, spec: TrialSpec) -> Entry:
    return replace(entry, name=spec.name, title=f"{entry.title}, seed {spec.seed}")

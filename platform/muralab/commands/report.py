"""`report`: any set of evaluated runs -> one self-contained HTML page, rebuilt from what MLflow holds."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from muralab.commands.evaluate import load_model, trained_run
from muralab.config.parsing import check_word
from muralab.config.settings import PICTURES
from muralab.console import build_console
from muralab.errors import DataError, MuraLabError
from muralab.evaluation.gallery import Pictures
from muralab.registry.promote import CHAMPION, find_alias
from muralab.report import Entry, Trial, difference_sentences, results_table, winner_of, write_report
from muralab.results.final_test import build_trials
from muralab.results.from_mlflow import PARENTS, read_context, read_entries, select_runs
from muralab.results.gallery import build_gallery, may_show
from muralab.tracking import (
    RunRecord,
    RunWriter,
    Store,
    close_dead_runs,
    open_store,
    read_children,
    read_datasets,
    read_run,
)
from muralab.tracking.tags import Tag
from muralab.tune.finish import ui_command
from muralab.tune.prepare import Job

REPORT_NAME = "report.html"


def run_report(runs: str, job: Job, *, out: Path | None = None, pictures: str = "auto") -> str:
    """Write the report of some runs into a run of its own and, if asked, to a path.

    Args:
        runs: ids by comma; a sweep or a comparison stands for its evaluated runs.
        job: where this command runs.
        out: a file, or a folder that gets `report.html`.
        pictures: `true`, `false`, or `auto` (of synthetic data alone).

    Returns:
        The report's run.

    Raises:
        MuraLabError: unknown runs, runs that met no test set, runs of different parts or test sets.
    """
    check_word("pictures", pictures, PICTURES)
    console = build_console()
    store = open_store(job.tracking_uri)
    close_dead_runs(store, claim=job.run_id)
    ids = [one.strip() for one in runs.split(",") if one.strip()]
    records = select_runs(store, ids)
    entries, context = read_entries(store, records), read_context(store, records)
    shown = may_show(pictures, synthetic=context.synthetic)
    wanted = shown and not context.comparison  # which chose no model whose errors could be shown
    gallery = gallery_of_runs(store, records, entries, job.cache, console.print) if wanted else {}
    tags = {Tag.PART: context.part, Tag.SYNTHETIC: str(context.synthetic).lower()}
    tags |= {Tag.REPORTS: ",".join(ids), Tag.RUN_NAME: f"report-{context.part}"}
    with RunWriter(store) as writer, tempfile.TemporaryDirectory() as folder:
        if job.run_id:
            run = writer.adopt_run(job.run_id, tags, kind="report")
        else:
            experiment = job.experiment or f"mura-{context.part}"
            name = tags[Tag.RUN_NAME]
            run = writer.run_id(writer.start_run(experiment=experiment, kind="report", name=name, tags=tags))
        path = write_report(
            Path(folder) / REPORT_NAME,
            context=context,
            entries=entries,
            trials=_trials(store, ids),
            champion=_champion(store, context.part, records),
            gallery=gallery,
        )
        writer.log_file(run, path)
        writer.log_table(run, results_table(entries), "results.csv")
        writer.finish(run)
        if out is not None:
            out = _copy(path, out)
        writer.flush()
    found = context.statements if context.comparison else difference_sentences(entries)
    for sentence in found:
        console.print(f"  {sentence}", highlight=False, markup=False, soft_wrap=True)
    where = f"{out} and run {run}" if out is not None else f"run {run}"
    console.print(
        f"The report of {len(records)} runs: {where}:\n  {ui_command(store.uri)}", highlight=False, soft_wrap=True
    )
    return run


def _champion(store: Store, part: str, records: Sequence[RunRecord]) -> str:
    """The run among these that the part's champion came from; empty where there is none."""
    held = find_alias(store, f"mura-{part}", CHAMPION)
    return str(held.run_id) if held is not None and held.run_id in {one.run_id for one in records} else ""


def _copy(path: Path, out: Path) -> Path:
    target = out if out.suffix in (".html", ".htm") else out / REPORT_NAME
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, target)
    except OSError as error:
        raise DataError(f"The report cannot be written to {target}: {error.strerror or error}.") from error
    return target


def _trials(store: Store, ids: Sequence[str]) -> list[Trial]:
    """All trials of the sweeps among some ids, evaluated or not."""
    sweeps = [run_id for run_id in ids if read_run(store, run_id, predictions=False).kind in PARENTS]
    children = [child for run_id in sweeps for child in read_children(store, run_id) if child.recipe]
    return build_trials(sorted(children, key=lambda child: child.name))


def gallery_of_runs(
    store: Store, records: Sequence[RunRecord], entries: Sequence[Entry], cache: Path, say: Callable[[str], None]
) -> Pictures:
    """The gallery of the chosen one of some runs; empty, with a sentence why, where it cannot be drawn.

    Args:
        store: where the runs are.
        records: the runs.
        entries: the same as the report takes them.
        cache: folder of decoded images.
        say: told why there is no gallery.
    """
    chosen = winner_of(entries)
    if chosen is None:
        say("No gallery: validation chose none of these models.")
        return {}
    record = records[list(entries).index(chosen)]
    try:
        network, recipe, _ = load_model(store, trained_run(store, record.run_id))
        root = read_datasets(store, record.run_id).get("test")
        if root is None:
            raise DataError(f"the run {record.run_id} names no test set")
        return build_gallery(chosen, network, recipe.image_size, Path(root.source), cache)
    except MuraLabError as error:
        say(f"No gallery: {error}")
        return {}

"""The end of a sweep: judge, report, register, and say what was found and what to type next."""

from __future__ import annotations

import re
import shlex
import sys
import tempfile
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from muralab.config.settings import count_cpus
from muralab.errors import MuraLabError, SettingsError
from muralab.experiment import set_threads
from muralab.registry import RegisteredModel
from muralab.report import difference_sentences, results_table, winner_of, write_report
from muralab.report.judge import judge
from muralab.report.page import champion_sentence
from muralab.report.sentences import headline
from muralab.results.final_test import (
    WITH_INTERVALS,
    Judged,
    build_context,
    build_entry,
    build_previews,
    build_trials,
    judge_trial,
)
from muralab.results.gallery import build_gallery, may_show
from muralab.tracking import process_tags, read_children, shown
from muralab.tracking.tags import Tag
from muralab.trial import recipes_of
from muralab.tune.registration import Registration, register_best, registering
from muralab.tune.trial_logger import Logbook

if TYPE_CHECKING:
    from muralab.evaluation.gallery import Pictures
    from muralab.report import Entry
    from muralab.tune.prepare import Sweep

ADDRESS = "http://127.0.0.1:5001"
ANSI = re.compile(r"\x1b\[[0-9;]*m")
DISCLAIMER = "Research software, not a medical device: nothing here may be used to care for a patient."


def conclude(sweep: Sweep, book: Logbook) -> None:
    """Everything that follows the last trial.

    Raises:
        MuraLabError: no trial of any recipe got as far as its full phase.
        Exception: whatever kept the model from being registered; the report is written by then, and says so.
    """
    if not book.best:
        raise _nothing_to_judge(book)
    sweep.console.print("Judging the best trial of each recipe on the test set.")
    set_threads(count_cpus())
    order = [name for name in sweep.settings.recipes if name in book.best]
    judged = [_judge(book, name, sweep.settings.request.threshold) for name in order]
    book.writer.flush()
    records = {r.run_id: r for r in read_children(sweep.store, book.parent)}
    entries = [build_entry(one, records[one.run_id]) for one in judged]
    # First of all, so that nothing that goes wrong below can take the figures of days with it.
    book.writer.log_table(book.parent, results_table(entries), "results.csv")
    book.writer.log_file(book.parent, sweep.folders.plan)
    book.writer.flush()
    absent = absent_sentences(sweep, book)
    notes = [*sweep.notes, *_failures(book), *absent]
    context = build_context(sweep.settings, sweep.dataset, sweep.weights, notes, _commit())
    registration, failure = None, None
    try:
        registration = register_best(sweep, book, judged, entries, context)
    except Exception as error:
        failure = error
    gate = registration.gate if registration else [why_unregistered(sweep, judged, entries, failure)]
    context = replace(context, statements=[*context.statements, *gate])
    champion = registration.judged.spec.recipe if registration else None
    with tempfile.TemporaryDirectory() as folder:
        report = write_report(
            Path(folder) / "report.html",
            context=context,
            entries=entries,
            trials=build_trials(sorted(records.values(), key=lambda r: r.name)),
            previews=build_previews(one.spec for one in judged),
            champion=champion,
            gallery=_gallery(sweep, judged, entries),
        )
        book.writer.log_file(book.parent, report)
        _log_results(book, judged, entries, registration)
        book.writer.flush()
    found = figure_lines(sweep, judged, entries, absent, champion)
    done = [*registration.lines, *next_commands(sweep, registration.model)] if registration else gate
    for line in [*found, "", *done, *where_lines(sweep, book.parent)]:
        sweep.console.print(line, highlight=False, markup=False, soft_wrap=True)
    if failure is not None:
        raise failure


def _log_results(
    book: Logbook, judged: Sequence[Judged], entries: Sequence[Entry], registration: Registration | None
) -> None:
    """What the sweep's own run says of its end, to be searched by."""
    book.writer.set_tags(book.parent, _parent_tags(judged, entries, registration))
    for one in judged:
        book.writer.log_epoch(book.parent, 0, {f"{one.spec.recipe}.test_study_auroc": one.intervals["auroc"].estimate})


def _gallery(sweep: Sweep, judged: Sequence[Judged], entries: Sequence[Entry]) -> Pictures:
    """Hard studies of the model that the report is about, unless pictures are to stay out of it."""
    winner = winner_of(entries)
    if winner is None or not may_show(sweep.settings.request.pictures, synthetic=sweep.dataset.synthetic):
        return {}
    one = judged[list(entries).index(winner)]
    size = recipes_of(one.spec)[1].image_size
    return build_gallery(winner, one.network.cpu().eval(), size, sweep.dataset.root, sweep.folders.cache)


def _nothing_to_judge(book: Logbook) -> MuraLabError:
    reasons = [reason for reason in book.failures.values()]
    if reasons:
        return SettingsError(f"All trials failed; the first one said:\n{reasons[0]}")
    return SettingsError("No trial reached an epoch of its full phase. Give a longer time_budget, or none.")


def _failures(book: Logbook) -> list[str]:
    return [f"The trial {name} failed: {reason.strip().splitlines()[-1]}" for name, reason in book.failures.items()]


def _judge(book: Logbook, recipe: str, rule: str) -> Judged:
    name = book.best[recipe][1]
    return judge_trial(book.specs[name], book.writer.run_id(book.runs[name]), book.writer, rule=rule)


def _commit() -> str:
    return process_tags().get(Tag.GIT_COMMIT, "")


def _parent_tags(
    judged: Sequence[Judged], entries: Sequence[Entry], registration: Registration | None
) -> dict[str, str]:
    best = winner_of(entries)
    winner = {Tag.WINNER: "" if best is None else judged[list(entries).index(best)].spec.name}
    if registration is None:
        return {**winner, Tag.REGISTERED: ""}
    model, promotion = registration.model, registration.promotion
    return {**winner, Tag.REGISTERED: f"{model.name}/{model.version}", Tag.ALIAS: promotion.alias}


def absent_sentences(sweep: Sweep, book: Logbook) -> list[str]:
    """Of each recipe that was asked for and has no result: that it has none, and why."""
    sentences = []
    for recipe in [name for name in sweep.settings.recipes if name not in book.best]:
        names = [spec.name for spec in sweep.specs if spec.recipe == recipe]
        failed = [book.failures[name].strip().splitlines()[-1] for name in names if name in book.failures]
        how = [f"{len(failed)} failed, the first: {failed[0].rstrip('.')}"] if failed else []
        if len(failed) < len(names):
            how.append(f"{len(names) - len(failed)} had no time for an epoch of the full phase")
        trials = f"{len(names)} trial{'s' * (len(names) > 1)}"
        sentences.append(f"{recipe} has no result: of {trials}, {'; '.join(how)}.")
    return sentences


def why_unregistered(
    sweep: Sweep, judged: Sequence[Judged], entries: Sequence[Entry], failure: Exception | None
) -> str:
    """Why no model became a version, and how to mend it."""
    chosen = registering(judged, entries)
    if chosen is None:
        asked = [name for name, recipe in sweep.settings.recipes.items() if recipe.registers]
        if asked:
            return f"Not registered: {', '.join(asked)}, which would be, has no result."
        return "Not registered: no recipe that registers (inception_add_gate) was among those that ran."
    if failure is None:
        auroc = chosen.intervals["auroc"]
        return f"Not registered: {chosen.spec.recipe} does not beat chance on the test set (AUROC {auroc})."
    reason = str(failure)
    if not isinstance(failure, MuraLabError):  # a page of the exporter's own advice; its traceback follows
        first = reason.strip().partition("\n")[0]
        reason = f"{textwrap.shorten(ANSI.sub('', first), 200)} ({type(failure).__name__})"
    return (
        f"Not registered: the model of {chosen.spec.recipe} could not be exported, checked, registered or judged by "
        "the gate. "
        f"{' '.join(reason.split()).rstrip('.')}. Its weights and figures are kept; once that is mended: mlflow run . "
        f"-e promote --env-manager local -P part={shlex.quote(sweep.settings.request.part)} -P run={chosen.run_id}"
    )


def figure_lines(
    sweep: Sweep, judged: Sequence[Judged], entries: Sequence[Entry], absent: Sequence[str], champion: str | None
) -> list[str]:
    """What was found: every recipe's figures, who is better than whom, and the winner, as the report says it."""
    lines = ["", f"Test set of {sweep.dataset.part}: {_size(sweep)}, study level, 95 % patient-clustered intervals"]
    if sweep.dataset.synthetic:
        lines[-1] += " (SYNTHETIC data: figures say nothing about radiographs)"
    lines += [
        f"  {one.spec.recipe:<20} AUROC {one.intervals['auroc']}   kappa {one.intervals['kappa']}" for one in judged
    ]
    lines += [f"  {sentence}" for sentence in [*difference_sentences(entries), *absent]]
    winner = winner_of(entries)
    if winner is not None:
        lines += ["", f"The winner, by validation: {headline(judge(winner, metrics=WITH_INTERVALS))}"]
    return lines if champion is None else [*lines, champion_sentence(entries, champion)]


def where_lines(sweep: Sweep, parent: str) -> list[str]:
    """Where all of it is kept."""
    return [
        "",
        f"The report and all runs are in MLflow, run {parent}:",
        f"  {ui_command(sweep.store.uri)}",
        DISCLAIMER,
    ]


def _size(sweep: Sweep) -> str:
    row: Mapping[str, Any] = sweep.dataset.counts().set_index("set").loc["test"]
    return f"{row['studies']} studies of {row['patients']} patients, {row['images']} images"


def _program(name: str) -> str:
    path = Path(sys.executable).parent / name
    here = Path.cwd()
    return str(path.relative_to(here)) if path.is_relative_to(here) else str(path)


def ui_command(uri: str) -> str:
    """How to browse the store."""
    if uri.startswith("http"):
        return f"open {shown(uri)}"
    given = shlex.quote(uri) if shown(uri) == uri else '"$MLFLOW_TRACKING_URI"'  # a password stays where it is
    return f"{shlex.quote(_program('mlflow'))} ui --backend-store-uri {given} --host 127.0.0.1 --port 5000"


def next_commands(sweep: Sweep, model: RegisteredModel) -> list[str]:
    """Serve it, and ask it."""
    uri = sweep.store.uri  # one with a password is in the environment already
    store = f"MLFLOW_TRACKING_URI={shlex.quote(uri)} " if shown(uri) == uri else ""
    picture = shlex.quote(str(sweep.dataset.tables["test"]["path"].iloc[0]))
    return [
        "Serve it:",
        f'  PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH" {store}mlflow models serve '
        f"-m {shlex.quote(model.uri)} "
        "--env-manager local --host 127.0.0.1 --port 5001",
        "Ask it:",
        f'  printf \'{{"dataframe_records": [{{"image": "%s", "study": "s1"}}]}}\' '
        f"\"$(base64 {picture} | tr -d '\\n')\" "
        f"| curl -s -H 'Content-Type: application/json' -d @- {ADDRESS}/invocations",
    ]

"""The end of a sweep: judge, report, register, and say what was found and what to type next."""

from __future__ import annotations

import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from muralab.errors import MuraLabError, SettingsError
from muralab.experiment import set_threads
from muralab.registry import RegisteredModel
from muralab.report import difference_sentences, results_table, winner_of, write_report
from muralab.sweep.gallery import build_gallery, may_show
from muralab.sweep.logbook import Logbook
from muralab.sweep.registration import Registration, register_best, registering
from muralab.sweep.settings import count_cpus
from muralab.sweep.verdict import (
    Judged,
    build_context,
    build_entry,
    build_previews,
    build_trials,
    judge_trial,
)
from muralab.tracking import process_tags, read_children, shown
from muralab.trial import recipes_of

if TYPE_CHECKING:
    from muralab.evaluation.gallery import Pictures
    from muralab.report import Entry
    from muralab.sweep.prepare import Sweep

ADDRESS = "http://127.0.0.1:5001"
DISCLAIMER = "Research software, not a medical device: nothing here may be used to care for a patient."


def conclude(sweep: Sweep, book: Logbook) -> None:
    """Everything that follows the last trial.

    Raises:
        MuraLabError: no trial of any recipe got as far as its full phase.
    """
    if not book.best:
        raise _nothing_to_judge(book)
    sweep.console.print("Judging the best trial of each recipe on the test set.")
    set_threads(count_cpus())
    order = [name for name in sweep.settings.recipes if name in book.best]
    judged = [_judge(book, name) for name in order]
    book.writer.flush()
    records = {r.run_id: r for r in read_children(sweep.store, book.parent)}
    entries = [build_entry(one, records[one.run_id]) for one in judged]
    context = build_context(sweep.settings, sweep.dataset, sweep.weights, [*sweep.notes, *_failures(book)], _commit())
    registration = register_best(sweep, book, judged, entries, context)
    if registration is not None:
        context = replace(context, statements=[*context.statements, *registration.gate])
    trials = build_trials(sorted(records.values(), key=lambda r: r.name))
    with tempfile.TemporaryDirectory() as folder:
        report = write_report(
            Path(folder) / "report.html",
            context=context,
            entries=entries,
            trials=trials,
            previews=build_previews(one.spec for one in judged),
            champion=None if registration is None else registration.judged.spec.recipe,
            gallery=_gallery(sweep, judged, entries),
        )
        book.writer.log_file(book.parent, report)
        book.writer.log_table(book.parent, results_table(entries, seed=sweep.settings.request.seed), "results.csv")
        book.writer.log_file(book.parent, sweep.folders.plan)
        book.writer.set_tags(book.parent, _parent_tags(judged, registration, book))
        for one in judged:
            book.writer.log_epoch(
                book.parent, 0, {f"{one.spec.recipe}.test_study_auroc": one.intervals["auroc"].estimate}
            )
        book.writer.flush()
    for line in closing_lines(sweep, judged, entries, registration, book.parent):
        sweep.console.print(line, highlight=False, markup=False, soft_wrap=True)


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


def _judge(book: Logbook, recipe: str) -> Judged:
    name = book.best[recipe][1]
    return judge_trial(book.specs[name], book.writer.run_id(book.runs[name]), book.writer)


def _commit() -> str:
    return process_tags().get("mlflow.source.git.commit", "")


def _parent_tags(judged: Sequence[Judged], registration: Registration | None, book: Logbook) -> dict[str, str]:
    winner = {"muralab.winner": _best(judged, book).spec.name}
    if registration is None:
        return {**winner, "muralab.registered": ""}
    model, promotion = registration.model, registration.promotion
    return {**winner, "muralab.registered": f"{model.name}/{model.version}", "muralab.alias": promotion.alias}


def _best(judged: Sequence[Judged], book: Logbook) -> Judged:
    """The winner: by validation, never by test."""
    return max(judged, key=lambda one: book.best[one.spec.recipe][0])


def closing_lines(
    sweep: Sweep, judged: Sequence[Judged], entries: Sequence[Entry], done: Registration | None, parent: str
) -> list[str]:
    """The last lines of a sweep: figures, what was registered, and the next commands, ready to paste."""
    lines = ["", f"Test set of {sweep.dataset.part}: {_size(sweep)}, study level, 95 % patient-clustered intervals"]
    if sweep.dataset.synthetic:
        lines[-1] += " (SYNTHETIC data: figures say nothing about radiographs)"
    lines += [
        f"  {one.spec.recipe:<20} AUROC {one.intervals['auroc']}   kappa {one.intervals['kappa']}" for one in judged
    ]
    lines += [f"  {sentence}" for sentence in difference_sentences(entries, seed=sweep.settings.request.seed)]
    chosen = registering(judged)
    if done is not None:
        lines += ["", *done.lines, *next_commands(sweep, done.model)]
    elif chosen is not None:
        low = chosen.intervals["auroc"]
        lines += ["", f"Not registered: {chosen.spec.recipe} does not beat chance on the test set (AUROC {low})."]
    else:
        lines += ["", "Not registered: no recipe that registers (inception_add_gate) was among those that ran."]
    lines += [
        "",
        f"The report and all runs are in MLflow, run {parent}:",
        f"  {ui_command(sweep.store.uri)}",
        DISCLAIMER,
    ]
    return lines


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
    given = uri if shown(uri) == uri else '"$MLFLOW_TRACKING_URI"'  # a password stays where it is
    return f"{_program('mlflow')} ui --backend-store-uri {given} --host 127.0.0.1 --port 5000"


def next_commands(sweep: Sweep, model: RegisteredModel) -> list[str]:
    """Serve it, and ask it."""
    uri = sweep.store.uri  # one with a password is in the environment already
    store = f"MLFLOW_TRACKING_URI={uri} " if shown(uri) == uri else ""
    picture = sweep.dataset.tables["test"]["path"].iloc[0]
    return [
        "Serve it:",
        f'  PATH="{Path(sys.executable).parent}:$PATH" {store}mlflow models serve '
        f"-m {model.uri} "
        "--env-manager local --host 127.0.0.1 --port 5001",
        "Ask it:",
        f'  printf \'{{"dataframe_records": [{{"image": "%s", "study": "s1"}}]}}\' '
        f"\"$(base64 {picture} | tr -d '\\n')\" "
        f"| curl -s -H 'Content-Type: application/json' -d @- {ADDRESS}/invocations",
    ]

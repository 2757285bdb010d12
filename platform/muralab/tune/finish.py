"""The end of a search in steps: final test, results, registration, report, closing lines."""

from __future__ import annotations

import shlex
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import pandas as pd

from muralab.errors import MuraLabError, SettingsError, TrialsFailedError, numbered
from muralab.evaluation.evaluated_model import EvaluatedModel, best_of
from muralab.evaluation.gallery import Pictures
from muralab.paths import in_checkout
from muralab.redaction import redact
from muralab.registry.register import RegisteredModel
from muralab.report.context import Context, SearchTrial
from muralab.report.importance import importances
from muralab.report.page import write_report
from muralab.report.results_table import results_table
from muralab.report.sentences import calibration_notes, difference_sentences, headline
from muralab.report.verdict import confusion_sentence, missed_sentence, registered_sentence
from muralab.results.final_test import FinalTest, run_final_test
from muralab.results.from_mlflow import read_trials
from muralab.results.gallery import build_gallery, may_show
from muralab.results.previews import build_previews
from muralab.results.trained_model import read_final_test
from muralab.tracking import RunRecord, RunWriter, Store, find_records, read_run
from muralab.tracking.tags import Tag
from muralab.tune.plan import Sweep
from muralab.tune.registration import Outcome
from muralab.tune.resume import has_weights
from muralab.tune.sweep_notes import SweepPages, experiment_note, registered_name, result_metrics, sweep_note
from muralab.tune.trial_logger import TrialLogger

ADDRESS = "http://127.0.0.1:5001"


@dataclass(frozen=True, kw_only=True, eq=False)
class SweepResult:
    """What a search found; every later step reads it."""

    sweep: Sweep
    parent: str
    """Its own run."""
    tests: Sequence[FinalTest]
    """The best trial of each recipe, tested, in the order of the recipes."""
    trials: Sequence[SearchTrial] = ()
    missing: Sequence[str] = ()
    """A sentence for each recipe without a result."""
    failures: Mapping[str, str] = field(default_factory=dict)
    """Trial -> why it failed."""
    happened: Sequence[str] = ()
    """What the search had to adapt to."""

    @property
    def models(self) -> list[EvaluatedModel]:
        """The tested models."""
        return [one.model for one in self.tests]

    @property
    def notes(self) -> list[str]:
        """Everything that a reader of the report should know."""
        failed = [f"The trial {name} failed: {_last_line(reason)}" for name, reason in self.failures.items()]
        return [*self.sweep.notes, *self.happened, *failed, *self.missing]

    @property
    def best(self) -> FinalTest | None:
        """The test of the model that validation selected."""
        best = best_of(self.models)
        return next((one for one in self.tests if one.model is best), None)


def evaluate_best_trials(sweep: Sweep, logger: TrialLogger, store: Store) -> SweepResult:
    """Evaluate the best trial of each recipe on the test set, once.

    Raises:
        MuraLabError: no trial of any recipe reached its full phase, or the run of one has been deleted.
    """
    if not logger.best:
        raise nothing_to_test(logger.failures)
    logger.writer.flush()
    names = [logger.best[recipe][1] for recipe in sweep.config.recipes if recipe in logger.best]
    run_ids = [logger.writer.run_id(logger.runs[name]) for name in names]
    records = find_records(store, logger.parent, run_ids, history=False)
    if sweep.resumed:
        forget_earlier_best(records, names, logger)
    for note in [*logger.weights_notes(), *superseded_notes(records, run_ids)]:
        logger.adapted(note)
    rule = sweep.config.options.threshold
    tests = [
        run_final_test(logger.specs[name], read_run(store, run_id, predictions=False), logger.writer, rule=rule)
        if has_weights(logger.specs[name])
        else read_final_test(logger.specs[name], store, run_id)  # of a sweep that was extended
        for name, run_id in zip(names, run_ids, strict=True)
    ]
    return SweepResult(
        sweep=sweep,
        parent=logger.parent,
        tests=tests,
        trials=read_trials(store, sorted(records.values(), key=lambda record: record.name)),
        missing=missing_results(sweep, logger.best, logger.failures),
        failures=logger.failures,
        happened=logger.notes,
    )


def superseded_notes(records: Mapping[str, RunRecord], chosen: Sequence[str]) -> list[str]:
    """How many trials of a search have been evaluated on the test set, where they are more than were chosen in the end.

    Args:
        records: of all trials, from before this test.
        chosen: the runs of the best trials.
    """
    earlier = [
        one.short_name for run_id, one in records.items() if Tag.TEST_FINGERPRINT in one.tags and run_id not in chosen
    ]
    if not earlier:
        return []
    return [
        f"The test set has been evaluated for {len(earlier) + len(chosen)} trials of this sweep: for the chosen ones, "
        f"and before these for {', '.join(earlier)}."
    ]


def forget_earlier_best(records: Mapping[str, RunRecord], names: Sequence[str], logger: TrialLogger) -> None:
    """Prepare for a second evaluation in the same runs: nothing is logged twice, and one trial of a recipe is its best.

    Args:
        records: of all trials, as the store has them.
        names: the best trial of each recipe.
        logger: that knows their runs.
    """
    best = {logger.writer.run_id(logger.runs[name]) for name in names}
    for run_id in best:
        logger.writer.read_run(run_id)
    for run_id, record in records.items():
        if run_id not in best and record.tags.get(Tag.BEST_OF_RECIPE) == "true":
            logger.writer.set_tags(run_id, {Tag.BEST_OF_RECIPE: "false"})


def check_failures(logger: TrialLogger) -> None:
    """Refuse to call a search done whose trials failed for a reason that another try may not have.

    Raises:
        TrialsFailedError: what failed; the search can be resumed.
    """
    failed = {name: _last_line(text) for name, text in logger.failures.items() if name not in logger.diverged}
    if failed:
        count = f"{len(failed)} of {len(logger.specs)} trials failed; the results are those of the others:"
        raise TrialsFailedError(numbered(count, [f"{name}: {text}" for name, text in failed.items()]))


def nothing_to_test(failures: Mapping[str, str]) -> MuraLabError:
    """Why no trial can be tested."""
    if failures:
        return SettingsError(f"All trials failed; the first error was:\n{next(iter(failures.values()))}")
    return SettingsError("No trial reached an epoch of its full phase. Give a longer time_budget, or none.")


def missing_results(sweep: Sweep, best: Mapping[str, Any], failures: Mapping[str, str]) -> list[str]:
    """A sentence for each recipe that has no result, with the reason."""
    sentences = []
    for recipe in [name for name in sweep.config.recipes if name not in best]:
        names = [spec.name for spec in sweep.specs if spec.recipe == recipe]
        failed = [_last_line(failures[name]) for name in names if name in failures]
        how = [f"{len(failed)} failed, the first with: {failed[0].rstrip('.')}"] if failed else []
        if len(failed) < len(names):
            how.append(f"{len(names) - len(failed)} had no time for an epoch of the full phase")
        trials = f"{len(names)} trial{'s' * (len(names) > 1)}"
        sentences.append(f"{recipe} has no result: of {trials}, {'; '.join(how)}.")
    return sentences


def _last_line(reason: str) -> str:
    return reason.strip().splitlines()[-1]


def save_results(result: SweepResult, writer: RunWriter) -> None:
    """Log the figures first, so that nothing that fails later can lose them."""
    writer.log_table(result.parent, results_table(result.models), "results.csv")
    writer.flush()


def save_importances(result: SweepResult, writer: RunWriter) -> None:
    """Log how much each searched value mattered, where a recipe has enough trials to tell."""
    found = importances(result.trials)
    if not found:
        return
    writer.log_table(result.parent, pd.DataFrame([asdict(one) for one in found]), "importances.csv")
    metrics = {
        f"importance/{one.recipe}/{one.key}{end}": value
        for one in found
        for end, value in (("", one.correlation), ("_low", one.low), ("_high", one.high))
    }
    writer.log_epoch(result.parent, result.sweep.extended, metrics)


def save_report(result: SweepResult, outcome: Outcome, context: Context, writer: RunWriter) -> None:
    """Write the report with the registration's outcome, and log it in the search's own run."""
    context = replace(context, statements=[*context.statements, *outcome.statements])
    with tempfile.TemporaryDirectory() as folder:
        page = write_report(
            Path(folder) / "report.html",
            context=context,
            models=result.models,
            trials=result.trials,
            previews=build_previews(one.spec for one in result.tests),
            champion=registered_name(outcome),
            galleries=draw_galleries(result, outcome),
        )
        writer.log_file(result.parent, page)
        writer.flush()


def draw_galleries(result: SweepResult, outcome: Outcome | None = None) -> dict[str, Pictures]:
    """Run id -> hard studies of the chosen and of the served model, unless images are kept out of the report."""
    sweep = result.sweep
    if not may_show(getattr(sweep.config.options, "pictures", None), synthetic=sweep.dataset.synthetic):
        return {}
    served = None if outcome is None or outcome.registration is None else outcome.registration.test
    shown = {one.model.run_id: one for one in (result.best, served) if one is not None and one.network is not None}
    return {run_id: _draw_gallery(one, sweep) for run_id, one in shown.items()}


def _draw_gallery(test: FinalTest, sweep: Sweep) -> Pictures:
    assert test.network is not None
    return build_gallery(test.model, test.network.cpu().eval(), sweep.dataset.caches[test.image_size])


def log_outcome(result: SweepResult, outcome: Outcome, writer: RunWriter) -> None:
    """Log in the search's own run how it ended, so that it can be searched for."""
    best, registration = result.best, outcome.registration
    tags = {Tag.WINNER: "" if best is None else best.spec.name, Tag.REGISTERED: ""}
    if registration is not None:
        registered, promotion = registration.model, registration.promotion
        tags |= {Tag.REGISTERED: f"{registered.name}/{registered.version}", Tag.ALIAS: promotion.alias}
        if promotion.reevaluated is not None:
            writer.log_table(result.parent, promotion.reevaluated, "judged_again.csv")
            tags[Tag.TEST_FINGERPRINT] = promotion.fingerprint
    writer.set_tags(result.parent, tags)
    writer.log_epoch(
        result.parent, result.sweep.extended, result_metrics(result.models, None if best is None else best.model)
    )


def describe_sweep(result: SweepResult, outcome: Outcome, pages: SweepPages, writer: RunWriter) -> None:
    """Describe the search on its own page and on that of its experiment."""
    best = None if result.best is None else result.best.model
    given = (result.sweep, result.models, best, outcome, pages)
    writer.set_tags(result.parent, {Tag.NOTE: sweep_note(*given, missing=result.missing)})
    writer.describe_experiment(result.parent, experiment_note(*given))


def closing_lines(result: SweepResult, outcome: Outcome, store: Store) -> list[str]:
    """What was registered, and what to type next; the figures have been printed."""
    registration = outcome.registration
    if registration is None:
        return ["", *outcome.statements]
    model, dataset = registration.model, result.sweep.dataset
    image = str(dataset.tables["test"]["path"].iloc[0]) if dataset.synthetic else "image.png"
    registered = f"Registered {model.name} version {model.version} as {model.uri}."
    served = served_lines(result, registered_name(outcome))
    return [*served, "", registered, *outcome.statements, *serve_commands(model, store, image)]


def served_lines(result: SweepResult, name: str | None) -> list[str]:
    """Which model is registered, and what its figures mean, unless they have been printed for the selected model."""
    served = next(model for model in result.models if model.label == name)
    stated = registered_sentence(result.models, served.label, part=result.sweep.dataset.part)
    is_selected = result.best is not None and served is result.best.model
    return [*filter(None, [stated, "" if is_selected else confusion_sentence(served), missed_sentence(served)])]


def figure_lines(result: SweepResult) -> list[str]:
    """Every recipe's figures, the paired differences, and the selected model, as in the report."""
    dataset = result.sweep.dataset
    row: Mapping[str, Any] = dataset.counts().set_index("set").loc["test"]
    size = f"{row['studies']} studies of {row['patients']} patients, {row['images']} images"
    heading = f"Test set of {dataset.part}: {size}, study level, 95% patient-clustered intervals"
    if dataset.synthetic:
        heading += " (SYNTHETIC data: figures say nothing about radiographs)"
    lines = ["", heading]
    for model in result.models:
        intervals = model.intervals()
        phase = "   weights of the upper phase" if model.training.tested_phase == "upper" else ""
        lines.append(f"  {model.recipe:<20} AUROC {intervals['auroc']}   kappa {intervals['kappa']}{phase}")
    lines += [f"  {sentence}" for sentence in [*difference_sentences(result.models), *result.missing]]
    lines += [f"  Note: {note}" for note in calibration_notes(result.models)]
    if result.best is not None:
        best = result.best.model
        lines += ["", f"Selected on validation: {headline(best)} {confusion_sentence(best)}"]
    return lines


def serve_commands(model: RegisteredModel, store: Store, image: str) -> list[str]:
    """How to serve a model, and how to send it an image; the lines can be pasted."""
    uris = {"MLFLOW_TRACKING_URI": store.uri, "MLFLOW_REGISTRY_URI": store.registry_uri}
    shown = {name: uri for name, uri in uris.items() if uri and redact(uri) == uri}  # no password in the terminal
    environment = "".join(f"{name}={shlex.quote(uri)} " for name, uri in shown.items())
    own = f"models:/{model.name}@champion"
    if in_checkout() and model.uri == own and model.name.startswith("mura-"):
        part = model.name.removeprefix("mura-")
        given = "" if part == "wrist" else f" PART={shlex.quote(part)}"
        return [
            "Serve it:",
            f"  make serve{given}      # at {ADDRESS}/invocations",
            f"  make app{given}        # the same with a web page and request limits",
        ]
    return [
        "Serve it:",
        f'  PATH={shlex.quote(str(Path(sys.executable).parent))}:"$PATH" {environment}mlflow models serve '
        f"-m {shlex.quote(model.uri)} "
        "--env-manager local --host 127.0.0.1 --port 5001",
        "Send it an image:",
        f'  printf \'{{"dataframe_records": [{{"image": "%s", "study": "s1"}}]}}\' '
        f"\"$(base64 {shlex.quote(image)} | tr -d '\\n')\" "
        f"| curl -s -H 'Content-Type: application/json' -d @- {ADDRESS}/invocations",
    ]

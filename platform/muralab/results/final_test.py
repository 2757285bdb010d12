"""The final test of a trial: its selected weights on the test set, once, logged in the trial's own run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from muralab.data.names import with_real_names
from muralab.evaluation.calibration import fit_calibration
from muralab.evaluation.evaluated_model import EvaluatedModel, TrainingRecord
from muralab.evaluation.intervals import INTERVAL_METHOD
from muralab.evaluation.metrics import METRICS, evaluate_predictions, main_metrics
from muralab.experiment import predict_sets
from muralab.recipe_loader import load_recipe
from muralab.report.sentences import headline
from muralab.report.verdict import model_note
from muralab.tracking import RunRecord, RunWriter, fingerprint_test_set
from muralab.tracking.tags import Tag
from muralab.training.checkpoint import write_tensors
from muralab.training.phases import PHASES
from muralab.training.trainer import best_name
from muralab.trial import TrialSpec, read_table, recipes_of

if TYPE_CHECKING:
    from muralab.training.network import Network


@dataclass(frozen=True, kw_only=True, eq=False)
class FinalTest:
    """A selected trial that was evaluated on the test set."""

    spec: TrialSpec
    network: Network | None
    """None where it was released after the test."""
    model: EvaluatedModel
    fingerprint: str = ""
    """Of the test set, as it is tagged."""

    @property
    def image_size(self) -> int:
        """Side of the network's input in px."""
        return recipes_of(self.spec)[1].image_size


def run_final_test(
    spec: TrialSpec, record: RunRecord, writer: RunWriter, *, rule: str, keep_weights: bool = True
) -> FinalTest:
    """Evaluate a trial's selected weights on the test set, and log the figures in the trial's own run.

    Args:
        spec: the trial.
        record: its run, with its history and its tag of the phase whose weights are kept.
        writer: of that run.
        rule: of the operating threshold, fitted on validation studies.
        keep_weights: whether the run keeps the weights, for `promote`, `evaluate` and galleries.
    """
    # A trial that an earlier version finished has no such tag: its logged score is the full phase's.
    kept = record.tags.get(Tag.KEPT_PHASE, "full")
    network, tables = predict_sets(spec, kept)
    trained = training_metrics(spec, kept, tables["train"])
    model = build_model(spec.recipe, record, tables["validation"], tables["test"], rule=rule, trained=trained)
    if keep_weights:
        weights = Path(spec.folder) / "weights.safetensors"
        write_tensors(weights, network.state_dict(), {"recipe": spec.recipe, "run_id": record.run_id})
        writer.log_file(record.run_id, weights, "weights")
    fingerprint = fingerprint_test_set(with_real_names(tables["test"], read_table(spec.table)))
    log_test(writer, record.run_id, model, fingerprint)
    writer.log_epoch(record.run_id, 0, trained)
    note = record.tags.get(Tag.NOTE, "")
    if headline(model) not in note:  # a resumed search tests again what it had tested
        writer.set_tags(record.run_id, {Tag.NOTE: f"{model_note(model)}\n\n{note}"})
    writer.set_tags(record.run_id, {Tag.BEST_OF_RECIPE: str(keep_weights).lower()})
    return FinalTest(spec=spec, network=network, model=model, fingerprint=fingerprint)


def training_metrics(spec: TrialSpec, kept: str, predictions: pd.DataFrame) -> dict[str, float]:
    """Image-level loss and accuracy of the training images, with a phase's best weights, as `<phase>_eval_train_loss`.

    Unlike an epoch's `train_loss`, they are measured like those of the other sets: in evaluation mode, without
    augmentation. Of the kept weights; with `kept_phase=full` (the study's schedule) of both phases, for its table.

    Args:
        spec: the trial.
        kept: the phase whose weights are kept.
        predictions: of the training images, with these weights.
    """
    by_phase = {kept: predictions}
    if recipes_of(spec)[1].kept_phase == "full":
        others = [name for name in PHASES if name != kept and (Path(spec.folder) / best_name(name)).exists()]
        by_phase |= {phase: predict_sets(spec, phase, sets=("train",))[1]["train"] for phase in others}
    found = {phase: evaluate_predictions(table, level="image") for phase, table in by_phase.items()}
    return {
        f"{phase}_eval_train_{name}": metrics[metric]
        for phase, metrics in found.items()
        for name, metric in (("loss", "log_loss"), ("accuracy", "accuracy"))
    }


def build_model(
    recipe_name: str,
    record: RunRecord,
    validation: pd.DataFrame,
    test: pd.DataFrame,
    *,
    rule: str,
    trained: Mapping[str, float],
) -> EvaluatedModel:
    """A trial's model from its predictions: calibrated and given its threshold on validation studies."""
    recipe, history = load_recipe(recipe_name), record.history
    return EvaluatedModel(
        recipe=recipe_name,
        title=recipe.summary,
        run_id=record.run_id,
        validation=validation,
        test=test,
        calibration=fit_calibration(validation, rule=rule),
        objective=record.metrics.get("objective", float("nan")),
        training=TrainingRecord(
            values=record.values,
            history=history.dropna(subset=["train_loss"]) if "train_loss" in history else history,
            summary={**record.metrics, **trained, **image_metrics(test)},
            kept_phase=record.tags.get(Tag.KEPT_PHASE, ""),
            from_scratch=not recipe.pretrained,
        ),
    )


def log_test(writer: RunWriter, run_id: str, model: EvaluatedModel, fingerprint: str) -> None:
    """Log a model's test predictions with the fingerprint of their set, its calibration and metrics in a run."""
    writer.log_predictions(run_id, "test", model.predictions(), fingerprint=fingerprint)
    if model.calibration is not None:
        writer.log_text(run_id, json.dumps(model.calibration.to_dict(), indent=1), "calibration.json")
    writer.set_tags(run_id, {Tag.INTERVALS: INTERVAL_METHOD})
    figures = {f"{Tag.TEST_STUDY_PREFIX}{name}": str(model.intervals()[name]) for name in main_metrics()}
    writer.set_tags(run_id, figures)
    writer.log_epoch(run_id, 0, logged_metrics(model))


def image_metrics(test: pd.DataFrame) -> Mapping[str, float]:
    """The test figures of the study's table: image level, at 0.5, uncalibrated."""
    image = evaluate_predictions(test, level="image")
    return {"test_loss": image["log_loss"], "test_accuracy": image["accuracy"], "test_auroc": image["auroc"]}


def logged_metrics(model: EvaluatedModel) -> dict[str, float]:
    """Test figures as they are logged: images at 0.5 as in the study, studies at the fitted threshold."""
    intervals = model.intervals()
    bounds = {name: intervals[name] for name in main_metrics()}
    return {
        **image_metrics(model.predictions()),
        **{f"test_study_{name}": intervals[name].estimate for name in METRICS},
        **{f"test_study_{name}_low": interval.low for name, interval in bounds.items()},
        **{f"test_study_{name}_high": interval.high for name, interval in bounds.items()},
        "threshold": model.threshold,
    }

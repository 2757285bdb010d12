"""After the search: the best trial of each recipe meets the test set, once, and everything is written down."""

from __future__ import annotations

import json
import platform as machine_facts
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from muralab.config.settings import Settings
from muralab.data.augment import preview_grid
from muralab.data.dataset import Dataset
from muralab.data.images.decode import decode, to_square
from muralab.demo.dataset import example_study
from muralab.errors import RecipeError
from muralab.evaluation.bootstrap import Interval, bootstrap
from muralab.evaluation.calibration import Calibration, fit_calibration
from muralab.evaluation.metrics import METRICS, evaluate_predictions
from muralab.experiment import predict_validation_and_test
from muralab.recipe_loader import load_recipe
from muralab.report import Context, Entry, Trial
from muralab.tracking import RunRecord, RunWriter
from muralab.tracking.tags import Tag, resolved_values_of
from muralab.training.checkpoint import write_tensors
from muralab.trial import TrialSpec, recipes_of

if TYPE_CHECKING:
    from muralab.training.network import Network

WITH_INTERVALS = ("auroc", "kappa")
PREVIEWED = 4
"""Synthetic pictures whose augmentation is shown; a patient's are not, whatever the data."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Judged:
    """A chosen trial that has met the test set."""

    spec: TrialSpec
    run_id: str
    network: Network
    validation: pd.DataFrame
    test: pd.DataFrame
    calibration: Calibration
    intervals: Mapping[str, Interval]
    """Test figures at study level, by metric."""

    @property
    def beats_chance(self) -> bool:
        """Whether the lower end of the test AUROC's interval lies above 0.5."""
        return self.intervals["auroc"].low > 0.5


def judge_trial(spec: TrialSpec, run_id: str, writer: RunWriter, *, rule: str, keep_weights: bool = True) -> Judged:
    """Look at the test set with a trial's best weights, and log what was seen in the trial's own run.

    Args:
        spec: the trial.
        run_id: its run.
        writer: of that run.
        rule: how the threshold is fitted on validation studies.
        keep_weights: whether the run keeps them, for `promote`, `evaluate` and galleries.
    """
    network, validation, test = predict_validation_and_test(spec)
    calibration = fit_calibration(validation, rule=rule)
    intervals = bootstrap(
        test,
        level="study",
        metrics=WITH_INTERVALS,
        threshold=calibration.threshold,
        temperature=calibration.study_temperature,
    )
    if keep_weights:
        weights = Path(spec.folder) / "weights.safetensors"
        write_tensors(weights, network.state_dict(), {"recipe": spec.recipe, "run_id": run_id})
        writer.log_file(run_id, weights, "weights")
    writer.log_predictions(run_id, "test", test)
    writer.log_text(run_id, json.dumps(calibration.to_dict(), indent=1), "calibration.json")
    writer.log_epoch(run_id, 0, test_metrics(test, calibration, intervals))
    writer.set_tags(run_id, {Tag.BEST_OF_RECIPE: str(keep_weights).lower()})
    return Judged(
        spec=spec,
        run_id=run_id,
        network=network,
        validation=validation,
        test=test,
        calibration=calibration,
        intervals=intervals,
    )


def test_metrics(test: pd.DataFrame, calibration: Calibration, intervals: Mapping[str, Interval]) -> dict[str, float]:
    """Test figures as they are logged: image level at 0.5 as in the study, study level at the fitted threshold."""
    image = evaluate_predictions(test, level="image")
    study = evaluate_predictions(
        test, level="study", threshold=calibration.threshold, temperature=calibration.study_temperature
    )
    return {
        "test_loss": image["log_loss"],
        "test_accuracy": image["accuracy"],
        "test_auroc": image["auroc"],
        **{f"test_study_{name}": study[name] for name in METRICS},
        **{f"test_study_{name}_low": interval.low for name, interval in intervals.items()},
        **{f"test_study_{name}_high": interval.high for name, interval in intervals.items()},
        "threshold": calibration.threshold,
    }


def build_entry(judged: Judged, record: RunRecord) -> Entry:
    """A judged trial as the report takes it."""
    recipe = load_recipe(judged.spec.recipe)
    return Entry(
        name=judged.spec.recipe,
        title=recipe.summary,
        run_id=judged.run_id,
        resolved=resolved_values_of(record.params),
        history=record.history.dropna(subset=["train_loss"]) if "train_loss" in record.history else record.history,
        summary=record.metrics,
        from_scratch=not recipe.pretrained,
        validation=judged.validation,
        test=judged.test,
        calibration=judged.calibration,
        objective=record.metrics.get("objective", float("nan")),
    )


def build_trials(records: Iterable[RunRecord]) -> list[Trial]:
    """Every trial of a sweep as the report takes it."""
    return [
        Trial(
            recipe=record.recipe,
            name=record.name,
            run_id=record.run_id,
            status=record.tags.get(Tag.ENDED, record.status.lower()),
            epochs=int(record.history["train_loss"].notna().sum()) if "train_loss" in record.history else 0,
            objective=record.metrics.get("objective", float("nan")),
            values=_searched(record),
        )
        for record in records
    ]


def _searched(record: RunRecord) -> dict[str, float | str]:
    resolved = resolved_values_of(record.params)
    values: dict[str, float | str] = {}
    try:
        searched = load_recipe(record.recipe).search
    except RecipeError:  # of another checkout: what it searched is not known here
        return values
    for key in searched:
        if key in resolved:
            try:
                values[key] = float(resolved[key])
            except ValueError:
                values[key] = resolved[key]
    return values


def build_context(settings: Settings, dataset: Dataset, weights: str, notes: Iterable[str], commit: str) -> Context:
    """What the whole report has in common."""
    request = settings.request
    sizes = sorted({recipe.image_size for recipe in settings.recipes.values()})
    return Context(
        title=f"MURA Lab: {request.part}",
        part=request.part,
        data=request.data,
        synthetic=dataset.synthetic,
        protocol=request.protocol,
        seed=request.seed,
        image_size=sizes[0] if len(sizes) == 1 else " / ".join(str(size) for size in sizes),
        weights=weights,
        split_counts=dataset.counts(),
        fingerprint=dataset.splits.fingerprint,
        unreadable=dataset.unreadable,
        commit=commit,
        created=datetime.now(UTC),
        machine=describe_machine(settings.resources.gpus > 0),
        notes=list(notes),
        objective=request.objective,
        audit=(dataset.audit.paragraph(), dataset.audit.table()),
    )


def describe_machine(with_gpu: bool) -> str:
    """Processor, cores, GPU and the versions that matter, in a line."""
    import torch

    from muralab.config.settings import count_cpus

    gpu = f", {torch.cuda.get_device_name()}" if with_gpu else ", no GPU"
    return (
        f"{machine_facts.system()} {machine_facts.machine()}, {count_cpus()} CPU cores{gpu}, "
        f"Python {machine_facts.python_version()}, torch {torch.__version__}"
    )


def build_previews(specs: Iterable[TrialSpec]) -> dict[str, np.ndarray]:
    """Recipe -> grid of augmented synthetic pictures, at the strengths of that trial."""
    previews = {}
    for spec in specs:
        _, recipe = recipes_of(spec)
        pictures = [decode(view) for seed in range(PREVIEWED // 2) for view in example_study(seed)]
        squares = np.stack([to_square(picture, recipe.image_size) for picture in pictures])
        previews[spec.recipe] = preview_grid(squares, recipe.augment, columns=len(squares), seed=spec.seed)
    return previews


def verification_images(judged: Judged, dataset: Dataset, n_images: int = 32) -> np.ndarray:
    """Pictures on which torch and the served model are compared, uint8 [N, S, S]; validation, never test."""
    from muralab.data.files import read_square

    table = dataset.tables["validation"]
    rows = np.linspace(0, len(table) - 1, min(n_images, len(table))).astype(int)
    size = recipes_of(judged.spec)[1].image_size
    return np.stack([read_square(Path(table["path"].iloc[row]), size) for row in rows])

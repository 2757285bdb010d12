"""One run in order: data -> network -> two training phases -> validation and test predictions. Read this first.

Nothing here depends on MLflow or Ray; the callers log and schedule.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from muralab.atomic import atomic_path
from muralab.data.loader import evaluation_batches
from muralab.data.splits import SETS
from muralab.disk import disk_problem
from muralab.errors import DiskError, DivergedError, RecipeError
from muralab.evaluation.calibration import Calibration, fit_calibration
from muralab.evaluation.metrics import evaluate_predictions
from muralab.evaluation.predictions import predict_images
from muralab.recipe_source import digest_sources, read_sources
from muralab.training.device import memory_errors, release_memory
from muralab.training.phase_trainer import TrainerSettings
from muralab.training.phases import freeze, head_alone
from muralab.training.trainer import EpochResult, train, trained_state
from muralab.training.weights import estimate_batchnorm, load_backbone
from muralab.trial import (
    EVALUATION_BATCH,
    ImageData,
    TrialData,
    TrialSpec,
    device_of,
    read_data,
    recipes_of,
    uses_bfloat16,
)

if TYPE_CHECKING:
    import torch

    from muralab.training.network import Network

BATCHNORM_IMAGES = 256
"""Training images that BatchNorm statistics are estimated from where a backbone has random weights."""
VALIDATION_METRICS = {
    "val_loss": ("image", "log_loss"),
    "val_accuracy": ("image", "accuracy"),
    "val_auroc": ("image", "auroc"),
    "val_average_precision": ("image", "average_precision"),
    "val_study_accuracy": ("study", "accuracy"),
    "val_study_auroc": ("study", "auroc"),
    "val_study_average_precision": ("study", "average_precision"),
}
OBJECTIVES = tuple(name for name in VALIDATION_METRICS if name != "val_loss")


def set_threads(threads: int) -> None:
    """Set the number of CPU threads for tensors, and turn OpenCV's own threads off."""
    import cv2
    import torch

    torch.set_num_threads(threads)
    cv2.setNumThreads(0)
    torch.backends.cudnn.benchmark = True


def build_network(spec: TrialSpec, data: TrialData) -> Network:
    """Build the recipe's network with its initial weights, on its device.

    Raises:
        WeightsError: the weights file does not match the backbone.
    """
    import torch

    _, recipe = recipes_of(spec)
    torch.manual_seed(spec.seed)
    network: Network = recipe.build(image_size=recipe.image_size, **recipe.model)
    if recipe.pretrained and spec.weights:
        load_backbone(network.backbone, Path(spec.weights))
    network = network.to(device_of(spec)).to(memory_format=torch.channels_last)
    if recipe.pretrained and not spec.weights:
        table = data.tables["train"]
        sample = table.iloc[np.random.default_rng(spec.seed).permutation(len(table))[:BATCHNORM_IMAGES]]
        batches = evaluation_batches(data.cache, sample.reset_index(drop=True), batch_size=EVALUATION_BATCH)
        estimate_batchnorm(network, (b.images.to(device_of(spec)) for b in batches if len(b.images) > 1))
    return network


class ValidationEvaluator:
    """Computes an epoch's validation metrics and keeps that epoch's predictions."""

    def __init__(self, spec: TrialSpec, data: TrialData) -> None:
        self.spec, self.data, self.amp = spec, data, uses_bfloat16(spec)
        self.predictions = pd.DataFrame()

    def __call__(self, network: Network, pooled: torch.Tensor | None) -> dict[str, float]:
        """Evaluate on the validation images, or on their pooled features [M, D] where the backbone is frozen."""
        import torch

        table = self.data.tables["validation"]
        if pooled is None:
            self.predictions = predict_images(
                network, self.data.cache, table, device=device_of(self.spec), amp=self.amp
            )
        else:
            network.head.eval()
            with torch.inference_mode():
                logits = network.head(pooled).float().flatten().cpu().numpy()
            self.predictions = table[["image", "study", "patient", "part", "label"]].assign(logit=logits)
        if not np.isfinite(self.predictions["logit"]).all():
            raise DivergedError(
                "Training diverged: the network's outputs on the validation images are not finite. Lower the learning "
                "rates, lengthen warmup_epochs, or set clip_norm."
            )
        rule = self.spec.threshold
        fitted = fit_calibration(self.predictions, rule=rule) if rule else Calibration()
        by_level = {
            "image": evaluate_predictions(self.predictions, level="image"),
            "study": evaluate_predictions(
                self.predictions, level="study", scaling=fitted.scaling("study"), threshold=fitted.threshold_of("study")
            ),
        }
        return {name: by_level[level][metric] for name, (level, metric) in VALIDATION_METRICS.items()}


def predictions_path(folder: str | Path, phase: str) -> Path:
    """Path of the validation predictions of a phase's best epoch."""
    return Path(folder) / f"validation_{phase}.csv"


def run_trial(spec: TrialSpec) -> Generator[EpochResult]:
    """Train a trial, from the start or from the checkpoint in its folder; close the generator to stop early.

    Yields:
        One result per epoch, after the best epoch's predictions and then the checkpoint have been written.

    Raises:
        DataError: the pictures are not those that it was planned with.
        RecipeError: the recipe is not.
        DiskError: a disk is full or read-only.
    """
    check_recipe(spec)
    set_threads(spec.threads)
    _, recipe = recipes_of(spec)
    data = read_data(spec.table, spec.cache_folder, recipe.image_size, spec.content, spec.value_range)
    evaluator = ValidationEvaluator(spec, data)
    settings = TrainerSettings(
        seed=spec.seed,
        device=device_of(spec),
        amp=evaluator.amp,
        ema_decay=recipe.ema_decay,
        clip_norm=recipe.clip_norm,
        class_weighting=recipe.class_weighting,
        compile=recipe.compile,
        objective=spec.objective,
    )
    with memory_errors():
        network = build_network(spec, data)
    epochs = train(
        network,
        recipe.phases,
        ImageData(spec, data, settings.device),
        settings=settings,
        validate=evaluator,
        folder=Path(spec.folder),
        on_best=lambda phase: write_predictions(evaluator.predictions, predictions_path(spec.folder, phase)),
    )
    yield from epochs


def write_predictions(predictions: pd.DataFrame, path: Path) -> None:
    """Write a table of predictions.

    Raises:
        DiskError: the disk is full or read-only.
    """
    try:
        with atomic_path(path) as temporary:
            predictions.to_csv(temporary, index=False)
    except OSError as error:
        problem = disk_problem(error, path)
        if problem is None:
            raise
        raise DiskError(problem) from error


def check_recipe(spec: TrialSpec) -> None:
    """Refuse to train with a recipe that was edited while its search runs: its trials could not be compared.

    Raises:
        RecipeError: its code is not as it was planned.
    """
    if spec.recipe_code and spec.recipe_code != digest_sources(read_sources(spec.recipe)):
        raise RecipeError(
            f"The source of the recipe '{spec.recipe}' has changed since this run was planned. Put it back and resume, "
            "or start a new run."
        )


def warm_up(spec: TrialSpec) -> None:
    """Decode the images, and compute the frozen backbone's features if the trial's first phase uses them."""
    base, _ = recipes_of(spec)
    data = read_data(spec.table, spec.cache_folder, base.image_size, spec.content, spec.value_range)
    if base.upper.epochs and base.pretrained:
        with memory_errors():
            network = build_network(spec, data)
            if head_alone(freeze(network, base.upper)):
                ImageData(spec, data, device_of(spec)).features(network)
        del network
        release_memory(device_of(spec))  # for the processes of the trials


def load_trained(spec: TrialSpec, phase: str) -> tuple[Network, TrialData]:
    """Load a finished trial: the network with the best weights of a phase, and its data."""
    _, recipe = recipes_of(spec)
    data = read_data(spec.table, spec.cache_folder, recipe.image_size, spec.content, spec.value_range)
    network = build_network(spec, data)
    network.load_state_dict({**network.state_dict(), **trained_state(Path(spec.folder), phase)}, strict=True)
    return network.eval(), data


def predict_sets(spec: TrialSpec, phase: str, *, sets: Sequence[str] = SETS) -> tuple[Network, dict[str, pd.DataFrame]]:
    """Predict sets with the best weights of a phase, in evaluation mode and without augmentation.

    Validation is predicted again: a process killed between two writes leaves an earlier epoch's predictions. A trial
    uses the test set nowhere else. It is computed in float32 whatever the precision of the training, like the served
    model: bfloat16 has too few digits for calibration and ranking.
    """
    with memory_errors():
        network, data = load_trained(spec, phase)
        return network, {
            name: predict_images(network, data.cache, data.tables[name], device=device_of(spec)) for name in sets
        }

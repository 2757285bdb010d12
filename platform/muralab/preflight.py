"""Before a trial starts: whether its network can be made, and what it will cost on this machine."""

from __future__ import annotations

import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from muralab.errors import RecipeError
from muralab.experiment import set_threads
from muralab.recipe import Value
from muralab.training.phases import freeze, head_alone
from muralab.training.trainer import memory_errors
from muralab.training.weights import load_backbone
from muralab.trial import TrialSpec, device_of, recipes_of


@dataclass(frozen=True, kw_only=True)
class Pace:
    """What a recipe costs on this machine."""

    train_s: float
    """Seconds a training image."""
    infer_s: float
    """Seconds an image without gradients."""
    frozen_upper: bool
    """Whether the upper phase trains on features that are computed once."""
    weights_bytes: int
    checkpoint_bytes: int
    """At most, of one trial: live and averaged weights, two moments, and the best epoch's weights."""


def check_trial(spec: TrialSpec) -> None:
    """Build a trial's network and send two blank pictures through, so that a misfit is told before anything starts.

    Raises:
        RecipeError: the network cannot be built, does not take pictures of that size, or a phase trains nothing.
        WeightsError: the pretrained weights do not fit.
    """
    import torch

    _, recipe = recipes_of(spec)
    pictures = torch.zeros(2, recipe.image_size, recipe.image_size, dtype=torch.uint8)
    try:
        network = recipe.build(image_size=recipe.image_size, **recipe.model)
        with torch.inference_mode():
            shape = tuple(network.eval()(pictures).shape)
    except Exception as error:
        values = {"image_size": recipe.image_size, **recipe.model}
        frame = traceback.extract_tb(error.__traceback__)[-1]
        raise RecipeError(
            f"The recipe '{spec.recipe}' makes no network of {_words(values)}: {error} ({type(error).__name__} in "
            f"{Path(frame.filename).name}, line {frame.lineno}). Change these values, or the recipe."
        ) from error
    if shape != (2,):
        raise RecipeError(f"The recipe '{spec.recipe}' gives logits of shape {shape} for 2 pictures: expected (2,).")
    if recipe.pretrained and spec.weights:
        load_backbone(network.backbone, Path(spec.weights))
    for name, phase in recipe.phases.items():
        try:
            freeze(network, phase)
        except RecipeError as error:
            parts = ", ".join(f"{part}.*" for part, _ in network.named_children())
            raise RecipeError(
                f"The recipe '{spec.recipe}', {name}.trains: {error} Its parameters are named {parts}."
            ) from error


def measure_pace(spec: TrialSpec) -> Pace:
    """Time one training step and one forward pass, with random weights, after one of each to warm up.

    Raises:
        MemoryExceededError: the GPU's memory does not hold a step.
    """
    import torch

    set_threads(spec.threads)
    _, recipe = recipes_of(spec)
    device, batch = device_of(spec), recipe.batch_size if spec.gpu else min(8, recipe.batch_size)
    network = recipe.build(image_size=recipe.image_size, **recipe.model)
    frozen_upper = bool(recipe.upper.epochs) and head_alone(freeze(network, recipe.upper))
    network = network.requires_grad_(True).to(device).to(memory_format=torch.channels_last)
    images = torch.zeros(batch, recipe.image_size, recipe.image_size, dtype=torch.uint8, device=device)

    def seconds(gradients: bool) -> float:
        started = time.perf_counter()
        with torch.set_grad_enabled(gradients), torch.autocast(device, dtype=torch.bfloat16, enabled=spec.gpu):
            total = network(images).float().sum()
        if gradients:
            total.backward()
        float(total.detach())  # waits for the device
        return (time.perf_counter() - started) / batch

    with memory_errors():
        times = [(seconds(True), seconds(False)) for _ in range(2)][-1]
    weights = 4 * sum(p.numel() for p in network.parameters())
    return Pace(
        train_s=times[0],
        infer_s=times[1],
        frozen_upper=frozen_upper,
        weights_bytes=weights,
        checkpoint_bytes=5 * weights,
    )


def _words(values: Mapping[str, Value]) -> str:
    return ", ".join(f"{key}={value}" for key, value in values.items())

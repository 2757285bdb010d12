"""Before a trial starts: whether its network can be built, and what it will cost on this machine."""

from __future__ import annotations

import copy
import time
import traceback
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from muralab.errors import MemoryExceededError, RecipeError, WeightsError
from muralab.experiment import set_threads
from muralab.recipe import Value
from muralab.training.device import memory_errors, release_memory
from muralab.training.phases import freeze, head_alone
from muralab.training.weights import load_backbone
from muralab.trial import TrialSpec, device_of, recipes_of, uses_bfloat16

CONTEXT_BYTES = 700 * 2**20
"""GPU memory that a process holds beside its tensors: CUDA's own context with cuDNN and cuBLAS."""


@dataclass(frozen=True, kw_only=True)
class Pace:
    """What a recipe costs on this machine."""

    train_s: float
    """Seconds per training image."""
    infer_s: float
    """Seconds per image without gradients."""
    frozen_upper: bool
    """Whether the upper phase trains on features that are computed once."""
    weights_bytes: int
    checkpoint_bytes: int
    """At most, of one trial: two checkpoints (live and averaged weights, two moments), and the best epoch's weights."""
    gpu_bytes: int = 0
    """Of GPU memory that a trial's process takes at most; 0 without a GPU."""
    batch_parts: int = 1
    """In how many parts a batch must be computed for the GPU's memory to hold it."""


def check_trial(spec: TrialSpec) -> None:
    """Build a trial's network and send two blank images through, so that a mismatch is found before anything starts.

    Raises:
        RecipeError: the network cannot be built, does not take images of that size, or a phase trains nothing.
        WeightsError: the pretrained weights do not fit.
    """
    import torch

    _, recipe = recipes_of(spec)
    images = torch.zeros(2, recipe.image_size, recipe.image_size, dtype=torch.uint8)
    try:
        network = recipe.build(image_size=recipe.image_size, **recipe.model)
        with torch.inference_mode():
            shape = tuple(network.eval()(images).shape)
    except Exception as error:
        values = {"image_size": recipe.image_size, **recipe.model}
        frame = traceback.extract_tb(error.__traceback__)[-1]
        raise RecipeError(
            f"The recipe '{spec.recipe}' cannot build its network with {_describe(values)}: {error} "
            f"({type(error).__name__} in {Path(frame.filename).name}, line {frame.lineno}). "
            "Change these values, or the recipe."
        ) from error
    if shape != (2,):
        raise RecipeError(f"The recipe '{spec.recipe}' returns logits of shape {shape} for 2 images: expected (2,).")
    if recipe.pretrained and spec.weights:
        try:
            load_backbone(network.backbone, Path(spec.weights))
        except WeightsError as error:
            raise WeightsError(f"{spec.recipe}: {error}") from error
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

    On a GPU these are whole steps at the recipe's batch size, with the optimiser and the averaged weights in memory. A
    batch that its memory does not hold is measured in parts, as it will be trained.

    Raises:
        MemoryExceededError: the GPU's memory does not hold a step with a single image.
    """
    set_threads(spec.threads)
    batch = recipes_of(spec)[1].batch_size
    if not spec.gpu:
        return _measure(spec, min(8, batch), parts=1)
    parts = 1
    while True:
        try:
            return _measure(spec, -(-batch // parts), parts=parts)
        except MemoryExceededError:
            if parts >= batch:
                raise
        parts *= 2


def _measure(spec: TrialSpec, batch: int, *, parts: int) -> Pace:
    import torch

    _, recipe = recipes_of(spec)
    device, amp = device_of(spec), uses_bfloat16(spec)
    network = recipe.build(image_size=recipe.image_size, **recipe.model)
    frozen_upper = bool(recipe.upper.epochs) and head_alone(freeze(network, recipe.upper))

    def seconds(images: torch.Tensor, optimiser: torch.optim.Optimizer | None = None, *, training: bool) -> float:
        started = time.perf_counter()
        with torch.set_grad_enabled(training), torch.autocast(device, dtype=torch.bfloat16, enabled=amp):
            total = network(images).float().sum()
        if training:
            total.backward()
            if optimiser is not None:
                optimiser.step()
        float(total.detach())  # waits for the device
        return (time.perf_counter() - started) / batch

    if spec.gpu:
        release_memory(device)  # of the previous recipe, or of a batch that did not fit
        torch.cuda.reset_peak_memory_stats()
    with memory_errors():
        network = network.requires_grad_(True).to(device).to(memory_format=torch.channels_last)
        blank = torch.zeros(batch, recipe.image_size, recipe.image_size, dtype=torch.uint8, device=device)
        average = copy.deepcopy(network) if spec.gpu else None
        # Not on a CPU, where the batch is cut down, so that a whole step would count it several times; and the first
        # optimiser imports torch's compiler, which takes seconds.
        adam = torch.optim.AdamW(network.parameters(), fused=True) if spec.gpu else None
        times = [(seconds(blank, adam, training=True), seconds(blank, training=False)) for _ in range(2)][-1]
    gpu_bytes = CONTEXT_BYTES + torch.cuda.max_memory_reserved() if spec.gpu else 0
    weights = 4 * sum(p.numel() for p in network.parameters())
    del average, adam, blank
    network.to("cpu")
    release_memory(device)
    return Pace(
        train_s=times[0],
        infer_s=times[1],
        frozen_upper=frozen_upper,
        weights_bytes=weights,
        checkpoint_bytes=9 * weights,
        gpu_bytes=gpu_bytes,
        batch_parts=parts,
    )


def memory_notes(paces: Mapping[str, Pace]) -> list[str]:
    """A note for each recipe whose batches are computed in parts."""
    return [
        f"{recipe}: a batch does not fit into the GPU's memory and is computed in {pace.batch_parts} parts, whose "
        "gradients are added up; BatchNorm's statistics are those of the parts."
        for recipe, pace in paces.items()
        if pace.batch_parts > 1
    ]


def _describe(values: Mapping[str, Value]) -> str:
    return ", ".join(f"{key}={value}" for key, value in values.items())

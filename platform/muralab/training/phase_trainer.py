"""Training steps of one phase, and the averaged weights that are evaluated.

Shapes: B batch, S side of the image in px, D pooled features, M validation images.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Generator
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from muralab.heartbeat import beat
from muralab.training.checkpoint import load_optimiser, optimiser_tensors, with_prefix, without_prefix
from muralab.training.device import compile_errors, is_out_of_memory, release_memory
from muralab.training.features import Features
from muralab.training.network import Network
from muralab.training.phases import Phase, parameter_groups, set_modes

if TYPE_CHECKING:
    from muralab.data.loader import Batch

LOWEST_RATE = 0.01
"""Learning rate at the start of warm-up and the end of the cosine, as a fraction of the peak."""


@dataclass(frozen=True, kw_only=True)
class TrainerSettings:
    """Settings of both phases."""

    seed: int = 0
    device: str = "cpu"
    amp: bool = False
    """bfloat16 autocast; weights, averages, moments and losses are float32."""
    ema_decay: float = 0.99
    """Decay of the averaged weights, which are evaluated and kept; 0 evaluates the raw weights."""
    clip_norm: float = 1.0
    """Maximum norm of the gradient; 0 turns clipping off."""
    class_weighting: bool = True
    """Weight the loss by inverse class frequency."""
    compile: bool = False
    """Compile the training steps of the whole network."""
    objective: str = "val_study_auroc"
    """Validation metric (higher is better) that selects the best epoch and stops a phase early."""


class TrainingData(Protocol):
    """The data that a phase trains on."""

    labels: np.ndarray
    """0 or 1 of each training image, int [N]"""
    batch_size: int

    def batches(self, phase: str, epoch: int) -> Generator[Batch]:
        """Iterate over the augmented training batches of one epoch."""

    def features(self, network: Network) -> Features:
        """Compute pooled features of the frozen backbone."""


def rate_factor(step: int, *, n_steps: int, n_warmup: int, schedule: str) -> float:
    """Learning rate at a step, as a fraction of the phase's peak.

    Args:
        step: from 0.
        n_steps: number of steps of the phase.
        n_warmup: how many of them belong to the linear warm-up.
        schedule: `cosine` or `constant`.
    """
    if step < n_warmup:
        return LOWEST_RATE + (1 - LOWEST_RATE) * step / n_warmup
    if schedule == "constant":
        return 1.0
    progress = (step - n_warmup) / max(1, n_steps - n_warmup)
    return LOWEST_RATE + (1 - LOWEST_RATE) * (1 + math.cos(math.pi * min(1.0, progress))) / 2


class PhaseTrainer:
    """Optimiser, schedule and averaged weights of one phase.

    If only the head trains, the optimised module is the head and its inputs are cached features; otherwise it is the
    whole network and its inputs are images. Nothing else differs between the two cases.
    """

    def __init__(
        self,
        network: Network,
        name: str,
        phase: Phase,
        data: TrainingData,
        settings: TrainerSettings,
        *,
        features: bool,
    ) -> None:
        from timm.utils import ModelEmaV3

        self.network, self.name, self.phase, self.data, self.settings = network, name, phase, data, settings
        # Features cannot be cached while the statistics of a frozen BatchNorm are updated.
        self.features = data.features(network) if features and phase.frozen_batchnorm == "eval" else None
        self.module: nn.Module = network if self.features is None else network.head
        # Compiling wraps the call only: weights, averages and checkpoints belong to the plain module.
        self.forward = torch.compile(network) if settings.compile and self.features is None else self.module
        self.optimiser = torch.optim.AdamW(parameter_groups(network, phase), lr=phase.lr, fused=True)
        self.peaks = [group["lr"] for group in self.optimiser.param_groups]
        self.batch_parts = 1  # more once a batch did not fit into memory
        self.n_steps = 0
        self.ema = ModelEmaV3(self.module, decay=settings.ema_decay, use_warmup=True) if settings.ema_decay else None
        self.validation_features = (
            None if self.features is None else torch.from_numpy(np.array(self.features.validation)).to(settings.device)
        )
        frequency = float(np.mean(data.labels))
        weights = (2 * frequency, 2 * (1 - frequency)) if settings.class_weighting else (1.0, 1.0)
        self.class_weights = torch.tensor(weights, device=settings.device)
        self.evaluated = self._evaluated()  # the network with averaged weights, or itself without averaging

    def _evaluated(self) -> Network:
        if self.ema is None:
            return self.network
        if self.features is None:
            return cast(Network, self.ema.module)
        parts = self.network
        return Network(
            backbone=parts.backbone,
            pool=parts.pool,
            head=self.ema.module,
            channels=parts.channels,
            mean=parts.mean,
            std=parts.std,
        )

    @property
    def lr(self) -> float:
        """Current learning rate of the head."""
        return float(self.optimiser.param_groups[-1]["lr"])  # the backbone's groups come first

    def train_epoch(self, epoch: int) -> tuple[float, float]:
        """Train on every image once; returns the unweighted loss and the accuracy at 0.5."""
        settings = self.settings
        torch.manual_seed(
            int(np.random.SeedSequence([settings.seed, zlib.crc32(self.name.encode()), epoch]).generate_state(1)[0])
        )
        set_modes(self.network, self.phase)
        sums = torch.zeros(3, device=settings.device)  # loss, correct, images; copied from the device once per epoch
        batches = self._inputs(epoch)
        title = f"{self.name} {epoch}/{self.phase.epochs}, images"
        per_epoch = max(1, -(-len(self.data.labels) // self.data.batch_size))
        with closing(batches):
            for i, (inputs, labels) in enumerate(batches):
                self._set_rate((epoch - 1) * per_epoch + min(i, per_epoch - 1), per_epoch)
                sums += self._step(inputs, labels)
                beat(title, min((i + 1) * self.data.batch_size, len(self.data.labels)), len(self.data.labels))
        loss, correct, n_images = sums.tolist()
        return loss / n_images, correct / n_images

    def _inputs(self, epoch: int) -> Generator[tuple[torch.Tensor, torch.Tensor]]:
        device = self.settings.device
        if self.features is None:
            with closing(self.data.batches(self.name, epoch)) as batches:
                for batch in batches:
                    yield _to(batch.images, device), _to(batch.labels, device)
            return
        view = self.features.train[(epoch - 1) % len(self.features.train)]
        order = np.random.default_rng([self.settings.seed, 1, epoch]).permutation(len(self.data.labels))
        n_batches = max(1, len(order) // self.data.batch_size)
        for rows in np.array_split(order, n_batches):
            seen = _to(torch.from_numpy(view[rows]), device)
            yield (
                functional.dropout(seen, self.phase.feature_dropout),
                _to(torch.from_numpy(self.data.labels[rows]).float(), device),
            )

    def _set_rate(self, step: int, per_epoch: int) -> None:
        factor = rate_factor(
            step,
            n_steps=self.phase.epochs * per_epoch,
            n_warmup=round(self.phase.warmup_epochs * per_epoch),
            schedule=self.phase.schedule,
        )
        for group, peak in zip(self.optimiser.param_groups, self.peaks, strict=True):
            group["lr"] = peak * factor

    def _step(self, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """One step of the optimiser; returns the sums of loss, correct answers and images."""
        settings = self.settings
        sums = self._gradients(inputs, labels)
        if settings.clip_norm:
            trained = [p for group in self.optimiser.param_groups for p in group["params"]]
            nn.utils.clip_grad_norm_(trained, settings.clip_norm, foreach=True)
        self.optimiser.step()
        self.n_steps += 1
        if self.ema is not None:
            self.ema.update(self.module, step=self.n_steps)
        return sums

    def _gradients(self, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Compute a batch's gradients, in smaller parts from the first time that it does not fit into memory."""
        while True:
            try:
                return self._accumulate(inputs, labels)
            except RuntimeError as error:
                if not is_out_of_memory(error) or self.batch_parts >= len(labels):
                    raise
            self.batch_parts *= 2  # outside of the handler: its traceback holds the activations
            self.optimiser.zero_grad(set_to_none=True)
            release_memory(self.settings.device)

    def _accumulate(self, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Add up the gradients of a batch's parts: those of the whole batch, except for BatchNorm's statistics."""
        settings = self.settings
        sums = torch.zeros(3, device=settings.device)
        self.optimiser.zero_grad(set_to_none=True)
        for part, truth in zip(inputs.chunk(self.batch_parts), labels.chunk(self.batch_parts), strict=True):
            with torch.autocast(settings.device, dtype=torch.bfloat16, enabled=settings.amp):
                logits = self._logits(part)
            losses = functional.binary_cross_entropy_with_logits(logits, truth, reduction="none")
            loss = (losses * self.class_weights[truth.long()]).mean() * (len(truth) / len(labels))
            loss.backward()  # type: ignore[no-untyped-call]
            with torch.no_grad():
                correct = ((logits > 0) == (truth > 0.5)).sum()
                sums += torch.stack([losses.sum(), correct, torch.full_like(correct, len(truth))])
        return sums

    def _logits(self, inputs: torch.Tensor) -> torch.Tensor:
        # The last batch of an epoch has another size: compiling for it costs more than it saves.
        forward = self.forward if len(inputs) == self.data.batch_size else self.module
        with compile_errors():
            return cast(torch.Tensor, forward(inputs)).float().flatten()

    @property
    def is_finite(self) -> bool:
        """Whether all weights are finite: the last step of an epoch can break them although its loss was finite."""
        trained = [p.detach() for group in self.optimiser.param_groups for p in group["params"]]
        return bool(torch.isfinite(nn.utils.get_total_norm(trained, foreach=True)))

    def evaluated_state(self) -> dict[str, torch.Tensor]:
        """The evaluated weights; only those of the head (names start with `head.`) if the backbone is frozen."""
        state = self.evaluated.state_dict()
        return state if self.features is None else {k: v for k, v in state.items() if k.startswith("head.")}

    def state(self) -> dict[str, torch.Tensor]:
        """State to resume from: trained and averaged weights, the optimiser's moments, the number of steps."""
        averaged = {} if self.ema is None else with_prefix("ema", self.ema.module.state_dict())
        return {
            **with_prefix("module", self.module.state_dict()),
            **averaged,
            **with_prefix("optimiser", optimiser_tensors(self.optimiser)),
            "n_steps": torch.tensor(self.n_steps),
        }

    def load_state(self, tensors: dict[str, torch.Tensor]) -> None:
        """Restore what `state` returned."""
        self.module.load_state_dict(without_prefix("module", tensors))
        if self.ema is not None:
            self.ema.module.load_state_dict(without_prefix("ema", tensors))
        load_optimiser(self.optimiser, without_prefix("optimiser", tensors))
        self.n_steps = int(tensors["n_steps"])

    def finish(self) -> None:
        """Copy the averaged weights into the network, as the start of the next phase."""
        if self.ema is not None:
            self.module.load_state_dict(self.ema.module.state_dict())


def _to(values: torch.Tensor, device: str) -> torch.Tensor:
    if device != "cuda":
        return values
    return (values if values.is_pinned() else values.pin_memory()).to(device, non_blocking=True)

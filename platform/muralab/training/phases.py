"""A phase of training: its length, its learning rates, and which parameters are trained."""

from __future__ import annotations

import fnmatch
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from muralab.errors import RecipeError

if TYPE_CHECKING:
    from torch import nn

PHASES = ("upper", "full")
"""Names of the two phases, in training order."""
HEAD_ONLY = ("head.*",)
EVERYTHING = ("*",)
SCHEDULES = ("cosine", "constant")
KEPT_PHASES = ("best", "full")
"""Whose best weights a trial keeps: those of the phase that validates better, or always those of the full phase."""
BATCHNORM_MODES = ("eval", "train")


@dataclass(frozen=True, kw_only=True)
class Phase:
    """Settings of one of the two phases, *upper* or *full*."""

    epochs: int
    """Passes over the training images; 0 skips the phase."""
    lr: float
    """Peak learning rate of AdamW."""
    trains: tuple[str, ...] = EVERYTHING
    """Name patterns of the trained parameters; those that match no pattern are frozen."""
    backbone_lr_factor: float = 1.0
    """Learning rate of the backbone as a multiple of `lr`."""
    weight_decay: float = 1e-4
    """AdamW's weight decay for tensors of two or more dimensions; biases and BatchNorm have none."""
    warmup_epochs: float = 0.0
    """Epochs (fractions allowed) over which the rate rises linearly from `lr` / 100."""
    schedule: str = "cosine"
    """Rate after warm-up: `cosine` decay to `lr` / 100, or `constant`."""
    frozen_batchnorm: str = "eval"
    """Mode of frozen BatchNorm layers: `eval` keeps their statistics, `train` updates them."""
    feature_dropout: float = 0.0
    """Dropout of the features of a frozen backbone that are cached: the head sees the same few views again and again.
    A network that reads images has the dropout that its recipe builds."""
    patience: int = 0
    """Early stopping after this many epochs without improvement of the objective; 0 turns it off."""

    def __post_init__(self) -> None:
        checks = [
            (0 <= self.epochs < 100_000, f"epochs={self.epochs}: expected 0 to 99,999"),
            (0 < self.lr <= 10, f"lr={self.lr}: expected above 0 and at most 10"),
            (0 <= self.backbone_lr_factor <= 10, f"backbone_lr_factor={self.backbone_lr_factor}: expected 0 to 10"),
            (0 <= self.weight_decay <= 10, f"weight_decay={self.weight_decay}: expected 0 to 10"),
            (self.warmup_epochs >= 0, f"warmup_epochs={self.warmup_epochs}: expected 0 or more"),
            (self.schedule in SCHEDULES, f"schedule={self.schedule!r}: expected one of {', '.join(SCHEDULES)}"),
            (
                self.frozen_batchnorm in BATCHNORM_MODES,
                f"frozen_batchnorm={self.frozen_batchnorm!r}: expected one of {', '.join(BATCHNORM_MODES)}",
            ),
            (0 <= self.feature_dropout < 1, f"feature_dropout={self.feature_dropout}: expected 0 or more and below 1"),
            (self.patience >= 0, f"patience={self.patience}: expected 0 or more"),
        ]
        problems = [message for valid, message in checks if not valid]
        if problems:
            raise RecipeError("Invalid phase: " + "; ".join(problems) + ".")

    def trains_parameter(self, name: str) -> bool:
        """Whether this phase trains the parameter with the given name."""
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self.trains)


def select_phase(scores: Mapping[str, float], keeps: str) -> str:
    """The phase whose best weights are kept.

    Args:
        scores: phase -> objective of its best epoch, of the phases that ran, in training order; at least one.
        keeps: one of `KEPT_PHASES`.

    Returns:
        The phase with the higher score; of tied phases the later one, which has trained for longer. With `full`, the
        last phase that ran.
    """
    latest_first = list(scores)[::-1]
    return latest_first[0] if keeps == "full" else max(latest_first, key=lambda phase: scores[phase])


def freeze(network: nn.Module, phase: Phase) -> list[str]:
    """Set `requires_grad` on the phase's parameters only, and return their names.

    Raises:
        RecipeError: the phase's patterns match no parameter.
    """
    names = []
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(phase.trains_parameter(name))
        if parameter.requires_grad:
            names.append(name)
    if not names:
        raise RecipeError(f"A phase trains nothing: no parameter matches {', '.join(phase.trains)}.")
    return names


def set_modes(network: nn.Module, phase: Phase) -> None:
    """Set training mode, except for frozen BatchNorm layers that keep their statistics."""
    from torch import nn

    network.train()
    if phase.frozen_batchnorm == "train":
        return
    for module in network.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            parameters = list(module.parameters(recurse=False))
            if parameters and not any(p.requires_grad for p in parameters):
                module.eval()


def head_alone(names: list[str]) -> bool:
    """Whether all of these parameters belong to the head, so that the backbone's features can be cached."""
    return all(name.startswith("head.") for name in names)


def parameter_groups(network: nn.Module, phase: Phase) -> list[dict[str, Any]]:
    """AdamW's groups of trained parameters: backbone or head, with or without weight decay."""
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in network.named_parameters():
        if parameter.requires_grad:
            groups.setdefault((name.startswith("backbone."), parameter.ndim > 1), []).append(parameter)
    return [
        {
            "params": parameters,
            "lr": phase.lr * (phase.backbone_lr_factor if in_backbone else 1.0),
            "weight_decay": phase.weight_decay if decayed else 0.0,
        }
        for (in_backbone, decayed), parameters in groups.items()
    ]

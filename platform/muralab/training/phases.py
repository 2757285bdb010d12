"""A phase of training: for how long, at what rate, and which parameters move."""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from muralab.errors import RecipeError

if TYPE_CHECKING:
    from torch import nn

HEAD_ONLY = ("head.*",)
EVERYTHING = ("*",)
SCHEDULES = ("cosine", "constant")
BATCHNORM_MODES = ("eval", "train")


@dataclass(frozen=True, kw_only=True)
class Phase:
    """One of a recipe's two phases, *upper* or *full*."""

    epochs: int
    """Passes over the training images; 0 leaves the phase out."""
    lr: float
    """Peak learning rate of AdamW."""
    trains: tuple[str, ...] = EVERYTHING
    """Name patterns of the parameters that train; what no pattern names has no rate, and is frozen."""
    backbone_lr_factor: float = 1.0
    """The backbone's rate as a fraction of `lr`."""
    weight_decay: float = 1e-4
    """AdamW's decay of weights with two dimensions or more; biases and BatchNorm have none."""
    warmup_epochs: float = 0.0
    """Epochs, or a part of one, over which the rate rises from a hundredth of `lr`."""
    schedule: str = "cosine"
    """How the rate falls after warm-up: `cosine` to a hundredth of `lr`, or `constant`."""
    frozen_batchnorm: str = "eval"
    """Statistics of frozen BatchNorm layers: `eval` keeps them, `train` lets them follow the batches."""
    patience: int = 0
    """Epochs without a better objective after which the phase ends; 0 never ends it early."""

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
            (self.patience >= 0, f"patience={self.patience}: expected 0 or more"),
        ]
        wrong = [text for right, text in checks if not right]
        if wrong:
            raise RecipeError("A phase cannot be trained: " + "; ".join(wrong) + ".")

    def trains_parameter(self, name: str) -> bool:
        """Whether the parameter of that name has a rate in this phase."""
        return any(fnmatch.fnmatchcase(name, pattern) for pattern in self.trains)


def freeze(network: nn.Module, phase: Phase) -> list[str]:
    """Give `requires_grad` to the phase's parameters alone; returns their names.

    Raises:
        RecipeError: the phase's patterns name no parameter.
    """
    names = []
    for name, parameter in network.named_parameters():
        parameter.requires_grad_(phase.trains_parameter(name))
        if parameter.requires_grad:
            names.append(name)
    if not names:
        raise RecipeError(f"A phase trains nothing: no parameter is named like {', '.join(phase.trains)}.")
    return names


def set_modes(network: nn.Module, phase: Phase) -> None:
    """Training mode for all, but evaluation mode for frozen BatchNorm layers where the phase says so."""
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
    """Whether all of these parameters lie in the head, so that the backbone's features can be computed once."""
    return all(name.startswith("head.") for name in names)


def parameter_groups(network: nn.Module, phase: Phase) -> list[dict[str, Any]]:
    """AdamW's groups of what trains: backbone or not, decayed (two dimensions or more) or not."""
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

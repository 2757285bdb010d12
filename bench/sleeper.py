"""A recipe for benches of the sweep itself: a tiny network that waits in every training step as if it were a large one.

A step that sleeps takes its time on a busy machine and on an idle one alike, so what is left over is the sweep's own.
"""

from __future__ import annotations

import time

import torch
from torch import nn

from muralab.recipe import Augment, LogUniform, Network, Phase, Recipe


class Sleeper(nn.Module):
    """Images [B, 1, S, S] -> maps [B, 4, S/2, S/2], late."""

    def __init__(self, wait_s: float) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.wait_s = wait_s

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Waits in training only."""
        if self.training:
            time.sleep(self.wait_s)
        maps: torch.Tensor = self.layer(images)
        return maps


def build(*, image_size: int, wait_s: float = 0.0) -> Network:
    """The network; it takes squares of any size."""
    del image_size
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Network(backbone=Sleeper(wait_s), pool=pool, head=nn.Linear(4, 1), channels=1)


RECIPE = Recipe(
    build=build,
    summary="a network that waits",
    image_size=32,
    batch_size=16,
    model={"wait_s": 0.0},
    upper=Phase(epochs=3, lr=1e-3),
    full=Phase(epochs=1, lr=1e-3),
    augment=Augment(),
    search={"full.lr": LogUniform(1e-4, 1e-2)},
)

"""A recipe to measure the overhead of a sweep: a tiny network that sleeps in every training step.

A sleeping step takes the same time on a busy machine as on an idle one, so the rest of the time is overhead.
"""

from __future__ import annotations

import time

import torch
from torch import nn

from muralab.recipe import Augment, LogUniform, Network, Phase, Recipe


class Sleeper(nn.Module):
    """Images [B, 1, S, S] -> feature maps [B, 4, S/2, S/2], after `wait_s`."""

    def __init__(self, wait_s: float) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 4, 3, stride=2, padding=1)
        self.wait_s = wait_s

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Sleep in training only."""
        if self.training:
            time.sleep(self.wait_s)
        maps: torch.Tensor = self.layer(images)
        return maps


def build(*, image_size: int, wait_s: float = 0.0) -> Network:
    """Build the network; it accepts images of any size."""
    del image_size
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Network(backbone=Sleeper(wait_s), pool=pool, head=nn.Linear(4, 1), channels=1)


RECIPE = Recipe(
    build=build,
    summary="a network that sleeps",
    image_size=32,
    batch_size=16,
    model={"wait_s": 0.0},
    upper=Phase(epochs=3, lr=1e-3),
    full=Phase(epochs=1, lr=1e-3),
    augment=Augment(),
    search={"full.lr": LogUniform(1e-4, 1e-2)},
)

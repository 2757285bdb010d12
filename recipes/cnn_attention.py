"""Custom CNN with a self-attention layer over the spatial positions, before the dense layers.

Source: the wrist study's second model (docs/study.md). Attention lets every position see every other, so the map can be
averaged instead of flattened; the dense layers see one value a filter, and the convolutions have many more filters. The
study's figures: validation accuracy 0.649, test accuracy 0.719 (wrist, image level, at 0.5); it overfits from epoch 14.
Its epochs are not stated; 60 is our choice.

Run it alone: mlflow run . -e train -P recipe=cnn_attention -P part=wrist -P data=<MURA-v1.1>
Expected on MURA: not measured. On the demo: docs/results.md.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from muralab.recipe import Network, Recipe
from recipes.cnn import RECIPE as CNN


class SelfAttention(nn.Module):
    """Scaled dot-product attention over the positions of a map [B, F, h, w], added to it by a learned share.

    The share starts at zero, so training starts from the plain CNN (Zhang et al. 2018, arXiv:1805.08318).
    """

    def __init__(self, filters: int) -> None:
        super().__init__()
        self.inner = max(1, filters // 4)
        self.query = nn.Conv2d(filters, self.inner, 1)
        self.key = nn.Conv2d(filters, self.inner, 1)
        self.value = nn.Conv2d(filters, filters, 1)
        self.share = nn.Parameter(torch.zeros(1))

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps [B, F, h, w] -> maps of the same shape."""
        query, key, value = (layer(maps).flatten(2) for layer in (self.query, self.key, self.value))
        weights = torch.softmax(query.transpose(1, 2) @ key / self.inner**0.5, dim=-1)  # [B, hw, hw]
        attended = value @ weights.transpose(1, 2)
        gated: torch.Tensor = maps + self.share * attended.reshape(maps.shape)
        return gated


def build(*, image_size: int, filters: int = 32, units: int = 10, dropout: float = 0.3) -> Network:
    """The network; it takes squares of any size, so `image_size` is not used."""
    del image_size

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        return [
            nn.Conv2d(inputs, outputs, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, dilation=2, padding=2),
            nn.ReLU(),
            nn.BatchNorm2d(outputs),
            nn.MaxPool2d(2),
        ]

    backbone = nn.Sequential(*block(1, filters), *block(filters, 2 * filters), SelfAttention(2 * filters))
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    head = nn.Sequential(
        nn.Dropout(dropout),
        nn.Linear(2 * filters, units),
        nn.ReLU(),
        nn.Linear(units, units),
        nn.ReLU(),
        nn.Linear(units, 1),
    )
    return Network(backbone=backbone, pool=pool, head=head, channels=1)


RECIPE: Recipe = dataclasses.replace(
    CNN,
    build=build,
    summary="custom CNN with self-attention",
    model={"filters": 32, "units": 10, "dropout": 0.3},
)

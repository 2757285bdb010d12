"""InceptionV3 with an add gate: dense 1's output is added to dense 2's, and the sum feeds the output unit.

Source: the wrist study's fourth model and its best by far (docs/study.md): a residual around the middle of the head;
the rest, schedule included, is `inception`. The study's figures (wrist, image level, at 0.5): validation accuracy 0.712
after the upper phase and 0.845 after the full phase, test accuracy 0.849. This is the model that a sweep registers for
serving.

Run it alone: mlflow run . -e train -P recipe=inception_add_gate -P part=wrist -P data=<MURA-v1.1>
Expected on MURA: not measured. On the demo and on FracAtlas hands: docs/results.md.
"""

from __future__ import annotations

import dataclasses

import torch
from torch import nn

from muralab.recipe import Network, Recipe
from recipes.inception import FEATURES, build_with_head
from recipes.inception import RECIPE as INCEPTION


class AddGateHead(nn.Module):
    """Features [B, D] -> logits [B, 1]; the output unit sees dense 1 plus dense 2."""

    def __init__(self, features: int, width: int, dropout: float, feature_dropout: float = 0.0) -> None:
        super().__init__()
        self.feature_dropout = nn.Dropout(feature_dropout)
        self.dense1 = nn.Linear(features, width)
        self.dense2 = nn.Linear(width, width)
        self.dropout = nn.Dropout(dropout)
        self.output = nn.Linear(width, 1)

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """Features [B, D] -> logits [B, 1]."""
        first = torch.relu(self.dense1(self.feature_dropout(features)))
        second = torch.relu(self.dense2(first))
        logits: torch.Tensor = self.output(self.dropout(first + second))
        return logits


def build(*, image_size: int, width: int = 128, dropout: float = 0.2, feature_dropout: float = 0.5) -> Network:
    """The network; it takes squares from 75 px, so `image_size` is not used."""
    del image_size
    return build_with_head(lambda: AddGateHead(FEATURES, width, dropout, feature_dropout))


RECIPE: Recipe = dataclasses.replace(
    INCEPTION,
    build=build,
    summary="InceptionV3 with an add gate",
    registers=True,
)

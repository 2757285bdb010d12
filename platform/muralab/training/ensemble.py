"""Several networks of one recipe as one, whose logit is the mean of theirs.

It is a `Network` like any other, so that it is evaluated, exported with its heat map and served by the same code. Its
feature maps and features are those of its members, one after the other.

Shapes: K members; F feature maps and D features of one member.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn

from muralab.training.network import Network


def average_networks(members: Sequence[Network]) -> Network:
    """The ensemble of some networks.

    Args:
        members: K networks that one recipe builds; they are used, not copied.
    """
    first = members[0]
    return Network(
        backbone=_Backbones([member.backbone for member in members]),
        pool=_Pools([member.pool for member in members]),
        head=_Heads([member.head for member in members]),
        channels=first.channels,
        mean=first.mean,
        std=first.std,
    )


class _Backbones(nn.ModuleList):
    """[B, C, S, S] -> the maps of all members, [B, K * F, h, w]."""

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return torch.cat([member(pixels) for member in self], dim=1)


class _Pools(nn.ModuleList):
    """Maps of all members, [B, K * F, h, w] -> their features, [B, K * D]."""

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        parts = maps.chunk(len(self), dim=1)
        return torch.cat([member(part) for member, part in zip(self, parts, strict=True)], dim=1)


class _Heads(nn.ModuleList):
    """Features of all members, [B, K * D] -> the mean of their logits, [B, 1]."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        parts = features.chunk(len(self), dim=1)
        logits = [member(part) for member, part in zip(self, parts, strict=True)]
        return torch.stack(logits).mean(dim=0)

"""The structure of every recipe's model: a backbone that computes feature maps, a pooling layer, and a head.

The three parts allow the features of a frozen backbone to be computed once, and Grad-CAM to work on any recipe.

Shapes: B batch, S side of the image in px, C channels of the backbone's input, F feature maps of h x w, D features.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import nn


class Network(nn.Module):
    """Maps grey images to one logit each; normalises and expands them to C channels itself.

    Args:
        backbone: float [B, C, S, S] -> maps [B, F, h, w].
        pool: maps [B, F, h, w] -> features [B, D].
        head: features [B, D] -> logits [B, 1].
        channels: C of the backbone's input; the grey channel is repeated.
        mean: subtracted from pixels scaled to [0, 1].
        std: divisor of the centred pixels.
    """

    def __init__(
        self,
        *,
        backbone: nn.Module,
        pool: nn.Module,
        head: nn.Module,
        channels: int = 3,
        mean: float = 0.5,
        std: float = 0.5,
    ) -> None:
        super().__init__()
        self.backbone = backbone
        self.pool = pool
        self.head = head
        self.channels = channels
        self.mean = mean
        self.std = std

    def prepare(self, images: torch.Tensor) -> torch.Tensor:
        """Grey uint8 [B, S, S] -> normalised float32 [B, C, S, S]."""
        pixels = (images.to(torch.float32) / 255.0 - self.mean) / self.std
        return pixels.unsqueeze(1).expand(-1, self.channels, -1, -1)

    def maps(self, images: torch.Tensor) -> torch.Tensor:
        """Grey uint8 [B, S, S] -> the backbone's last feature maps [B, F, h, w]."""
        return cast(torch.Tensor, self.backbone(self.prepare(images)))

    def classify(self, maps: torch.Tensor) -> torch.Tensor:
        """Feature maps [B, F, h, w] -> logits [B]."""
        return cast(torch.Tensor, self.head(self.pool(maps))).squeeze(1)

    def pooled(self, images: torch.Tensor) -> torch.Tensor:
        """Grey uint8 [B, S, S] -> pooled features [B, D], the input of the head."""
        return cast(torch.Tensor, self.pool(self.maps(images)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Grey uint8 [B, S, S] -> logits [B]; the sigmoid is the probability of *abnormal*."""
        return self.classify(self.maps(images))

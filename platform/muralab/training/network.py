"""The shape that every recipe's model has: a backbone that draws maps, a pool, and a head that decides.

Shapes: B images of a batch, S their side in px, C channels of the backbone's input, F feature maps of h x w, D pooled
features. The three parts are what makes the frozen phase cheap (pooled features are computed once) and what Grad-CAM
needs (the last feature maps), for any recipe alike.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import nn


class Network(nn.Module):
    """Grey images to one logit each; normalisation and the expansion to C channels happen inside.

    Args:
        backbone: float [B, C, S, S] -> maps [B, F, h, w].
        pool: maps [B, F, h, w] -> features [B, D].
        head: features [B, D] -> logits [B, 1].
        channels: C, what the backbone takes; grey is repeated.
        mean: of a pixel scaled to [0, 1], subtracted.
        std: of a pixel scaled to [0, 1], divided by.
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
        """Grey uint8 [B, S, S] -> pooled features [B, D], what the head sees."""
        return cast(torch.Tensor, self.pool(self.maps(images)))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Grey uint8 [B, S, S] -> logits [B]; the probability of *abnormal* is their sigmoid."""
        return self.classify(self.maps(images))

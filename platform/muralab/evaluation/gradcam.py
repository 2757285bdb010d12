"""Grad-CAM (Selvaraju et al. 2017) on a network's last feature map.

Shape legend: B batch, S side of the input in px, F features, h w side of the last feature map.
"""

from __future__ import annotations

from typing import Protocol

import torch


class Explainable(Protocol):
    """A network split at its last feature map, such as `muralab.training.network.Network`."""

    def maps(self, images: torch.Tensor) -> torch.Tensor:
        """Images, uint8 [B, S, S] -> feature maps, float [B, F, h, w]."""
        ...

    def classify(self, maps: torch.Tensor) -> torch.Tensor:
        """Feature maps, float [B, F, h, w] -> logits, float [B]."""
        ...


def gradcam(network: Explainable, images: torch.Tensor) -> torch.Tensor:
    """Compute a heat map of the evidence for "abnormal".

    Args:
        network: in eval mode.
        images: uint8 [B, S, S].

    Returns:
        Non-negative and unscaled, float [B, h, w].
    """
    return weigh(*maps_and_gradient(network, images))


def maps_and_gradient(network: Explainable, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Feature maps of images, uint8 [B, S, S], and the gradient of the logits, both float [B, F, h, w]."""
    with torch.no_grad():
        maps = network.maps(images)
    with torch.enable_grad():
        leaf = maps.detach().requires_grad_()
        (gradient,) = torch.autograd.grad(network.classify(leaf).sum(), leaf)
    return maps, gradient


def weigh(maps: torch.Tensor, gradient: torch.Tensor) -> torch.Tensor:
    """Sum a feature map's channels, each weighted by its mean gradient, and keep the positive evidence.

    Args:
        maps: float [B, F, h, w].
        gradient: of the logits with respect to the maps, float [B, F, h, w].

    Returns:
        float [B, h, w].
    """
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    return torch.relu((weights * maps).sum(dim=1))

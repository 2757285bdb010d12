"""Custom CNN with self-attention over the spatial positions, which shrinks what the dense layers see.

Source: second model of the wrist study, an unpublished course report by D. Fountas (docs/study.md): the layers of the
first, and a self-attention layer before the dense ones; it shrinks what they see, so that the convolutions can have
many more filters. Here the last map has 64 filters (the plain CNN's 16), attention leaves 16 values per
position, and the dense layers see as much as the plain CNN's; both strides come first, so that the many filters work on
small maps. All that reaches the dense layers has passed through the attention.
Not stated there, chosen here: epochs, rates, filters, heads, values, the order of strides and dilations, and the bias
of the attention. Schedule, augmentation and search are those of `cnn`.

Command: make train RECIPE=cnn_attention
On MURA: make train RECIPE=cnn_attention DATA=/data/MURA-v1.1
Duration: on MURA not measured.
Expected on MURA: not measured. The study reports accuracy at 0.5 of wrist images: 0.649 (validation) and 0.719
(test), overfitting from epoch 14.
Expected on the demo: AUROC 0.816 [0.713, 0.885] of test studies (docs/results.md). Compared with `cnn`, and with a
network without the attention that does as well: docs/benchmarks.md.
"""

from __future__ import annotations

import torch
from torch import nn

from muralab.recipe import Augment, LogUniform, Network, Phase, Recipe, Uniform

LAYOUTS = ("local", "residual")


class LocalAttention(nn.Module):
    """Multi-head self-attention over the N = hw positions of maps [B, F, h, w], with few values V per position.

    Each head adds a learned bias for every pair of positions to its attention. It starts as the logarithm of a Gaussian
    of their distance (ALiBi, Press et al. 2021, arXiv:2108.12409, has straight lines), narrow in the first head and
    twice as wide in each further one, so that a position begins with its surroundings and keeps its place. There is no
    path around the attention.
    """

    def __init__(self, filters: int, *, side: int, heads: int, values: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.BatchNorm2d(filters)
        self.query = nn.Conv2d(filters, filters // 2, 1)
        self.key = nn.Conv2d(filters, filters // 2, 1, bias=False)  # the softmax would cancel it
        self.value = nn.Conv2d(filters, values, 1, bias=False)  # and the next normalisation this one
        rows = torch.arange(side).float()
        places = torch.cartesian_prod(rows, rows)  # [N, 2]
        widths = 0.5 * 2.0 ** torch.arange(heads)
        squares = torch.cdist(places, places).square()
        self.bias = nn.Parameter(-squares / (2 * widths[:, None, None] ** 2))  # [heads, N, N]
        self.rescale = nn.BatchNorm2d(values)

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        """Maps [B, F, h, w] -> maps [B, V, h, w]."""
        maps = self.norm(maps)
        query, key, value = (
            layer(maps).flatten(2).unflatten(1, (self.heads, -1)) for layer in (self.query, self.key, self.value)
        )  # [B, heads, channels / heads, N]
        attended = value @ self.attend(query, key).transpose(2, 3)
        return torch.relu(self.rescale(attended.flatten(1, 2).unflatten(2, maps.shape[2:])))

    def attend(self, query: torch.Tensor, key: torch.Tensor) -> torch.Tensor:
        """How much each position attends to every other, [B, heads, N, N]; each row sums to 1."""
        return torch.softmax(query.transpose(2, 3) @ key / query.shape[2] ** 0.5 + self.bias, dim=-1)


class ResidualAttention(nn.Module):
    """The layer of earlier versions, for their models: attention added to the map with a weight that starts at zero.

    Training left the weight (`share`) between -0.07 and 0.08, so the map passed almost unchanged.
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


def build(
    *,
    image_size: int,
    filters: int = 8,
    heads: int = 4,
    values: int = 16,
    units: int = 10,
    dropout: float = 0.3,
    channels: int = 1,
    layout: str = "local",
) -> Network:
    """Build the network for squares of `image_size` px.

    Args:
        image_size: in px.
        filters: of the first convolution; each further one has twice as many.
        heads: of the attention; they share the values.
        values: of each position after the attention: what the dense layers see of it.
        units: of the dense layers.
        dropout: before the dense layers.
        channels: of the input.
        layout: `local`, or `residual` as in earlier versions.
    """
    if layout not in LAYOUTS:
        raise ValueError(f"layout={layout}: expected one of {', '.join(LAYOUTS)}")
    if layout == "residual":
        return build_residual(channels, filters, units, dropout)
    side = image_size  # becomes the side of the last feature map
    for _ in range(2):  # stride 2, rounded up
        side = (side + 1) // 2
    side = side // 2 // 2
    backbone = nn.Sequential(
        nn.Conv2d(channels, filters, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(filters, 2 * filters, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.BatchNorm2d(2 * filters),
        nn.MaxPool2d(2),
        nn.Conv2d(2 * filters, 4 * filters, 3, dilation=2, padding=2),
        nn.ReLU(),
        nn.Conv2d(4 * filters, 8 * filters, 3, dilation=2, padding=2),
        nn.ReLU(),
        nn.BatchNorm2d(8 * filters),
        nn.MaxPool2d(2),
        LocalAttention(8 * filters, side=side, heads=heads, values=values),
    )
    head = build_head(values * side * side, units, dropout)
    return Network(backbone=backbone, pool=nn.Flatten(), head=head, channels=channels)


def build_head(features: int, units: int, dropout: float) -> nn.Sequential:
    """The dense layers."""
    return nn.Sequential(
        nn.Dropout(dropout),
        nn.Linear(features, units),
        nn.ReLU(),
        nn.Linear(units, units),
        nn.ReLU(),
        nn.Linear(units, 1),
    )


def build_residual(channels: int, filters: int, units: int, dropout: float) -> Network:
    """The network of earlier versions, whose runs and models must stay readable."""

    def block(inputs: int, outputs: int) -> list[nn.Module]:
        return [
            nn.Conv2d(inputs, outputs, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Conv2d(outputs, outputs, 3, dilation=2, padding=2),
            nn.ReLU(),
            nn.BatchNorm2d(outputs),
            nn.MaxPool2d(2),
        ]

    backbone = nn.Sequential(*block(channels, filters), *block(filters, 2 * filters), ResidualAttention(2 * filters))
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Network(backbone=backbone, pool=pool, head=build_head(2 * filters, units, dropout), channels=channels)


RECIPE = Recipe(
    build=build,
    summary="custom CNN with self-attention",
    image_size=224,
    batch_size=32,
    ema_decay=0.99,
    clip_norm=1.0,
    class_weighting=True,
    upper=Phase(epochs=2, lr=3e-4, weight_decay=1e-4, warmup_epochs=2, schedule="constant"),
    full=Phase(epochs=60, lr=1e-3, weight_decay=1e-4, schedule="cosine", patience=15),
    augment=Augment(zoom=0.15, rotate_degrees=20, shift=0.1, contrast=0.2),
    search={
        "full.lr": LogUniform(1e-4, 1e-2),
        "augment.zoom": Uniform(0.0, 0.3),
        "augment.rotate_degrees": Uniform(0.0, 40.0),
        "augment.shift": Uniform(0.0, 0.2),
    },
    demo={"image_size": 128, "batch_size": 16, "upper.epochs": 1, "upper.warmup_epochs": 1, "full.epochs": 12},
    study={
        "model.channels": 3,  # RGB, as the files would be read; MURA's are grey, so the three channels are equal
        "ema_decay": 0.0,
        "clip_norm": 0.0,
        "class_weighting": False,
        "kept_phase": "full",
        "upper.epochs": 0,
        "full.weight_decay": 0.0,
        "full.schedule": "constant",
        "full.patience": 0,
        "augment.contrast": 0.0,
    },
    earlier={"model.layout": "residual", "model.filters": 32},
)

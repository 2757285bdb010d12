"""Custom CNN with a self-attention layer over the spatial positions, before the dense layers.

Source: the wrist study's second model (docs/study.md). Attention relates every position to every other, so the map can
be averaged instead of flattened; the dense layers get one value per filter, which leaves room for many more filters.
Not stated there, chosen here: epochs, rates, number of filters. Schedule, augmentation and search are those of `cnn`.

Command: mlflow run . -e train -P recipe=cnn_attention -P part=wrist -P data=<MURA-v1.1>
Duration: on MURA not measured; on the demo, a sweep of all four recipes takes 3.5 minutes on 2 CPU cores.
Expected on MURA: not measured. The study reports accuracy at 0.5 of wrist images: 0.649 (validation) and 0.719
(test), overfitting from epoch 14.
Expected on the demo: AUROC 0.775 [0.653, 0.858] of test studies (docs/results.md).
"""

from __future__ import annotations

import torch
from torch import nn

from muralab.recipe import Augment, LogUniform, Network, Phase, Recipe, Uniform


class SelfAttention(nn.Module):
    """Scaled dot-product attention over the positions of a map [B, F, h, w], added to the map with a learned weight.

    The weight (`share`) starts at zero, so training starts from the plain CNN (Zhang et al. 2018, arXiv:1805.08318).
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


def build(*, image_size: int, channels: int = 1, filters: int = 32, units: int = 10, dropout: float = 0.3) -> Network:
    """Build the network; it accepts squares of any size, so `image_size` is unused."""
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

    backbone = nn.Sequential(*block(channels, filters), *block(filters, 2 * filters), SelfAttention(2 * filters))
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    head = nn.Sequential(
        nn.Dropout(dropout),
        nn.Linear(2 * filters, units),
        nn.ReLU(),
        nn.Linear(units, units),
        nn.ReLU(),
        nn.Linear(units, 1),
    )
    return Network(backbone=backbone, pool=pool, head=head, channels=channels)


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
)

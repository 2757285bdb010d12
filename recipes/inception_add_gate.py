"""InceptionV3 with an add gate: the output of dense 1 is added to that of dense 2, and the sum feeds the output unit.

Source: fourth model, and by far the best, of the wrist study, an unpublished course report by D. Fountas
(docs/study.md): a residual connection around the middle of the head. Schedule, augmentation and search are those of
`inception`; with equal values the two share cached features.
A sweep registers the best model of this recipe for serving.

Command: make train RECIPE=inception_add_gate
On MURA: make train RECIPE=inception_add_gate DATA=/data/MURA-v1.1
Duration: on MURA not measured; on the demo, a sweep of the four recipes of the study takes 8 minutes on 2 CPU cores.
Expected on MURA: not measured. The study reports accuracy at 0.5 of wrist images: 0.712 (validation, upper phase),
0.845 (validation, full phase) and 0.849 (test).
Expected on the demo: AUROC 0.776 [0.664, 0.855] of test studies from random weights; from ImageNet weights not measured
(docs/results.md).
"""

from __future__ import annotations

import torch
from torch import nn

from muralab.recipe import HEAD_ONLY, Augment, LogUniform, Network, Phase, Recipe, Uniform
from recipes.inception import FEATURES, build_with_head


class AddGateHead(nn.Module):
    """Features [B, D] -> logits [B, 1]; the output unit receives dense 1 plus dense 2."""

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


def build(*, image_size: int, width: int = 128, dropout: float = 0.2, feature_dropout: float = 0.0) -> Network:
    """Build the network; it accepts squares of 75 px or more, so `image_size` is unused."""
    del image_size
    return build_with_head(lambda: AddGateHead(FEATURES, width, dropout, feature_dropout))


RECIPE = Recipe(
    build=build,
    summary="InceptionV3 with an add gate",
    registers=True,
    image_size=299,
    batch_size=16,
    ema_decay=0.99,
    clip_norm=1.0,
    class_weighting=True,
    pretrained="inception_v3.tf_in1k",
    feature_views=6,
    source_scale=1.5,
    upper=Phase(
        epochs=30,
        lr=1e-3,
        trains=HEAD_ONLY,
        weight_decay=1e-4,
        warmup_epochs=1,
        schedule="cosine",
        feature_dropout=0.5,
    ),
    full=Phase(
        epochs=70,
        lr=3e-4,
        backbone_lr_factor=0.3,
        weight_decay=1e-4,
        warmup_epochs=1,
        schedule="cosine",
        patience=20,
    ),
    augment=Augment(zoom=0.15, rotate_degrees=20, shift=0.1, contrast=0.2, flip=True),
    search={
        "full.lr": LogUniform(5e-5, 2e-3),
        "augment.zoom": Uniform(0.0, 0.3),
        "augment.rotate_degrees": Uniform(0.0, 40.0),
        "augment.shift": Uniform(0.0, 0.2),
        "augment.contrast": Uniform(0.0, 0.4),
    },
    demo={
        "image_size": 112,
        "upper.epochs": 6,
        "full.epochs": 7,
        "full.lr": 1e-3,
        "full.backbone_lr_factor": 0.3,
        "full.warmup_epochs": 0.5,
        "feature_views": 2,
        "upper.feature_dropout": 0.0,  # six short epochs on two views are too few to overfit
        "ema_decay": 0.97,
    },
    study={
        "ema_decay": 0.0,
        "clip_norm": 0.0,
        "class_weighting": False,
        "kept_phase": "full",
        "feature_views": 30,  # new random numbers for every epoch of the upper phase
        "upper.weight_decay": 0.0,
        "upper.warmup_epochs": 0.0,
        "upper.schedule": "constant",
        "upper.feature_dropout": 0.0,
        "full.backbone_lr_factor": 1.0,
        "full.weight_decay": 0.0,
        "full.warmup_epochs": 0.0,
        "full.schedule": "constant",
        "full.patience": 0,
        "augment.contrast": 0.0,
        "augment.flip": False,
        "batch_size": 32,
        "source_scale": 1.0,
        "model.dropout": 0.0,
    },
    earlier={"source_scale": 1.0, "upper.feature_dropout": 0.0},
)

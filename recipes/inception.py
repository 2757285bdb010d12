"""InceptionV3 with ImageNet weights and three dense layers: 30 epochs of the head, then 70 of all layers.

Source: third model of the wrist study, an unpublished course report by D. Fountas (docs/study.md): output layer
removed, global max pooling, dense 1, dense 2 of the same width, output unit. Not stated there, chosen here: rates
(searched around 3e-4 with warm-up), width, dropout of the upper phase's features, without which the head overfits the
few augmented views that are computed once for it (docs/benchmarks.md), and batches of 16 mirrored images, augmented
from larger squares (docs/experiments.md).

Command: make train RECIPE=inception
On MURA: make train RECIPE=inception DATA=/data/MURA-v1.1
Duration: on MURA not measured; on the demo, a sweep of the four recipes of the study takes 8 minutes on 2 CPU cores.
Expected on MURA: not measured. The study reports accuracy at 0.5 of wrist images: 0.703 (validation, upper phase),
0.552 (validation, full phase) and 0.576 (test).
Expected on the demo: AUROC 0.792 [0.682, 0.868] of test studies from random weights; from ImageNet weights not measured
(docs/results.md).
"""

from __future__ import annotations

from collections.abc import Callable

import timm
from torch import nn

from muralab.recipe import HEAD_ONLY, Augment, LogUniform, Network, Phase, Recipe, Uniform

FEATURES = 2048


def build_with_head(build_head: Callable[[], nn.Module]) -> Network:
    """InceptionV3 without its classifier, global max pooling, and a head [B, 2048] -> [B, 1].

    The backbone is built first: with one seed it is the same for every head, so its features can be shared.
    """
    backbone = timm.create_model("inception_v3", pretrained=False, num_classes=0, global_pool="")
    pool = nn.Sequential(nn.AdaptiveMaxPool2d(1), nn.Flatten())
    return Network(backbone=backbone, pool=pool, head=build_head(), channels=3, mean=0.5, std=0.5)


def build(*, image_size: int, width: int = 128, dropout: float = 0.2, feature_dropout: float = 0.0) -> Network:
    """Build the network; it accepts squares of 75 px or more, so `image_size` is unused."""
    del image_size
    return build_with_head(
        lambda: nn.Sequential(
            nn.Dropout(feature_dropout),
            nn.Linear(FEATURES, width),
            nn.ReLU(),
            nn.Linear(width, width),
            nn.ReLU(),
            nn.Dropout(dropout),
            nn.Linear(width, 1),
        )
    )


RECIPE = Recipe(
    build=build,
    summary="InceptionV3",
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

"""ConvNeXt-Tiny (2022) with ImageNet weights and one dense layer: a modern baseline for the study's networks of 2015.

Source: Liu et al. 2022, arXiv:2201.03545, in timm's version. Chosen here: head, schedule, rates and ranges. The
schedule is that of InceptionV3's recipe, with the lower rate at which networks with layer normalisation are fine-tuned.
Written by `python -m muralab new-recipe convnext_tiny --backbone convnext_tiny`, then edited.

Command: make train RECIPE=convnext_tiny
On MURA: make train RECIPE=convnext_tiny DATA=/data/MURA-v1.1
Duration: not measured.
Expected on MURA and on the demo: not measured, for lack of its ImageNet weights.
"""

from __future__ import annotations

import timm
from torch import nn

from muralab.recipe import HEAD_ONLY, Augment, LogUniform, Network, Phase, Recipe, Uniform


def build(*, image_size: int, dropout: float = 0.3) -> Network:
    """Build the network; its squares may have any size, so `image_size` is unused."""
    del image_size
    backbone = timm.create_model("convnext_tiny", pretrained=False, num_classes=0, global_pool="")
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    head = nn.Sequential(nn.Dropout(dropout), nn.Linear(768, 1))
    return Network(backbone=backbone, pool=pool, head=head, channels=3, mean=0.449, std=0.226)


RECIPE = Recipe(
    build=build,
    summary="ConvNeXt-Tiny",
    image_size=224,
    batch_size=16,
    ema_decay=0.99,
    clip_norm=1.0,
    class_weighting=True,
    pretrained="convnext_tiny.in12k_ft_in1k",
    feature_views=6,
    source_scale=1.5,
    upper=Phase(epochs=10, lr=1e-3, trains=HEAD_ONLY, weight_decay=1e-4, warmup_epochs=1, schedule="cosine"),
    full=Phase(
        epochs=50,
        lr=1e-4,
        weight_decay=0.05,
        warmup_epochs=1,
        schedule="cosine",
        patience=15,
    ),
    augment=Augment(zoom=0.15, rotate_degrees=20, shift=0.1, contrast=0.2, flip=True),
    search={
        "full.lr": LogUniform(2e-5, 1e-3),
        "augment.zoom": Uniform(0.0, 0.3),
        "augment.rotate_degrees": Uniform(0.0, 40.0),
        "augment.shift": Uniform(0.0, 0.2),
        "augment.contrast": Uniform(0.0, 0.4),
    },
    demo={
        "image_size": 112,
        "upper.epochs": 6,
        "full.epochs": 7,
        "full.lr": 3e-4,
        "full.warmup_epochs": 0.5,
        "feature_views": 2,
        "ema_decay": 0.97,
    },
)

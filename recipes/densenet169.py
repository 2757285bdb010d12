"""DenseNet-169 with ImageNet weights and one dense layer, the network of the paper that published MURA.

Source: Rajpurkar et al. 2018, arXiv:1712.06957: one output, squares of 320 px, lateral inversions and rotations of up
to 30 degrees, a weighted loss, batches of 8 and a first rate of 1e-4. Chosen here: the upper phase, the schedule (the
paper divides its rate by 10 on a plateau), averaged weights, dropout and ranges. Written by
`python -m muralab new-recipe densenet169 --backbone densenet169`, then given the paper's values.

Command: make train RECIPE=densenet169
On MURA: make train RECIPE=densenet169 DATA=/data/MURA-v1.1
Duration: not measured.
Expected on MURA: not measured. The paper reports, for an ensemble of five on its hidden test set of 207 studies of all
parts: AUROC 0.929, sensitivity 0.815, specificity 0.887 of studies.
Expected on the demo: not measured with ImageNet weights.
"""

from __future__ import annotations

import timm
from torch import nn

from muralab.recipe import HEAD_ONLY, Augment, LogUniform, Network, Phase, Recipe, Uniform


def build(*, image_size: int, dropout: float = 0.3) -> Network:
    """Build the network; its squares may have any size, so `image_size` is unused."""
    del image_size
    backbone = timm.create_model("densenet169", pretrained=False, num_classes=0, global_pool="")
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    head = nn.Sequential(nn.Dropout(dropout), nn.Linear(1664, 1))
    return Network(backbone=backbone, pool=pool, head=head, channels=3, mean=0.449, std=0.226)


RECIPE = Recipe(
    build=build,
    summary="DenseNet-169",
    image_size=320,
    batch_size=8,
    ema_decay=0.99,
    clip_norm=1.0,
    class_weighting=True,
    pretrained="densenet169.tv_in1k",
    feature_views=6,
    upper=Phase(epochs=10, lr=1e-3, trains=HEAD_ONLY, weight_decay=1e-4, warmup_epochs=1, schedule="cosine"),
    full=Phase(epochs=50, lr=1e-4, weight_decay=1e-4, warmup_epochs=1, schedule="cosine", patience=15),
    augment=Augment(rotate_degrees=30, flip=True),
    search={
        "full.lr": LogUniform(2e-5, 1e-3),
        "augment.zoom": Uniform(0.0, 0.3),
        "augment.rotate_degrees": Uniform(0.0, 40.0),
        "augment.shift": Uniform(0.0, 0.2),
        "augment.contrast": Uniform(0.0, 0.4),
    },
    demo={
        "image_size": 112,
        "batch_size": 16,
        "upper.epochs": 6,
        "full.epochs": 7,
        "full.lr": 1e-3,
        "full.backbone_lr_factor": 0.3,
        "full.warmup_epochs": 0.5,
        "feature_views": 2,
        "ema_decay": 0.97,
    },
)

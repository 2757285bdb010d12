"""Custom CNN: four 3x3 convolutions, two with stride 2 and two with dilation 2, then dense layers of ten units.

Source: first model of the wrist study, an unpublished course report by D. Fountas (docs/study.md): batch normalisation
before each max pooling, dropout, a flattened feature map, dense layers of at most 10 units, few filters because the
flattened map is large, one sigmoid output.
Not stated there, chosen here: epochs, rates, number of filters.

Command: make train RECIPE=cnn
On MURA: make train RECIPE=cnn DATA=/data/MURA-v1.1
Duration: on MURA not measured; on the demo, a sweep of the four recipes of the study takes 8 minutes on 2 CPU cores.
Expected on MURA: not measured. The study reports accuracy at 0.5 of wrist images: 0.599 (validation) and 0.697 (test).
Expected on the demo: AUROC 0.685 [0.582, 0.770] of test studies (docs/results.md).
"""

from __future__ import annotations

from torch import nn

from muralab.recipe import Augment, LogUniform, Network, Phase, Recipe, Uniform


def build(*, image_size: int, filters: int = 8, units: int = 10, dropout: float = 0.3, channels: int = 1) -> Network:
    """Build the network for squares of `image_size` px."""
    side = image_size  # becomes the side of the last feature map
    for _ in range(2):  # stride 2, then pooling by 2
        side = ((side + 1) // 2) // 2
    backbone = nn.Sequential(
        nn.Conv2d(channels, filters, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(filters, filters, 3, dilation=2, padding=2),
        nn.ReLU(),
        nn.BatchNorm2d(filters),
        nn.MaxPool2d(2),
        nn.Conv2d(filters, 2 * filters, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(2 * filters, 2 * filters, 3, dilation=2, padding=2),
        nn.ReLU(),
        nn.BatchNorm2d(2 * filters),
        nn.MaxPool2d(2),
    )
    head = nn.Sequential(
        nn.Dropout(dropout),
        nn.Linear(side * side * 2 * filters, units),
        nn.ReLU(),
        nn.Linear(units, units),
        nn.ReLU(),
        nn.Linear(units, 1),
    )
    return Network(backbone=backbone, pool=nn.Flatten(), head=head, channels=channels)


RECIPE = Recipe(
    build=build,
    summary="custom CNN",
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

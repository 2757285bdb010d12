"""Custom CNN: four 3x3 convolutions, two with stride 2 and two with dilation 2, then dense layers of ten units.

Source: the wrist study's first model (docs/study.md): batch normalisation before each max pooling, dropout, a flattened
map, dense layers of no more than 10 units, few filters because that map is large, one sigmoid output. The study's
figures: validation accuracy 0.599, test accuracy 0.697 (wrist, image level, at 0.5). Its epochs are not stated; 60 is
our choice.

Run it alone: mlflow run . -e train -P recipe=cnn -P part=wrist -P data=<MURA-v1.1>
Expected on MURA: not measured. On the demo: docs/results.md.
"""

from __future__ import annotations

from torch import nn

from muralab.recipe import Augment, LogUniform, Network, Phase, Recipe, Uniform


def build(*, image_size: int, filters: int = 8, units: int = 10, dropout: float = 0.3) -> Network:
    """The network for squares of `image_size` px; the flattened map has (image_size / 16)^2 x 2 `filters` values."""
    side = image_size
    for _ in range(2):  # a stride of 2, then a pooling by 2
        side = ((side + 1) // 2) // 2
    backbone = nn.Sequential(
        nn.Conv2d(1, filters, 3, stride=2, padding=1),
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
    return Network(backbone=backbone, pool=nn.Flatten(), head=head, channels=1)


RECIPE = Recipe(
    build=build,
    summary="custom CNN",
    image_size=224,
    batch_size=32,
    model={"filters": 8, "units": 10, "dropout": 0.3},
    upper=Phase(epochs=2, lr=3e-4, warmup_epochs=2, schedule="constant"),
    full=Phase(epochs=60, lr=1e-3, patience=15),
    augment=Augment(zoom=0.15, rotate_degrees=20, shift=0.1, contrast=0.2),
    search={
        "full.lr": LogUniform(1e-4, 1e-2),
        "augment.zoom": Uniform(0.0, 0.3),
        "augment.rotate_degrees": Uniform(0.0, 40.0),
        "augment.shift": Uniform(0.0, 0.2),
    },
    demo={"image_size": 128, "batch_size": 16, "upper.epochs": 1, "upper.warmup_epochs": 1, "full.epochs": 12},
)

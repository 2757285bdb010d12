"""How far a model's answers move when the borders or corners of its images are hidden.

Markers, text, collimation and the edges of plates are there; findings mostly are not. A model whose answers depend on
them has learnt how the images were made. Hidden pixels take the mean grey value of their region, which removes what is
written there and leaves its brightness. The centre is hidden for comparison.

Shapes: N images, S side of the network's input in px.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from muralab.data.images.decode import Area, area_in_square
from muralab.evaluation.evaluated_model import EvaluatedModel, paired_difference
from muralab.evaluation.intervals import Interval

BORDER = 0.1
"""Width of the hidden border, as a share of each side of the image."""
CORNER = 0.2
"""Side of each hidden corner, as a share of the image's shorter side."""
CENTRE = 0.4
"""Side of the hidden centre, as a share of each side of the image."""
REGIONS = ("borders", "corners", "centre")
MAX_STUDIES = 200
"""Test studies that are predicted again, evenly spread."""

Images = npt.NDArray[np.uint8]
Predict = Callable[[Images], npt.NDArray[np.float32]]
"""Images uint8 [N, S, S] -> logits float32 [N]."""


@dataclass(frozen=True, kw_only=True)
class Movement:
    """What hiding one region does to the calibrated probabilities of studies."""

    region: str
    mean: float
    """Mean absolute change of a study's probability."""
    most: float
    """95% of the studies change by at most this."""
    calls: float
    """Share of studies whose call changes at the model's threshold."""
    difference: Interval
    """AUROC without the region minus AUROC with it, on the same studies."""


def measure_occlusion(
    model: EvaluatedModel,
    predict: Predict,
    read: Callable[[pd.DataFrame], Images],
    sizes: Mapping[str, tuple[int, int]],
) -> list[Movement]:
    """Predict test studies again with each region hidden.

    Args:
        model: with test predictions and their calibration.
        predict: its network.
        read: the network's inputs of some rows of the test predictions.
        sizes: image -> width and height in px of the file, to find its area in the square; squares without.

    Raises:
        DataError: the test predictions cannot be evaluated.
    """
    studies = model.studies()["study"].to_numpy()
    some = studies[np.linspace(0, len(studies) - 1, min(MAX_STUDIES, len(studies))).astype(int)]
    before = model.on(list(dict.fromkeys(some)))
    table = before.predictions().reset_index(drop=True)
    images = read(table)
    known = [sizes.get(str(image), (1, 1)) for image in table["image"]]
    areas = [area_in_square(images.shape[1], width=width, height=height) for width, height in known]
    return [_move(before, table, predict, hide(images, areas, region), region) for region in REGIONS]


def _move(before: EvaluatedModel, table: pd.DataFrame, predict: Predict, images: Images, region: str) -> Movement:
    hidden = EvaluatedModel(
        recipe=before.recipe,
        title=f"{before.title} without {region}",
        run_id=before.run_id,
        test=table.assign(logit=predict(images)),
        calibration=before.calibration,
    )
    old, new = before.studies(), hidden.studies()
    change = (new["calibrated"] - old["calibrated"]).abs()
    return Movement(
        region=region,
        mean=float(change.mean()),
        most=float(change.quantile(0.95)),
        calls=float((old["called"] != new["called"]).mean()),
        difference=paired_difference(hidden, before),
    )


def hide(images: Images, areas: list[Area], region: str) -> Images:
    """Copies of images with one of `REGIONS` filled with its mean grey value, uint8 [N, S, S]."""
    hidden = images.copy()
    for image, area in zip(hidden, areas):
        top, left, height, width = area
        inside = image[top : top + height, left : left + width]
        mask = _mask(height, width, region)
        inside[mask] = round(float(inside[mask].mean())) if mask.any() else 0
    return hidden


def _mask(height: int, width: int, region: str) -> npt.NDArray[np.bool_]:
    mask = np.zeros((height, width), dtype=bool)
    if region == "corners":
        side = max(1, round(CORNER * min(height, width)))
        for rows in (slice(0, side), slice(height - side, height)):
            for columns in (slice(0, side), slice(width - side, width)):
                mask[rows, columns] = True
        return mask
    share = BORDER if region == "borders" else (1 - CENTRE) / 2
    down, across = max(1, round(share * height)), max(1, round(share * width))
    mask[down : height - down, across : width - across] = True
    return ~mask if region == "borders" else mask

"""Warnings about a view, on both sides of each limit."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from muralab.data.images.picture import Picture
from muralab.serving.config import ServingConfig
from muralab.serving.quality import view_warnings

CONFIG = ServingConfig(image_size=64)
FAR = "far from the training pictures in brightness or contrast"


def picture(levels: float = 100, *, side: int = 64, spread: float = 0.0) -> Picture:
    """A ramp over a number of grey levels, starting at 50."""
    ramp = np.rint(np.linspace(50, 50 + levels, side * side)).astype(np.uint8).reshape(side, side)
    return Picture(grey=ramp, colour_spread=spread)


def warnings(shown: Picture, **config: object) -> list[str]:
    return view_warnings(shown, picture().grey, replace(CONFIG, **config))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (picture(0), ["blank picture"]),
        (picture(2), ["blank picture"]),
        (picture(3), ["low contrast"]),
        (picture(39), ["low contrast"]),
        (picture(40), []),
        (picture(spread=11.9), []),  # a scan with a tint
        (picture(spread=12.1), ["colour photo, not a radiograph"]),
        (picture(side=32), []),
        (picture(side=31), ["small picture (31 x 31 px)"]),
    ],
)
def test_a_view_beyond_a_limit_gets_a_warning(shown: Picture, expected: list[str]) -> None:
    assert warnings(shown) == expected


def test_a_model_trained_on_synthetic_images_says_so() -> None:
    assert warnings(picture(), synthetic=True) == ["model trained on synthetic pictures"]


@pytest.mark.parametrize("name", ["typical_mean", "typical_contrast"])
def test_an_image_outside_the_range_of_the_training_images_is_far(name: str) -> None:
    value = float(picture().grey.mean() if name == "typical_mean" else picture().grey.std())
    assert warnings(picture(), **{name: (value - 1, value + 1)}) == []
    assert warnings(picture(), **{name: (value + 1, value + 2)}) == [FAR]
    assert warnings(picture(), **{name: (value - 2, value - 1)}) == [FAR]

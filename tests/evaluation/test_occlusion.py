"""Hidden borders and corners move a model that looks there, and no other."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from muralab.evaluation.occlusion import Images, hide, measure_occlusion
from tests.models import build_model

SIDE = 40


def marked(table: pd.DataFrame, place: tuple[slice, slice]) -> Images:
    """Dark images; those of abnormal studies have a bright mark."""
    images = np.full((len(table), SIDE, SIDE), 40, dtype=np.uint8)
    images[table["label"].to_numpy() == 1, place[0], place[1]] = 250
    return images


CORNER_MARK = (slice(0, 4), slice(0, 4))
CENTRE_MARK = (slice(18, 22), slice(18, 22))


@pytest.mark.parametrize(("mark", "moved"), [(CORNER_MARK, {"borders", "corners"}), (CENTRE_MARK, {"centre"})])
def test_hiding_a_mark_moves_the_model_that_looks_for_it(mark: tuple[slice, slice], moved: set[str]) -> None:
    def predict(images: Images) -> np.ndarray:
        return np.where(images[:, mark[0], mark[1]].max(axis=(1, 2)) > 200, 3.0, -3.0).astype(np.float32)

    model = build_model(calibration=None)
    table = model.predictions()
    model = build_model(calibration=None, test=table.assign(logit=predict(marked(table, mark))))
    found = measure_occlusion(model, predict, lambda rows: marked(rows, mark), {})
    assert {one.region for one in found if one.calls > 0.4} == moved
    assert {one.region for one in found if one.difference.high < 0} == moved
    assert {one.region for one in found if one.mean == 0} == {"borders", "corners", "centre"} - moved


def test_the_area_of_an_image_is_that_of_its_square() -> None:
    from muralab.data.images.decode import area_in_square, to_square

    white = to_square(np.full((300, 100), 255, np.uint8), SIDE)
    top, left, height, width = area_in_square(SIDE, width=100, height=300)
    assert white[top : top + height, left : left + width].min() == 255
    assert white.sum() == 255 * height * width


def test_what_is_hidden_takes_the_mean_of_its_region() -> None:
    image = np.random.default_rng(0).integers(0, 255, (1, SIDE, SIDE), dtype=np.uint8)
    hidden = hide(image, [(0, 0, SIDE, SIDE)], "corners")
    ends = (slice(0, 8), slice(32, 40))
    mean = np.mean([image[0, rows, columns] for rows in ends for columns in ends])
    assert {int(value) for value in np.unique(hidden[0, :8, :8])} == {round(float(mean))}
    assert (hidden[0, 8:32] == image[0, 8:32]).all()

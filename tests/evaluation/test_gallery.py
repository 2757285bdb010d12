"""The error gallery: which studies, which view, and the overlay."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from muralab.evaluation.evaluated_model import EvaluatedModel
from muralab.evaluation.gallery import (
    FALSE_NEGATIVES,
    FALSE_POSITIVES,
    UNCERTAIN,
    draw_gallery,
    hardest_studies,
    overlay,
)
from muralab.recipe import override
from muralab.recipe_loader import load_recipe, recipe_names
from muralab.training.network import Network


class Cache:
    """Decoded images in memory, sorted by name."""

    def __init__(self, names: list[str], side: int = 32) -> None:
        self.names = sorted(names)
        self.images = np.random.default_rng(0).integers(0, 256, (len(names), side, side), dtype=np.uint8)

    def rows(self, table: pd.DataFrame) -> np.ndarray:
        return np.array([self.names.index(name) for name in table["image"]])


def build_network() -> Network:
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, 4, 3, 4), nn.ReLU())
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Network(backbone=backbone, pool=pool, head=nn.Linear(4, 1)).eval()


@pytest.fixture
def model(predictions) -> EvaluatedModel:
    return EvaluatedModel(recipe="net", title="Net", run_id="r", test=predictions)


@pytest.fixture
def cache(predictions) -> Cache:
    return Cache([*predictions["image"]])


def test_the_most_confident_errors_come_first(model):
    hard, studies = hardest_studies(model), model.studies()
    assert hard[FALSE_POSITIVES]["calibrated"].is_monotonic_decreasing
    assert hard[FALSE_NEGATIVES]["calibrated"].is_monotonic_increasing
    assert set(hard[FALSE_POSITIVES]["label"]) == {0}
    assert abs(hard[UNCERTAIN]["calibrated"].iloc[0] - 0.5) == (studies["calibrated"] - 0.5).abs().min()


def test_a_model_without_errors_has_only_uncertain_studies(model, predictions):
    perfect = replace(model, test=predictions.assign(logit=6.0 * predictions["label"] - 3))
    hard = hardest_studies(perfect)
    assert [len(hard[kind]) for kind in (FALSE_POSITIVES, FALSE_NEGATIVES)] == [0, 0]
    assert len(hard[UNCERTAIN]) == len(perfect.studies())


def test_the_gallery_shows_n_studies_of_each_kind(model, cache):
    pictures = draw_gallery(model, build_network(), cache, n_worst=2)
    assert [sum(kind in caption for caption in pictures) for kind in (FALSE_POSITIVES, FALSE_NEGATIVES)] == [2, 2]
    assert {picture.shape for picture in pictures.values()} == {(320, 640, 3)}


def test_the_most_suspicious_view_is_shown(model, cache, predictions):
    cache.images[:] = 0
    worst = hardest_studies(model)[FALSE_POSITIVES]["study"].iloc[0]
    own = predictions[predictions["study"] == worst]
    cache.images[cache.names.index(own.loc[own["logit"].idxmax(), "image"])] = 200
    picture = next(iter(draw_gallery(model, build_network(), cache, n_worst=1).values()))
    assert picture[:, :320].min() == 200


def test_the_heat_map_colours_only_where_the_evidence_is():
    heat = np.zeros((4, 4), dtype=np.float32)
    heat[0, 0] = 3
    picture = overlay(np.full((64, 64), 100, dtype=np.uint8), heat, side=64)
    assert np.array_equal(picture[:, :64], np.full((64, 64, 3), 100))
    assert np.array_equal(picture[-8:, -8:], np.full((8, 8, 3), 100))
    assert len(set(picture[4, 68])) > 1


def test_an_empty_heat_map_leaves_the_image_unchanged():
    picture = overlay(np.full((8, 8), 50, dtype=np.uint8), np.zeros((2, 2), dtype=np.float32), side=8)
    assert set(picture.ravel()) == {50}


@pytest.mark.slow
@pytest.mark.parametrize("name", recipe_names())
def test_any_recipe_has_a_gallery(name, model, predictions):
    recipe = override(load_recipe(name), {"image_size": 80})
    network = recipe.build(image_size=80, **recipe.model).eval()
    assert len(draw_gallery(model, network, Cache([*predictions["image"]], 80), n_worst=1)) == 3


def test_a_study_without_evidence_is_captioned_so(model, cache):
    network = build_network()
    nn.init.zeros_(network.head.weight)
    pictures = draw_gallery(model, network, cache, n_worst=1)
    assert all(caption.endswith("no evidence for abnormal in any cell") for caption in pictures)


@pytest.mark.parametrize(("cells", "is_shown"), [(2, False), (3, True)])
def test_a_heat_map_of_too_few_cells_is_not_drawn(model, predictions, cells, is_shown):
    network = build_network()
    network.backbone.append(nn.AdaptiveAvgPool2d(cells))
    pictures = draw_gallery(model, network, Cache([*predictions["image"]]), n_worst=1)
    assert any("no heat map: the network sees a view in 2 x 2 cells only" in text for text in pictures) != is_shown
    assert any(f"heat map of {cells} × {cells} cells" in text for text in pictures) == is_shown


def test_few_cells_are_drawn_as_the_grid_that_they_are():
    heat = np.zeros((4, 4), dtype=np.float32)
    heat[1, 1] = 1
    blended = overlay(np.full((64, 64), 100, dtype=np.uint8), heat, side=64)[:, 64:]
    changed = np.argwhere((blended != 100).any(axis=2))
    assert (changed.min(), changed.max()) == (16, 31)

"""Figures of a data set: every part and split, every image."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from muralab.evaluation.data_plots import plot_class_balance, sample_grid


def texts(figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text"))]


def test_class_balance_shows_ratio_and_dash() -> None:
    labels = {"hand": [0, 0, 0, 0, 1], "wrist": [1, 1]}
    rows = [("train", part, label) for part, values in labels.items() for label in values]
    drawn = texts(plot_class_balance(pd.DataFrame(rows, columns=["split", "part", "label"])))
    assert "0.25" in drawn
    assert "–" in drawn


def test_class_balance_has_one_panel_per_split() -> None:
    index = pd.DataFrame({"split": ["train", "valid"], "part": ["hand"] * 2, "label": [0, 1]})
    titles = [axes.get_title(loc="left") for axes in plot_class_balance(index).axes]
    assert titles == ["train: images by part", "valid: images by part"]


def test_class_balance_without_images_has_a_reason() -> None:
    assert "no images" in texts(plot_class_balance(pd.DataFrame(columns=["split", "part", "label"])))


@pytest.mark.parametrize(("n_images", "n_panels"), [(1, 1), (6, 6), (7, 12)])
def test_sample_grid_has_one_panel_per_image(n_images: int, n_panels: int) -> None:
    images = np.zeros((n_images, 8, 8), dtype=np.uint8)
    figure = sample_grid(images, [f"study {i}" for i in range(n_images)])
    assert len(figure.axes) == n_panels
    assert "study 0" in texts(figure)

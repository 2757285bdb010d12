"""Figures of a data set. Each function returns a Figure and saves nothing. Shapes: N images, S image side in px."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from muralab.evaluation import plot_style as style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@style.styled
def plot_class_balance(index: pd.DataFrame) -> Figure:
    """Normal and abnormal images of every part and split, with the abnormal/normal ratio above each pair.

    Args:
        index: columns split, part, label; one row per image.
    """
    names = list(dict.fromkeys(index["split"]))
    figure = style.new_figure(style.WIDTH_IN * 1.5, max(1, len(names)) * 2.6)
    for axes, name in zip(np.atleast_1d(figure.subplots(max(1, len(names)), 1)), names or [""], strict=True):
        axes.set_title(f"{name}: images by part")
        _draw_balance(axes, index[index["split"] == name])
    return figure


def _draw_balance(axes: Axes, index: pd.DataFrame) -> None:
    counts = index.groupby(["part", "label"]).size().unstack(fill_value=0).reindex(columns=[0, 1], fill_value=0)
    if counts.empty:
        style.draw_reason(axes, "no images")
        return
    places = np.arange(len(counts))
    for label, name, shade in ((0, "normal", style.color(5)), (1, "abnormal", style.color(1))):
        axes.bar(places + (label - 0.5) * 0.38, counts[label], 0.36, color=shade, label=name)
    for place, (normal, abnormal) in zip(places, counts.to_numpy().tolist(), strict=True):
        ratio = f"{abnormal / normal:.2f}" if normal else "–"
        axes.annotate(ratio, (place, max(normal, abnormal)), (0, 4), textcoords="offset points", ha="center", size=8)
    axes.set_xticks(places, counts.index)
    axes.set_ylabel("images")
    axes.margins(y=0.35)  # room for the ratios and the legend
    axes.grid(visible=False, axis="x")
    axes.legend(title="ratio abnormal / normal above", title_fontsize=7.8, ncols=2, loc="upper right")


@style.styled
def sample_grid(images: NDArray[np.uint8], captions: Sequence[str], *, columns: int = 6) -> Figure:
    """Images in rows, each under its caption.

    Args:
        images: uint8 [N, S, S].
        captions: one per image.
        columns: images per row.
    """
    columns = max(1, min(columns, len(images)))
    rows = max(1, -(-len(images) // columns))
    figure = style.new_figure(1.45 * columns, 1.65 * rows)
    panels = np.atleast_1d(figure.subplots(rows, columns, squeeze=False)).ravel()
    for axes in panels:
        axes.axis("off")
    for axes, image, caption in zip(panels, images, captions, strict=False):
        axes.imshow(image, cmap="gray", vmin=0, vmax=255)
        axes.set_title(caption, size=7.5, weight="normal", pad=3)
    return figure

"""The error gallery: a model's most confident errors and its least certain studies, each with a heat map beside it.

Shape legend: S side of the network's input in px, T side of a tile in px, h w side of the heat map.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from muralab.evaluation.evaluated_model import EvaluatedModel
from muralab.serving.heat import coarse_reason, enlarge, is_too_coarse

if TYPE_CHECKING:
    from muralab.data.cache import PixelCache
    from muralab.evaluation.gradcam import Explainable

TILE_PX = 320
N_WORST = 4
"""Studies of each kind."""
OPACITY = 0.55
"""Opacity of the heat map at its peak."""
FALSE_POSITIVES = "called abnormal, labelled normal"
FALSE_NEGATIVES = "called normal, labelled abnormal"
UNCERTAIN = "nearest to the threshold"

Pictures = dict[str, NDArray[np.uint8]]


def hardest_studies(model: EvaluatedModel) -> Mapping[str, pd.DataFrame]:
    """Test studies sorted by how confidently a model got them wrong, or how near to the threshold they are.

    Returns:
        FALSE_POSITIVES, FALSE_NEGATIVES and UNCERTAIN, each with its studies, worst first.

    Raises:
        DataError: the model has no test predictions that can be evaluated.
    """
    studies = model.studies()
    wrong = studies[studies["called"] != (studies["label"] == 1)]
    distance = (studies["calibrated"] - model.threshold).abs().to_numpy()
    return {
        FALSE_POSITIVES: wrong[wrong["label"] == 0].sort_values("calibrated", ascending=False),
        FALSE_NEGATIVES: wrong[wrong["label"] == 1].sort_values("calibrated"),
        UNCERTAIN: studies.iloc[np.argsort(distance, kind="stable")],
    }


def draw_gallery(model: EvaluatedModel, network: Explainable, cache: PixelCache, *, n_worst: int = N_WORST) -> Pictures:
    """The most suspicious view of each of the hardest test studies, plain and with its Grad-CAM.

    Args:
        model: the evaluated model.
        network: its network, in eval mode, on the CPU.
        cache: contains the test images at the network's input size.
        n_worst: how many studies of each kind.

    Returns:
        Caption -> uint8 [T, 2 T, 3], in the order of the kinds, worst first.

    Raises:
        DataError: the model has no test predictions that can be evaluated.
    """
    chosen = [
        (kind, study)
        for kind, group in hardest_studies(model).items()
        for study in group.head(n_worst).to_dict("records")
    ]
    by_study = {study: views for study, views in model.predictions().groupby("study")}
    views = pd.DataFrame([_most_suspicious(by_study[study["study"]]) for _, study in chosen])
    images = np.asarray(cache.images[cache.rows(views)])
    heat = compute_heat(network, images)
    captions = [
        f"{_caption(kind, study, len(by_study[study['study']]))} · {_describe(one)}"
        for (kind, study), one in zip(chosen, heat)
    ]
    if is_too_coarse(heat[0].shape):
        heat = np.zeros_like(heat)
    return {caption: overlay(image, one) for caption, image, one in zip(captions, images, heat)}


def _describe(heat: NDArray[np.float32]) -> str:
    """Describe what a heat map [h, w] shows."""
    h, w = heat.shape
    if is_too_coarse(heat.shape):
        return coarse_reason(heat.shape)
    return f"heat map of {h} × {w} cells" if heat.max() > 0 else "no evidence for abnormal in any cell"


def compute_heat(network: Explainable, images: NDArray[np.uint8], batch_size: int = 8) -> NDArray[np.float32]:
    """Grad-CAM of images [N, S, S] in batches: float [N, h, w]."""
    import torch

    from muralab.evaluation.gradcam import gradcam

    starts = range(0, len(images), batch_size)
    parts = [gradcam(network, torch.from_numpy(images[start : start + batch_size].copy())) for start in starts]
    return np.asarray(torch.cat(parts).float().numpy())


def _most_suspicious(views: pd.DataFrame) -> pd.Series:
    """The view of a study with the highest logit; the first by name of equal ones."""
    ordered = views.sort_values("image")
    return ordered.iloc[int(ordered["logit"].to_numpy().argmax())]


def _caption(kind: str, study: Mapping[str, object], n_views: int) -> str:
    views = "1 view" if n_views == 1 else f"the most suspicious of {n_views} views"
    return f"{kind} · probability {float(str(study['calibrated'])):.3f} · {views} · {study['study']}"


def overlay(image: NDArray[np.uint8], heat: NDArray[np.float32], side: int = TILE_PX) -> NDArray[np.uint8]:
    """An image [S, S] and the same image under its heat map [h, w]: uint8 [T, 2 T, 3], RGB.

    The heat map is scaled to its own peak: it shows where the evidence is, not how much there is.
    """
    import cv2

    grey = cv2.resize(image, (side, side), interpolation=cv2.INTER_AREA if len(image) > side else cv2.INTER_LINEAR)
    share = enlarge(heat, side)
    colours = cv2.applyColorMap(np.rint(share * 255).astype(np.uint8), cv2.COLORMAP_INFERNO)[..., ::-1]
    weight = OPACITY * share[..., None]
    plain = np.repeat(grey[..., None], 3, axis=2)
    blended = np.rint((1 - weight) * plain + weight * colours).astype(np.uint8)
    return np.concatenate([plain, blended], axis=1)

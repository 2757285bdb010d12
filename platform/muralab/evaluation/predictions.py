"""The table of predictions: from a network and images, and from images to studies.

Everything that evaluates a model takes this table and a level, image or study. Shapes: B batch, S image side in px,
N images.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Literal, get_args

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from muralab.errors import DataError, SettingsError, numbered
from muralab.heartbeat import beat
from muralab.serving.scaling import Scaling, sigmoid

if TYPE_CHECKING:
    import torch

    from muralab.data.cache import PixelCache

Level = Literal["image", "study"]

UNCALIBRATED = Scaling()

PREDICTION_COLUMNS = ("image", "study", "patient", "part", "label", "logit")


def predict_images(
    network: torch.nn.Module,
    cache: PixelCache,
    table: pd.DataFrame,
    *,
    batch_size: int = 32,
    device: str | torch.device = "cpu",
    amp: bool = False,
) -> pd.DataFrame:
    """The network's logit for each readable image of a table.

    Args:
        network: maps uint8 [B, S, S] to logits [B]; it is moved to `device` and keeps its modules' modes.
        cache: the decoded images.
        table: rows of the index, with image, study, patient, part and label.
        batch_size: images per batch.
        device: where to compute.
        amp: bfloat16 autocast. Without it a GPU computes in plain float32, without TF32.

    Returns:
        One row per image with `PREDICTION_COLUMNS`, in the order of the table; logits are float32.
    """
    import torch

    from muralab.data.loader import evaluation_batches

    target = torch.device(device)
    rows = cache.readable(table)
    logits = np.full(len(rows), np.nan, dtype=np.float32)
    autocast = torch.autocast(target.type, dtype=torch.bfloat16, enabled=amp)
    with _evaluating(network.to(target)), torch.inference_mode(), _convolutions(tf32=amp), autocast:
        for i, batch in enumerate(evaluation_batches(cache, rows, batch_size=batch_size), start=1):
            answer = network(batch.images.to(target, non_blocking=True))
            logits[batch.rows.numpy()] = answer.float().cpu().numpy()
            beat("predicting images", min(i * batch_size, len(rows)), len(rows))
    return rows.assign(logit=logits)[list(PREDICTION_COLUMNS)].reset_index(drop=True)


@contextmanager
def _evaluating(network: torch.nn.Module) -> Iterator[None]:
    """Set evaluation mode, then restore each module's own: frozen parts are in evaluation mode while training."""
    modes = [(module, module.training) for module in network.modules()]
    network.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextmanager
def _convolutions(*, tf32: bool) -> Iterator[None]:
    """Allow TF32 or not: its 10-bit mantissa is enough to select an epoch, not to match the served model."""
    import torch

    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = tf32 and before
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def check_predictions(predictions: pd.DataFrame) -> None:
    """Refuse a table that would give wrong metrics.

    Raises:
        DataError: it is empty, lacks columns or logits, has an image twice, or a study has two labels or patients.
    """
    lacking = [column for column in PREDICTION_COLUMNS if column not in predictions.columns]
    if lacking:
        raise DataError(
            f"The predictions lack the column{'s' * (len(lacking) > 1)} {', '.join(lacking)}; required: "
            f"{', '.join(PREDICTION_COLUMNS)}."
        )
    if predictions.empty:
        raise DataError("The predictions are empty: no image was evaluated. Check the part and the split.")
    _refuse(predictions, ~_is_number(predictions["logit"]), "have no finite logit; re-run the predictions")
    _refuse(predictions, ~predictions["label"].isin((0, 1)), "have a label other than 0 or 1")
    _refuse(predictions, predictions["image"].duplicated(), "occur more than once")
    _refuse(predictions, predictions[["study", "patient"]].isna().any(axis=1), "have no study or no patient")
    for column in ("label", "patient"):
        _check_one_per_study(predictions, column)


def _is_number(column: pd.Series) -> NDArray[np.bool_]:
    return np.asarray(np.isfinite(pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64)))


def _refuse(predictions: pd.DataFrame, wrong: NDArray[np.bool_] | pd.Series, what: str) -> None:
    names = [str(name) for name in predictions.loc[np.asarray(wrong), "image"]]
    if names:
        raise DataError(numbered(f"{len(names)} of {len(predictions)} predicted images {what}:", names))


def _check_one_per_study(predictions: pd.DataFrame, column: str) -> None:
    kinds = predictions.groupby("study", sort=True)[column].nunique()
    studies = [str(study) for study in kinds.index[kinds > 1]]
    if studies:
        raise DataError(numbered(f"{len(studies)} of {len(kinds)} studies have more than one {column}:", studies))


def to_studies(predictions: pd.DataFrame) -> pd.DataFrame:
    """One row per study, sorted by study.

    The study's probability is the mean over its images; its logit is the logit of that mean, computed in log space so
    that extreme logits stay finite.

    Returns:
        Columns study, patient, part, label, probability, logit, n_views.

    Raises:
        DataError: see `check_predictions`.
    """
    check_predictions(predictions)
    rows = predictions.sort_values(["study", "image"], kind="stable")
    starts = np.flatnonzero(~rows["study"].duplicated().to_numpy())
    logits = rows["logit"].to_numpy(dtype=np.float64)
    n_views = np.diff(np.append(starts, len(rows)))
    abnormal = np.logaddexp.reduceat(-np.logaddexp(0, -logits), starts)
    normal = np.logaddexp.reduceat(-np.logaddexp(0, logits), starts)
    studies = rows.iloc[starts][["study", "patient", "part", "label"]].reset_index(drop=True)
    probabilities = np.add.reduceat(sigmoid(logits), starts) / n_views
    return studies.assign(probability=probabilities, logit=abnormal - normal, n_views=n_views)


def level_rows(predictions: pd.DataFrame, *, level: Level, scaling: Scaling = UNCALIBRATED) -> pd.DataFrame:
    """The rows of a level, images or studies, with calibrated probabilities.

    Args:
        predictions: the columns of `PREDICTION_COLUMNS`.
        level: "image" or "study".
        scaling: of the logits of that level.

    Returns:
        The table of images or of studies (`to_studies`), whose `probability` is that of the scaled logit.

    Raises:
        DataError: see `check_predictions`.
        SettingsError: an unknown level.
    """
    if level not in get_args(Level):
        raise SettingsError(f"Unknown level '{level}': expected 'image' or 'study'.")
    if level == "study":
        rows = to_studies(predictions)
    else:
        check_predictions(predictions)
        rows = predictions.reset_index(drop=True)
    return rows.assign(probability=scaling.probabilities(rows["logit"]))

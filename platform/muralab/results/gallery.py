"""The report's error gallery: the hardest studies of a model with heat maps, where pixels may be logged at all."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from muralab.data.cache import PixelCache, open_cache
from muralab.data.headers import is_burned_in
from muralab.data.images.value_range import ValueRange
from muralab.data.local_files import missing_files
from muralab.errors import DataError, SettingsError
from muralab.evaluation.evaluated_model import EvaluatedModel
from muralab.evaluation.gallery import Pictures, draw_gallery

if TYPE_CHECKING:
    from muralab.evaluation.gradcam import Explainable


def may_show(pictures: bool | None, *, synthetic: bool) -> bool:
    """Whether images of the data set may be logged; None (`auto`) shows synthetic ones and never a patient's."""
    return synthetic if pictures is None else pictures


def build_gallery(model: EvaluatedModel, network: Explainable, images: PixelCache) -> Pictures:
    """Draw the hardest test studies of one model.

    Args:
        model: the evaluated model.
        network: its network, in eval mode, on the CPU.
        images: the test images at the network's size.

    Returns:
        Caption -> picture; empty for a model without test predictions.

    Raises:
        DataError: the test predictions cannot be evaluated.
    """
    return {} if model.test is None else draw_gallery(model, network, images)


def open_test_images(
    table: pd.DataFrame, image_size: int, root: Path, cache: Path, *, value_range: ValueRange | None = None
) -> PixelCache:
    """The images that a model was tested on, decoded.

    Args:
        table: the test predictions with the path of each image, see `locate_files`.
        image_size: side of the network's input in px.
        root: the folder that image names start from.
        cache: folder of decoded images.
        value_range: in which the model was trained, see `decode`.

    Raises:
        DataError: image files are missing.
        SettingsError: names may be burned into one.
    """
    missing = missing_files(table)
    if missing:
        raise DataError(
            f"{len(missing)} of {len(table)} test images are missing below {root} on this machine, such as "
            f"{missing[0]}. Make the data set available at that path, or set pictures=false."
        )
    check_burned_in([image for image, path in zip(table["image"], table["path"]) if is_burned_in(path)])
    return open_cache(table, size=image_size, folder=cache / "pixels", value_range=value_range).coded(table)


def check_burned_in(images: Sequence[str]) -> None:
    """Refuse to show a data set whose pixels may hold a patient's name.

    Args:
        images: those whose file says BurnedInAnnotation=YES.

    Raises:
        SettingsError: there are any.
    """
    if images:
        raise SettingsError(
            f"pictures=true: {len(images)} images, such as {images[0]}, are marked BurnedInAnnotation=YES, so names "
            "may be readable in their pixels. Give pictures=false, or remove these images."
        )

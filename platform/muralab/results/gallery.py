"""The report's error gallery: the hardest studies of a model with heat maps, where pixels may be logged at all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from muralab.data.cache import PixelCache, open_cache
from muralab.data.images.value_range import ValueRange
from muralab.errors import DataError
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
    model: EvaluatedModel, image_size: int, root: Path, cache: Path, *, value_range: ValueRange | None = None
) -> PixelCache:
    """The images that a model was tested on, decoded.

    Args:
        model: with test predictions.
        image_size: side of the network's input in px.
        root: the data set that contains the images.
        cache: folder of decoded images.
        value_range: in which the model was trained, see `decode`.

    Raises:
        DataError: image files are missing, or the test predictions cannot be evaluated.
    """
    predictions = model.predictions()
    table = predictions.assign(path=[str(root / image) for image in predictions["image"]])
    missing = [path for path in table["path"] if not Path(path).is_file()]
    if missing:
        raise DataError(
            f"{len(missing)} of {len(table)} test images are missing on this machine, such as {missing[0]}. Make the "
            "data set available at that path, or set pictures=false."
        )
    return open_cache(table, size=image_size, folder=cache / "pixels", value_range=value_range)

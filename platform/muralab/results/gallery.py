"""The report's gallery: hard studies of the chosen model with heat maps, where pictures may be logged at all."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from muralab.data.cache import open_cache
from muralab.errors import DataError
from muralab.evaluation.gallery import Pictures, draw_gallery
from muralab.report import Entry, calibrated_studies

if TYPE_CHECKING:
    from muralab.evaluation.gradcam import Explainable


def may_show(pictures: str, *, synthetic: bool) -> bool:
    """Whether pictures of the data set may be logged: `auto` shows synthetic ones and never a patient's."""
    return synthetic if pictures == "auto" else pictures == "true"


def build_gallery(entry: Entry, network: Explainable, image_size: int, root: Path, cache: Path) -> Pictures:
    """The hard test studies of one model.

    Args:
        entry: with test predictions.
        network: in eval mode, on the CPU.
        image_size: its input's side in px.
        root: the tree that holds the test images.
        cache: folder of decoded images.

    Returns:
        Caption -> picture; nothing for a model without test predictions.

    Raises:
        DataError: pictures are missing.
    """
    if entry.test is None:
        return {}
    table = entry.test.assign(path=[str(root / image) for image in entry.test["image"]])
    missing = [path for path in table["path"] if not Path(path).is_file()]
    if missing:
        raise DataError(f"{len(missing)} of {len(table)} test pictures are not on this machine, such as {missing[0]}.")
    squares = open_cache(table, size=image_size, folder=cache / "pixels")
    return draw_gallery(network, squares, entry.test, calibrated_studies(entry, entry.test), entry.threshold)

"""A request's table and parameters -> checked settings and decoded views, or one message that names every bad row."""

from __future__ import annotations

import base64
import binascii
import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

from muralab.data.images.decode import decode_picture, to_square
from muralab.errors import ImageError
from muralab.serving.config import MAX_ROWS, ServingConfig
from muralab.serving.quality import view_warnings

POLICIES = ("refuse", "partial")

DECODERS = 2
"""Pictures that are decoded at once. A large one takes hundreds of MB, and in a container the cores that the system
tells are the host's, so this is no number of cores."""

_DECODING = threading.BoundedSemaphore(DECODERS)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """A request's parameters, checked."""

    threshold: float | None = None
    """Calibrated study probability from which a study is abnormal; None: the stored one."""

    explain: bool = False
    """Whether each row gets a heat map."""

    policy: str = "refuse"
    """What a bad row does: "refuse" refuses the request, "partial" gives that row an error and answers the others."""


@dataclass(frozen=True, kw_only=True)
class View:
    """One row: a picture of a study, or why it cannot be used."""

    study: object
    """What rows of one study share; unique for a row that names no study."""

    square: np.ndarray | None = None
    """The network's input, uint8 [S, S]; None when the row is bad."""

    warnings: tuple[str, ...] = ()
    """What a reader should know about the picture."""

    error: str | None = None
    """Why the row is bad."""


def refuse(message: str) -> MlflowException:
    """An error that MLflow's server answers as HTTP 400 without a stack trace."""
    return MlflowException(message, error_code=INVALID_PARAMETER_VALUE)


def read_settings(params: dict[str, Any] | None) -> Settings:
    """Check a request's parameters.

    Raises:
        MlflowException: an impossible value; HTTP 400.
    """
    given = params or {}
    threshold, explain = given.get("threshold"), given.get("explain", False)
    policy = given.get("policy") or "refuse"
    if threshold is not None and not _is_share(threshold):
        raise refuse(f"The parameter threshold must be a number from 0 to 1, not {_show(threshold)}.")
    if policy not in POLICIES:
        raise refuse(f"The parameter policy must be 'refuse' or 'partial', not {_show(policy)}.")
    if not isinstance(explain, (bool, np.bool_)):
        raise refuse(f"The parameter explain must be true or false, not {_show(explain)}.")
    return Settings(threshold=None if threshold is None else float(threshold), explain=bool(explain), policy=policy)


def read_views(model_input: Any, settings: Settings, config: ServingConfig) -> list[View]:
    """Decode every row of a request; only the network's inputs are kept, however large the pictures are.

    Args:
        model_input: a table (or what pandas makes one of) with the column `image`, base64 text or bytes of a PNG, JPEG
            or DICOM file, and perhaps `study`.
        settings: whether a bad row refuses the request.
        config: the model's.

    Raises:
        MlflowException: no or too many rows, no column `image`, or bad rows under the policy "refuse"; HTTP 400.
    """
    table = _read_table(model_input)
    studies = table["study"] if "study" in table else [None] * len(table)
    views = [_read_view(row, image, study, config) for row, (image, study) in enumerate(zip(table["image"], studies))]
    check_views(views, settings)
    return views


def check_views(views: Sequence[View], settings: Settings) -> None:
    """Refuse bad rows, unless partial answers are asked for.

    Raises:
        MlflowException: bad rows under the policy "refuse", all named; HTTP 400.
    """
    problems = [f"row {row}: {view.error}" for row, view in enumerate(views, start=1) if view.error]
    if problems and settings.policy == "refuse":
        raise refuse(
            f"{len(problems)} of {len(views)} rows cannot be used (counted from 1): {'; '.join(problems)}. "
            "Nothing was answered; the parameter policy='partial' answers the other rows."
        )


def _read_table(model_input: Any) -> pd.DataFrame:
    try:
        table = model_input if isinstance(model_input, pd.DataFrame) else pd.DataFrame(model_input)
    except (TypeError, ValueError):
        raise refuse("The request is no table with the columns image and, if wanted, study.") from None
    if table.columns.duplicated().any():
        raise refuse("The request has two columns of the same name.")
    if "image" not in table and len(table):
        raise refuse("The column image is missing: base64 text of one PNG, JPEG or DICOM file a row.")
    if len(table) == 0:
        raise refuse("The request has no rows.")
    if len(table) > MAX_ROWS:
        raise refuse(f"The request has {len(table)} rows; at most {MAX_ROWS} are answered at once.")
    return table


def _read_view(row: int, image: object, study: object, config: ServingConfig) -> View:
    blank = _is_null(study) or (isinstance(study, str) and not study)
    group: object = ("row", row) if blank else ("study", str(study))
    try:
        data = _read_bytes(image)
        with _DECODING:
            picture = decode_picture(data)
            square = to_square(picture.grey, config.image_size)
        return View(study=group, square=square, warnings=tuple(view_warnings(picture, square, config)))
    except ImageError as error:
        return View(study=group, error=str(error))


def _read_bytes(image: object) -> bytes:
    """The file's bytes from base64 text (also as a data URL or with line breaks) or from bytes."""
    if isinstance(image, np.ndarray) and image.shape == ():
        image = image.item()
    if isinstance(image, (bytes, bytearray)):
        raw = bytes(image)
        try:
            return _decode_base64(raw) or raw
        except ImageError:
            return raw
    if isinstance(image, str):
        text = image.partition(",")[2] if image[:5] == "data:" else image
        return _decode_base64(text)
    raise ImageError("no image (null)" if _is_null(image) else "the image is no base64 text")


def _is_null(value: object) -> bool:
    """None, NaN, NaT or pandas' NA; an array or a list is none of them."""
    return bool(pd.api.types.is_scalar(value) and pd.isna(value))


def _decode_base64(text: str | bytes) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        pass
    try:
        joined = b"".join(text.split()) if isinstance(text, bytes) else "".join(text.split())
        return base64.b64decode(joined, validate=True)
    except (binascii.Error, ValueError):
        raise ImageError("not base64 text") from None


def _show(value: object) -> str:
    """The start of a value; Python writes out no integers of thousands of digits."""
    try:
        return repr(value)[:40]
    except ValueError:
        return "one of thousands of digits"


def _is_share(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        return False
    return bool(0 <= value <= 1)  # compared as it is: 10**400 is no float

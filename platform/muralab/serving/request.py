"""Table and parameters of a request -> checked parameters and decoded views, or one message with every bad row."""

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
"""Images decoded at once, whatever the number of cores: a large one takes hundreds of MB."""

_DECODING = threading.BoundedSemaphore(DECODERS)
_WHITE_SPACE = b" \t\n\r\v\f"


@dataclass(frozen=True, kw_only=True)
class RequestParams:
    """Checked parameters of a request."""

    threshold: float | None = None
    """Calibrated study probability at or above which a study is abnormal; None: the stored one."""

    prevalence: float | None = None
    """Share of abnormal studies where the images come from; None: that of the validation studies."""

    explain: bool = False
    """Whether to add a heat map to each row."""

    policy: str = "refuse"
    """On a bad row: "refuse" refuses the request, "partial" reports an error for the row and answers the others."""


@dataclass(frozen=True, kw_only=True)
class View:
    """One row: an image of a study, or why it cannot be used."""

    study: object
    """Equal for the rows of one study; unique for a row that names no study."""

    square: np.ndarray | None = None
    """The network input, uint8 [S, S]; None for a bad row."""

    warnings: tuple[str, ...] = ()
    """Warnings about the image."""

    patient: str = ""
    """PatientID of a DICOM file; empty if unknown."""

    examination: str = ""
    """StudyInstanceUID of a DICOM file; empty if unknown."""

    error: str | None = None
    """Why the row cannot be used."""


def refuse(message: str) -> MlflowException:
    """Error that MLflow's server answers as HTTP 400 without a stack trace."""
    return MlflowException(message, error_code=INVALID_PARAMETER_VALUE)


def read_params(params: dict[str, Any] | None) -> RequestParams:
    """Check the parameters of a request.

    Raises:
        MlflowException: an invalid value; HTTP 400.
    """
    given = params or {}
    threshold, prevalence, explain = given.get("threshold"), given.get("prevalence"), given.get("explain", False)
    policy = given.get("policy") or "refuse"
    if threshold is not None and not _is_share(threshold):
        raise refuse(f"The parameter threshold must be a number from 0 to 1, not {_show(threshold)}.")
    if prevalence is not None and not (_is_share(prevalence) and 0 < prevalence < 1):
        raise refuse(f"The parameter prevalence must be a number above 0 and below 1, not {_show(prevalence)}.")
    if policy not in POLICIES:
        raise refuse(f"The parameter policy must be 'refuse' or 'partial', not {_show(policy)}.")
    if not isinstance(explain, (bool, np.bool_)):
        raise refuse(f"The parameter explain must be true or false, not {_show(explain)}.")
    limit, share = (None if value is None else float(value) for value in (threshold, prevalence))
    return RequestParams(threshold=limit, prevalence=share, explain=bool(explain), policy=policy)


def read_views(model_input: Any, params: RequestParams, config: ServingConfig) -> list[View]:
    """Decode every row of a request; only the network inputs are kept, however large the images are.

    Args:
        model_input: table, or what pandas turns into one, with the column `image`, base64 text or bytes of a picture
            file (PNG, JPEG, TIFF, BMP, DICOM), and optionally `study`.
        params: whether a bad row refuses the request.
        config: configuration of the model.

    Raises:
        MlflowException: no or too many rows, no column `image`, or bad rows with the policy "refuse"; HTTP 400.
    """
    table = _read_table(model_input)
    studies = table["study"] if "study" in table else [None] * len(table)
    views = [_read_view(row, image, study, config) for row, (image, study) in enumerate(zip(table["image"], studies))]
    check_views(views, params)
    return views


def check_views(views: Sequence[View], params: RequestParams) -> None:
    """Refuse bad rows unless partial answers were requested.

    Raises:
        MlflowException: bad rows with the policy "refuse", all named; HTTP 400.
    """
    problems = [f"row {row}: {view.error}" for row, view in enumerate(views, start=1) if view.error]
    if problems and params.policy == "refuse":
        raise refuse(
            f"{len(problems)} of {len(views)} rows cannot be used (counted from 1): {'; '.join(problems)}. "
            "Nothing was answered; the parameter policy='partial' answers the other rows."
        )


def _read_table(model_input: Any) -> pd.DataFrame:
    try:
        table = model_input if isinstance(model_input, pd.DataFrame) else pd.DataFrame(model_input)
    except (TypeError, ValueError):
        raise refuse("The request is not a table with the columns image and, optionally, study.") from None
    if table.columns.duplicated().any():
        raise refuse("The request has two columns of the same name.")
    if "image" not in table and len(table):
        raise refuse("The column image is missing: base64 text of one PNG, JPEG, TIFF, BMP or DICOM file per row.")
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
            picture = decode_picture(data, value_range=config.value_range)
            square = to_square(picture.grey, config.image_size)
        return View(
            study=group,
            square=square,
            warnings=tuple(view_warnings(picture, square, config)),
            patient=picture.patient,
            examination=picture.study,
        )
    except ImageError as error:
        return View(study=group, error=str(error))


def _read_bytes(image: object) -> bytes:
    """Bytes of the file, from base64 text (also as a data URL or with line breaks) or from bytes."""
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
    raise ImageError("no image (null)" if _is_null(image) else "the image is not base64 text")


def _is_null(value: object) -> bool:
    """Whether a value is None, NaN, NaT or pandas' NA, not an array or a list of them."""
    return bool(pd.api.types.is_scalar(value) and pd.isna(value))


def _decode_base64(text: str | bytes) -> bytes:
    try:
        raw = text.encode("ascii") if isinstance(text, str) else text
        # Splitting and joining would turn a body of short lines into millions of strings.
        return base64.b64decode(raw.translate(None, _WHITE_SPACE), validate=True)
    except (binascii.Error, UnicodeEncodeError):
        raise ImageError("not base64 text") from None


def _show(value: object) -> str:
    """Start of a value; Python does not print integers of thousands of digits."""
    try:
        return repr(value)[:40]
    except ValueError:
        return "one of thousands of digits"


def _is_share(value: object) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float, np.integer, np.floating)):
        return False
    return bool(0 <= value <= 1)  # not converted first: 10**400 does not fit a float

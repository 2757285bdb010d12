"""Numbers of a DICOM header, read strictly: a value that is not what its attribute promises is never guessed."""

from __future__ import annotations

import re
from typing import Any

import numpy as np

from muralab.errors import ImageError

_NUMERIC_VRS = ("DS", "IS", "FL", "FD", "US", "SS", "UL", "SL")
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?|[+-]?(nan|inf|infinity)", re.IGNORECASE | re.ASCII)
_MAX_ASPECT = 4.0
"""Ratio of a pixel's sides; no detector comes near it."""
_ASPECT_TOLERANCE = 0.01
"""Detectors are calibrated separately along their sides; stretching by less only blurs the pixels."""
_SPACINGS = ("ImagerPixelSpacing", "PixelSpacing", "NominalScannedPixelSpacing", "PixelAspectRatio")
_EMPTY: tuple[Any, ...] = (None, "", [], b"")
_FUNCTIONAL_GROUPS = ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence")


def read_numbers(header: Any, name: str) -> list[float | None]:
    """Values of a numeric attribute.

    Args:
        header: pydicom's data set.
        name: keyword of the attribute.

    Returns:
        None for a value that is not a number, such as "2047,5", "2048 HU", or anything stored as text (LO, SH). Empty
        where the attribute is missing or empty.
    """
    try:
        element = header[name]
    except KeyError:
        return []
    except Exception:  # pydicom refuses some values while it converts them
        return [None]
    value = element.value
    if value in _EMPTY:
        return []
    values = [value] if isinstance(value, (str, bytes)) or not hasattr(value, "__getitem__") else list(value)
    # A text that pydicom could not convert still holds all values.
    parts = [part for one in values for part in (one.split("\\") if isinstance(one, str) else [one])]
    return [_number(part) if element.VR in _NUMERIC_VRS else None for part in parts]


def read_number(header: Any, name: str) -> float | None:
    """The first value of a numeric attribute; None where it is missing or empty.

    Raises:
        ImageError: it is not a number.
    """
    numbers = read_numbers(header, name)
    if numbers and numbers[0] is None:
        raise ImageError(f"DICOM whose {name} is not a number; correct or remove it")
    return numbers[0] if numbers else None


def is_given(header: Any, name: str) -> bool:
    """Whether an attribute exists and is not empty; many files contain empty ones."""
    try:
        return header.get(name) not in _EMPTY
    except Exception:  # pydicom refuses some values while it converts them
        return True


def with_attribute(header: Any, name: str, group: str) -> Any:
    """The data set that holds an attribute: the header, or a functional group of its only frame.

    Args:
        header: pydicom's data set.
        name: keyword of the attribute.
        group: keyword of the sequence that holds it in an object with functional groups.

    Returns:
        The header itself where the attribute is nowhere else.
    """
    if is_given(header, name):
        return header
    for groups in _FUNCTIONAL_GROUPS:
        for item in list(header.get(groups) or [])[:1]:
            for holder in list(item.get(group) or [])[:1]:
                if is_given(holder, name):
                    return holder
    return header


def read_aspect(header: Any) -> float:
    """Height of a pixel over its width; 1 where the header does not say, or says nothing usable.

    Raises:
        ImageError: the pixels are too narrow to be those of a radiograph.
    """
    for name in _SPACINGS:
        numbers = read_numbers(header, name)
        sides = [side for side in numbers if side is not None and np.isfinite(side) and side > 0]
        if len(sides) == len(numbers) == 2:
            aspect = sides[0] / sides[1]
            if not 1 / _MAX_ASPECT <= aspect <= _MAX_ASPECT:
                raise ImageError(f"DICOM whose {name} makes its pixels {aspect:.2g} times as high as wide")
            return aspect if abs(aspect - 1) > _ASPECT_TOLERANCE else 1.0
    return 1.0


def _number(value: Any) -> float | None:
    """A number, or None; text must be one as a whole, between blanks."""
    text = getattr(value, "original_string", value)  # pydicom's decimals are as lenient as Python's
    if not isinstance(text, str):
        return float(value) if isinstance(value, (int, float)) else None
    text = text.strip(" \0")
    return float(text) if _NUMBER.fullmatch(text) else None

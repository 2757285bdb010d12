"""Which stored values are black and white in files that do not say so: 16-bit PNG and TIFF, DICOM without a window.

The range is decided once per data set, from its training pictures, and then applied to every picture in training,
evaluation and serving. A range per picture would stretch contrasts and turn the exposure into a hint.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

ValueRange = tuple[int, int]
"""The stored values that become black and white."""

MIN_BITS = 8
SPARE_BITS = 2
"""A picture that leaves this many of its file's bits unused is at most a quarter as bright as it could be."""


@dataclass(frozen=True, kw_only=True)
class StoredValues:
    """The values of one picture whose file does not say which of them are black and white."""

    lowest: int
    highest: int
    bits: int
    """Of each value in the file."""
    signed: bool = False

    def __post_init__(self) -> None:
        if self.lowest > self.highest:
            raise ValueError(f"The lowest value {self.lowest} is above the highest, {self.highest}.")

    @property
    def used_bits(self) -> int:
        """The smallest number of bits, 8 or more, that holds every value."""
        needed = max(max(self.highest, 0).bit_length(), (max(-self.lowest, 1) - 1).bit_length())
        return max(MIN_BITS, needed + (self.lowest < 0))


def smallest_range(pictures: Iterable[StoredValues]) -> ValueRange | None:
    """The range of a data set.

    Returns:
        0 to 2**n - 1 with the smallest n of 8 or more that holds every value, or -2**(n - 1) to 2**(n - 1) - 1 if
        there are negative values; None for no picture.
    """
    found = list(pictures)
    if not found:
        return None
    lowest, highest = min(values.lowest for values in found), max(values.highest for values in found)
    together = StoredValues(lowest=lowest, highest=highest, bits=0)
    return full_range(together.used_bits, signed=lowest < 0)


def full_range(bits: int, *, signed: bool) -> ValueRange:
    """The lowest and the highest value that fit the bits."""
    return (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else (0, 2**bits - 1)


def black_and_white(bits: int, *, signed: bool, value_range: ValueRange | None) -> ValueRange:
    """The stored values that are black and white in one file.

    Args:
        bits: of each value in the file.
        signed: whether its values may be negative.
        value_range: of the data set; None: unknown, so that the file's type decides.

    Returns:
        What the data set's range and that of the file's type have in common: 12-bit files are not darkened by 16-bit
        files in the same data set.
    """
    low, high = full_range(bits, signed=signed)
    if value_range is None or bits <= MIN_BITS:
        return low, high
    common = max(low, value_range[0]), min(high, value_range[1])
    return common if common[0] < common[1] else (low, high)


def describe_range(value_range: ValueRange) -> str:
    """Such as "12 bits, 0 to 4,095"."""
    low, high = value_range
    return f"{(high - low).bit_length()} bits, {low:,} to {high:,}"


def range_to_text(value_range: ValueRange | None) -> str:
    """As it is logged; empty for an unknown range."""
    return "" if value_range is None else f"{value_range[0]} {value_range[1]}"


def range_from_text(text: str) -> ValueRange | None:
    """What `range_to_text` wrote; None for anything else."""
    numbers = text.split()
    if len(numbers) != 2:
        return None
    try:
        return int(numbers[0]), int(numbers[1])
    except ValueError:
        return None


def misfit(values: StoredValues, value_range: ValueRange | None) -> str:
    """How a picture fails to fit the range that it is shown with, as a warning; empty if it fits."""
    used = f"uses {values.used_bits} of its {values.bits} bits"
    if value_range is None:
        if values.bits - values.used_bits < SPARE_BITS:
            return ""
        return f"the picture {used} and the model's value range is unknown, so that it may be far too dark"
    low, high = black_and_white(values.bits, signed=values.signed, value_range=value_range)
    if values.lowest < low or values.highest > high:
        return f"values of {values.lowest} to {values.highest} are outside the model's range of {low} to {high}"
    if (high - low).bit_length() - values.used_bits >= SPARE_BITS:
        return f"the picture {used}, the model's pictures use {(high - low).bit_length()}: it may be too dark"
    return ""

"""The range of a data set: the smallest that holds every value, applied where a file does not say what is white."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from muralab.data.images.decode import decode, decode_picture
from muralab.data.images.value_range import StoredValues, black_and_white, misfit, smallest_range
from tests.fixtures.pictures import BONE, BONE_GREY, bone_dicom, encoded

VALUES = st.integers(-32_768, 65_535)


def stored(lowest: int, highest: int, bits: int = 16, *, signed: bool = False) -> StoredValues:
    return StoredValues(lowest=lowest, highest=highest, bits=bits, signed=signed)


@pytest.mark.parametrize(
    ("ends", "expected"),
    [
        ([(0, 4095)], (0, 4095)),
        ([(0, 4096)], (0, 8191)),
        ([(5, 9)], (0, 255)),
        ([(0, 100), (0, 1023)], (0, 1023)),
        ([(-5, 4095)], (-4096, 4095)),
        ([(-2048, 2047)], (-2048, 2047)),
        ([(-2049, 0)], (-4096, 4095)),
        ([(0, 65_535)], (0, 65_535)),
    ],
)
def test_the_smallest_range_holds_every_value(ends, expected):
    assert smallest_range(stored(*one) for one in ends) == expected


def test_no_picture_gives_no_range():
    assert smallest_range([]) is None


@given(pairs=st.lists(st.tuples(VALUES, VALUES).map(sorted), min_size=1, max_size=5))
def test_the_range_is_the_smallest_power_of_2(pairs):
    low, high = smallest_range(stored(*pair) for pair in pairs)
    lowest, highest = min(pair[0] for pair in pairs), max(pair[1] for pair in pairs)
    assert low <= lowest <= highest <= high
    half = (low // 2, high // 2)
    assert (high - low) == 255 or not (half[0] <= lowest and highest <= half[1])


@pytest.mark.parametrize(
    ("bits", "signed", "data_set", "expected"),
    [
        (16, False, (0, 4095), (0, 4095)),
        (12, False, (0, 65_535), (0, 4095)),
        (8, False, (0, 4095), (0, 255)),
        (16, True, (0, 4095), (0, 4095)),
        (16, False, None, (0, 65_535)),
        (16, False, (-4096, 4095), (0, 4095)),
        (12, True, (-32_768, 32_767), (-2048, 2047)),
    ],
)
def test_a_file_takes_what_its_type_and_the_data_set_have_in_common(bits, signed, data_set, expected):
    assert black_and_white(bits, signed=signed, value_range=data_set) == expected


FILES = {
    "PNG": encoded(BONE),
    "TIFF": encoded(BONE, "TIFF"),
    "DICOM": bone_dicom(BitsStored=16),
    "signed DICOM": bone_dicom(BONE.astype(np.int16), BitsStored=16),
    "rescaled DICOM": bone_dicom(BitsStored=16, RescaleSlope=2, RescaleIntercept=-100),
}


@pytest.mark.parametrize("name", FILES)
def test_a_16_bit_file_of_12_bit_values_is_scaled_by_the_data_sets_range(name):
    picture = decode_picture(FILES[name], value_range=(0, 4095))
    np.testing.assert_allclose(picture.grey, BONE_GREY, atol=1)
    assert (picture.stored.lowest, picture.stored.highest) == (BONE.min(), BONE.max())
    assert decode(FILES[name]).std() < picture.grey.std() / 8


def test_an_inverted_16_bit_file_is_scaled_before_it_is_inverted():
    grey = decode(bone_dicom(BitsStored=16, PhotometricInterpretation="MONOCHROME1"), value_range=(0, 4095))
    np.testing.assert_allclose(grey, 255 - BONE_GREY, atol=1)


@pytest.mark.parametrize(
    "data", [encoded(BONE_GREY), encoded(BONE_GREY, "JPEG"), bone_dicom(WindowCenter=2048, WindowWidth=4096)]
)
def test_files_that_say_what_is_white_have_no_stored_values(data):
    assert decode_picture(data).stored is None
    np.testing.assert_array_equal(decode(data, value_range=(0, 1023)), decode(data))


def test_padding_does_not_count():
    padded = BONE.copy()
    padded[:5] = 65_535
    found = decode_picture(bone_dicom(padded, BitsStored=16, PixelPaddingValue=65_535)).stored
    assert found.highest == BONE[5:].max()


@pytest.mark.parametrize(
    ("values", "value_range", "warning"),
    [
        (stored(0, 4000), (0, 4095), ""),
        (stored(0, 5000), (0, 4095), "outside the model's range of 0 to 4095"),
        (stored(-7, 50, signed=True), (0, 4095), "outside the model's range"),
        (stored(0, 900), (0, 4095), "uses 10 of its 16 bits, the model's pictures use 12"),
        (stored(0, 4000), None, "uses 12 of its 16 bits and the model's value range is unknown"),
        (stored(0, 65_000), None, ""),
        (stored(0, 3000, bits=12), None, ""),
    ],
)
def test_a_picture_that_does_not_fit_the_models_range_is_described(values, value_range, warning):
    found = misfit(values, value_range)
    assert warning in found
    assert bool(found) == bool(warning)

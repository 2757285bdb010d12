"""Windows, rescale, polarity, padding and pixel shape of a DICOM: applied, skipped where unusable, never guessed."""

from __future__ import annotations

import numpy as np
import pytest

from muralab.data.images.decode import decode, decode_picture
from muralab.errors import ImageError
from tests.fixtures.pictures import BONE, BONE_GREY, IMPLICIT, bone_dicom

FULL = {"WindowCenter": 2048, "WindowWidth": 4096}
NARROW = np.clip((BONE - 1499.5) / 999 + 0.5, 0, 1) * 255
"""Under a window of 1500 and 1000."""


def with_text(data: bytes, before: bytes, after: bytes) -> bytes:
    """Replace a header value by one of the same length, which pydicom would not write."""
    assert data.count(before) == 1
    return data.replace(before, after)


@pytest.mark.parametrize("text", ["2047,5", "2048HU", "2 048 ", "0x7FF ", "2047_5", "2.047.", "centre"])
def test_a_window_that_is_no_number_is_refused(text):
    data = with_text(bone_dicom(WindowCenter="2047.5", WindowWidth="4096"), b"2047.5", text.encode())
    with pytest.raises(ImageError, match="window centre or width is not a number"):
        decode(data)


@pytest.mark.parametrize("vr", ["LO", "SH", "LT"])
def test_a_window_that_is_stored_as_text_is_refused(vr):
    data = bone_dicom(WindowCenter="2048", WindowWidth="4096", vrs={"WindowCenter": vr, "WindowWidth": vr})
    with pytest.raises(ImageError, match="window centre or width is not a number"):
        decode(data)


def test_an_unreadable_window_is_skipped_for_the_next_one():
    data = bone_dicom(WindowCenter=["2047.5", "1500"], WindowWidth=["4096", "1000"])
    np.testing.assert_allclose(decode(with_text(data, b"2047.5", b"2047,5")), NARROW, atol=0.51)


@pytest.mark.parametrize("width", ["0", "-5", "nan   ", "1e999 "])
def test_an_unusable_window_falls_through_to_the_next_one_or_to_none(width):
    both = bone_dicom(WindowCenter=["2048", "1500"], WindowWidth=["654321", "1000"])
    alone = bone_dicom(WindowCenter="2048", WindowWidth="654321")
    both, alone = (with_text(data, b"654321", width.ljust(6).encode()) for data in (both, alone))
    np.testing.assert_allclose(decode(both), NARROW, atol=0.51)
    picture = decode_picture(alone)
    np.testing.assert_array_equal(picture.grey, BONE_GREY)
    assert "its window is ignored" in picture.notes[0]


def test_a_window_without_a_width_is_no_window():
    np.testing.assert_array_equal(decode(bone_dicom(WindowCenter=500)), BONE_GREY)


def test_numbers_of_another_numeric_type_are_read():
    data = bone_dicom(WindowCenter=1500.0, WindowWidth=1000.0, vrs={"WindowCenter": "FD", "WindowWidth": "FD"})
    np.testing.assert_allclose(decode(data), NARROW, atol=0.51)


@pytest.mark.parametrize("slope", ["0", "nan", "1e400"])
def test_an_unusable_slope_is_skipped(slope):
    data = with_text(bone_dicom(RescaleSlope="54321", RescaleIntercept="7", **FULL), b"54321 ", slope.ljust(6).encode())
    picture = decode_picture(data)
    np.testing.assert_allclose(picture.grey, BONE_GREY, atol=1)
    assert "its rescale is ignored" in picture.notes[0]


def test_a_slope_that_is_no_number_is_refused():
    data = with_text(bone_dicom(RescaleSlope="1.5", RescaleIntercept="0"), b"1.5 ", b"1,5 ")
    with pytest.raises(ImageError, match="RescaleSlope is not a number"):
        decode(data)


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(("shape", "inverted"), [("INVERSE", True), ("IDENTITY", False)])
def test_the_presentations_shape_overrules_the_photometric_interpretation(photometric, shape, inverted):
    grey = decode(bone_dicom(PhotometricInterpretation=photometric, PresentationLUTShape=shape))
    np.testing.assert_allclose(grey, 255 - BONE_GREY if inverted else BONE_GREY, atol=1)


PADDED = BONE.copy()
PADDED[:10], PADDED[:, :6], PADDED[40, 20] = 0, 0, 0


@pytest.mark.parametrize("syntax", [IMPLICIT, "1.2.840.10008.1.2.1"])
def test_padding_is_black_and_its_value_inside_the_picture_is_not(syntax):
    grey = decode(bone_dicom(PADDED, PhotometricInterpretation="MONOCHROME1", PixelPaddingValue=0, syntax=syntax))
    assert grey[:10].max() == grey[:, :6].max() == 0
    assert grey[40, 20] == 255
    np.testing.assert_allclose(grey[41:, 6:], 255 - BONE_GREY[41:, 6:], atol=1)


def test_a_range_of_padding_values_is_black():
    padded = BONE.copy()
    padded[:5], padded[5:10] = 4000, 4095
    grey = decode(bone_dicom(padded, PixelPaddingValue=3990, PixelPaddingRangeLimit=4095))
    assert grey[:10].max() == 0 < grey[10:].min()


@pytest.mark.parametrize(("padding", "vr"), [(-2000, "SS"), (63_536, "US")])
def test_padding_has_the_sign_of_the_pixels(padding, vr):
    signed = BONE.astype(np.int16) - 2048
    signed[:10] = -2000
    data = bone_dicom(signed, BitsStored=16, PixelPaddingValue=padding, vrs={"PixelPaddingValue": vr}, **FULL)
    assert decode(data)[:10].max() == 0
    marked = bone_dicom(signed, BitsStored=16, PhotometricInterpretation="MONOCHROME1", PixelPaddingValue=padding,
                        vrs={"PixelPaddingValue": vr})  # fmt: skip
    assert decode(marked)[:10].max() == 0


def test_padding_marked_by_a_bit_above_the_value_is_black():
    marked = BONE.copy()
    marked[:10] = 0x8000
    grey = decode(bone_dicom(marked, PhotometricInterpretation="MONOCHROME1", PixelPaddingValue=0x8000))
    assert grey[:10].max() == 0
    np.testing.assert_allclose(grey[10:], 255 - BONE_GREY[10:], atol=1)


@pytest.mark.parametrize(
    ("spacing", "shape"),
    [
        ({"PixelAspectRatio": [2, 1]}, (128, 48)),
        ({"PixelAspectRatio": [1, 2]}, (64, 96)),
        ({"PixelSpacing": [0.3, 0.2]}, (96, 48)),
        ({"ImagerPixelSpacing": [0.1, 0.15]}, (64, 72)),
        ({"PixelSpacing": [0.1001, 0.1]}, (64, 48)),
        ({"PixelAspectRatio": [0, 1]}, (64, 48)),
        ({"PixelSpacing": [0.1, 0.1], "PixelAspectRatio": [2, 1]}, (64, 48)),
    ],
)
def test_pixels_that_are_not_square_are_stretched(spacing, shape):
    grey = decode(bone_dicom(**spacing))
    assert grey.shape == shape
    assert abs(float(grey.mean()) - float(BONE_GREY.mean())) < 1


def test_impossible_pixels_are_refused():
    with pytest.raises(ImageError, match="PixelAspectRatio makes its pixels 1e\\+03 times as high as wide"):
        decode(bone_dicom(PixelAspectRatio=[1000, 1]))


def test_a_single_frame_with_functional_groups_has_its_window_there():
    from pydicom.dataset import Dataset

    window, rescale, groups = Dataset(), Dataset(), Dataset()
    window.WindowCenter, window.WindowWidth = 500, 1000
    rescale.RescaleSlope, rescale.RescaleIntercept = 1, -1000
    groups.FrameVOILUTSequence, groups.PixelValueTransformationSequence = [window], [rescale]
    data = bone_dicom(NumberOfFrames=1, SharedFunctionalGroupsSequence=[groups])
    np.testing.assert_allclose(decode(data), NARROW, atol=0.51)

"""Lookup tables of a DICOM: scaled by what they hold, and read with the sign that their pixels have."""

from __future__ import annotations

import numpy as np
import pytest

from muralab.data.images.decode import decode
from tests.fixtures.pictures import BONE, BONE_GREY, IMPLICIT, bone_dicom, lookup_table

IDENTITY = list(range(4096))


@pytest.mark.parametrize("described", [8, 10, 12, 14, 16])
@pytest.mark.parametrize("name", ["VOILUTSequence", "ModalityLUTSequence"])
def test_a_table_is_scaled_by_what_it_holds(described, name):
    data = bone_dicom(**{name: [lookup_table([4096, 0, described], IDENTITY)]})
    np.testing.assert_allclose(decode(data), BONE_GREY, atol=1)


@pytest.mark.parametrize("bits", [10, 14])
def test_a_table_of_other_bits_than_described_is_scaled_by_its_own(bits):
    entries = (np.arange(4096) * (2**bits - 1) // 4095).tolist()
    data = bone_dicom(VOILUTSequence=[lookup_table([4096, 0, 16], entries)])
    np.testing.assert_allclose(decode(data), BONE_GREY, atol=1)


@pytest.mark.parametrize(("first", "vr"), [(63_488, "US"), (-2048, "SS")])
@pytest.mark.parametrize("syntax", [IMPLICIT, "1.2.840.10008.1.2.1"])
def test_the_first_value_of_a_table_has_the_sign_of_the_pixels(first, vr, syntax):
    signed = BONE.astype(np.int16) - 2048
    item = lookup_table([4096, first, 12], IDENTITY, vr=vr)
    np.testing.assert_allclose(decode(bone_dicom(signed, syntax=syntax, VOILUTSequence=[item])), BONE_GREY, atol=1)


def test_the_first_value_may_be_negative_because_of_the_rescale():
    item = lookup_table([4096, 64_512, 12], IDENTITY, vr="US")
    data = bone_dicom(RescaleSlope=1, RescaleIntercept=-1024, VOILUTSequence=[item])
    np.testing.assert_allclose(decode(data), BONE_GREY, atol=1)


def test_a_large_first_value_of_unsigned_pixels_stays_positive():
    item = lookup_table([4096, 40_000, 12], IDENTITY, vr="US")
    data = bone_dicom(BONE + np.uint16(40_000), BitsStored=16, VOILUTSequence=[item])
    np.testing.assert_allclose(decode(data), BONE_GREY, atol=1)


def test_entries_that_are_written_as_signed_are_not_negative():
    from pydicom.dataset import Dataset

    item = Dataset()
    item.add_new("LUTDescriptor", "US", [4096, 0, 16])
    item.add_new("LUTData", "SS", (np.arange(4096) * 16 + 15).astype(np.uint16).view(np.int16).tolist())
    np.testing.assert_allclose(decode(bone_dicom(VOILUTSequence=[item])), BONE_GREY, atol=1)

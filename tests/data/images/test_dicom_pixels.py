"""Every transfer syntax gives the same pixels, without bits above those stored, or is refused as truncated."""

from __future__ import annotations

import io

import imagecodecs
import numpy as np
import pytest

from muralab.data.images.decode import decode
from muralab.errors import ImageError
from tests.fixtures import pictures as p
from tests.fixtures.pictures import BONE, BONE_GREY, bone_dicom, dicom, framed


def run_lengths(pixels: np.ndarray) -> bytes:
    """A frame as pydicom compresses it."""
    from pydicom.pixels.encoders.base import get_encoder

    height, width = pixels.shape
    bits = {"bits_allocated": 16, "bits_stored": 16, "pixel_representation": 0, "samples_per_pixel": 1}
    shape = {"rows": height, "columns": width, "number_of_frames": 1, "photometric_interpretation": "MONOCHROME2"}
    return bytes(get_encoder(p.RLE).encode(pixels.tobytes(), **bits, **shape))


def lossless(pixels: np.ndarray, bits: int, *, predictor: int = 1) -> bytes:
    return bytes(imagecodecs.jpeg8_encode(pixels, lossless=True, predictor=predictor, bitspersample=bits))


FRAMES = {
    "JPEG extended, 12 bits": (p.JPEG_EXTENDED, imagecodecs.jpeg8_encode(BONE, level=98, bitspersample=12)),
    "JPEG lossless": (p.JPEG_LOSSLESS, lossless(BONE, 12, predictor=4)),
    "JPEG lossless, first order": (p.JPEG_LOSSLESS_FIRST, lossless(BONE, 12)),
    "JPEG lossless, 16 bits": (p.JPEG_LOSSLESS_FIRST, lossless(BONE, 16)),
    "JPEG-LS": (p.JPEG_LS, imagecodecs.jpegls_encode(BONE)),
    "JPEG-LS, near": (p.JPEG_LS_NEAR, imagecodecs.jpegls_encode(BONE, level=2)),
    "JPEG 2000": (p.JPEG_2000_LOSSLESS, imagecodecs.jpeg2k_encode(BONE, codecformat="j2k", level=0)),
    "run lengths": (p.RLE, run_lengths(BONE)),
}
JPEGS = [name for name in FRAMES if name.startswith("JPEG") and "-LS" not in name and "2000" not in name]


@pytest.mark.parametrize("name", FRAMES)
def test_every_compression_gives_the_same_pixels(name):
    syntax, frame = FRAMES[name]
    np.testing.assert_allclose(decode(framed(frame, syntax=syntax)), BONE_GREY, atol=1)


@pytest.mark.parametrize("name", FRAMES)
def test_a_compressed_frame_that_ends_early_is_refused(name):
    syntax, frame = FRAMES[name]
    for cut in (frame[: len(frame) // 2], frame[: len(frame) // 2] + frame[-2:]):
        with pytest.raises(ImageError):
            decode(framed(cut, syntax=syntax))


@pytest.mark.parametrize("name", FRAMES)
def test_a_frame_of_another_size_than_the_header_is_refused(name):
    syntax, frame = FRAMES[name]
    with pytest.raises(ImageError):
        decode(framed(frame, syntax=syntax, Rows=63))


@pytest.mark.parametrize("name", JPEGS)
def test_missing_pixels_are_found_where_the_end_marker_is_there(name):
    syntax, frame = FRAMES[name]
    with pytest.raises(ImageError, match="its data end before its pixels"):
        decode(framed(frame[: len(frame) * 2 // 3] + b"\xff\xd9", syntax=syntax))


@pytest.mark.parametrize("syntax", [p.EXPLICIT, p.IMPLICIT, p.BIG_ENDIAN, p.DEFLATED])
def test_raw_pixels_of_every_byte_order_are_read(syntax):
    pixels = BONE.byteswap() if syntax == p.BIG_ENDIAN else BONE
    np.testing.assert_array_equal(decode(bone_dicom(pixels, syntax=syntax)), BONE_GREY)


OVERLAID = BONE | np.uint16(0xA000)
HIGH_BITS = {
    "raw": (p.EXPLICIT, None),
    "run lengths": (p.RLE, run_lengths(OVERLAID)),
    "JPEG lossless": (p.JPEG_LOSSLESS_FIRST, lossless(OVERLAID, 16)),
    "JPEG-LS": (p.JPEG_LS, imagecodecs.jpegls_encode(OVERLAID)),
    "JPEG 2000": (p.JPEG_2000_LOSSLESS, imagecodecs.jpeg2k_encode(OVERLAID, codecformat="j2k", level=0)),
}


@pytest.mark.parametrize("name", HIGH_BITS)
def test_bits_above_those_stored_are_no_part_of_the_value(name):
    syntax, frame = HIGH_BITS[name]
    data = bone_dicom(OVERLAID) if frame is None else framed(frame, syntax=syntax)
    np.testing.assert_array_equal(decode(data), BONE_GREY)


@pytest.mark.parametrize("syntax", [p.EXPLICIT, p.JPEG_LOSSLESS_FIRST, p.RLE])
def test_signed_values_of_12_bits_are_sign_extended_in_every_syntax(syntax):
    signed = (BONE.astype(np.int16) - 2048).view(np.uint16) & 0xFFF
    frames = {
        p.EXPLICIT: signed.tobytes(),
        p.JPEG_LOSSLESS_FIRST: lossless(signed, 12),
        p.RLE: run_lengths(signed),
    }
    if syntax == p.EXPLICIT:
        data = bone_dicom(signed, PixelRepresentation=1)
    else:
        data = framed(frames[syntax], syntax=syntax, PixelRepresentation=1)
    np.testing.assert_allclose(decode(data), BONE_GREY, atol=1)


def without_preamble(data: bytes, *, meta: bool) -> bytes:
    """A file from its first element on, or from the first one behind the file meta group."""
    n_meta = int.from_bytes(data[140:144], "little")
    return data[132:] if meta else data[144 + n_meta :]


@pytest.mark.parametrize("meta", [True, False])
@pytest.mark.parametrize("syntax", [p.EXPLICIT, p.IMPLICIT, p.BIG_ENDIAN])
def test_a_data_set_without_preamble_is_read(syntax, meta):
    pixels = BONE.byteswap() if syntax == p.BIG_ENDIAN else BONE
    data = without_preamble(bone_dicom(pixels, syntax=syntax), meta=meta)
    np.testing.assert_array_equal(decode(data), BONE_GREY)


def test_a_compressed_data_set_without_transfer_syntax_is_refused():
    data = framed(FRAMES["JPEG lossless"][1], syntax=p.JPEG_LOSSLESS)
    with pytest.raises(ImageError, match="compressed DICOM without a transfer syntax"):
        decode(without_preamble(data, meta=False))


@pytest.mark.parametrize("syntax", [p.EXPLICIT, p.DEFLATED, p.JPEG_LS])
def test_a_file_that_ends_early_is_refused(syntax):
    data = framed(FRAMES["JPEG-LS"][1], syntax=syntax) if syntax == p.JPEG_LS else bone_dicom(syntax=syntax)
    for keep in (0.4, 0.9, 0.99):
        with pytest.raises(ImageError):
            decode(data[: int(len(data) * keep)])


def test_a_deflated_bomb_is_refused():
    pixels = np.zeros((64, 48), np.uint8)
    data = dicom(pixels, syntax=p.DEFLATED, PixelData=bytes(2**25))
    with pytest.raises(ImageError, match="deflated DICOM that is too large"):
        decode(data, max_pixels=10_000)


@pytest.mark.parametrize("segments", [0, 1, 3, 15, 2**31])
def test_run_lengths_with_impossible_positions_are_refused(segments):
    frame = FRAMES["run lengths"][1]
    with pytest.raises(ImageError, match="positions of its run lengths"):
        decode(framed(segments.to_bytes(4, "little") + frame[4:], syntax=p.RLE))


def test_an_object_with_one_frame_is_read():
    np.testing.assert_array_equal(decode(bone_dicom(NumberOfFrames=1)), BONE_GREY)


def test_an_8_bit_stream_in_a_12_bit_header_fills_the_grey_scale():
    frame = lossless(BONE_GREY, 8)
    np.testing.assert_allclose(decode(framed(frame, syntax=p.JPEG_LOSSLESS_FIRST)), BONE_GREY, atol=1)


def test_pydicoms_own_files_are_read_as_pydicom_reads_them():
    import pydicom
    from pydicom.data import get_testdata_file

    for name in ("JPEG2000.dcm", "MR_small_RLE.dcm", "MR_small_jpeg_ls_lossless.dcm", "image_dfl.dcm"):
        data = open(get_testdata_file(name), "rb").read()  # noqa: PTH123, SIM115
        header = pydicom.dcmread(io.BytesIO(data), force=True)
        assert decode(data).shape == (header.Rows, header.Columns)

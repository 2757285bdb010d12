"""The only preprocessing: what it reads and rejects, and that all encodings of the same pixels give one square."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from muralab.data.images.decode import decode, decode_picture, to_square
from muralab.errors import ImageError

GREY = np.random.default_rng(0).integers(0, 256, (40, 60), dtype=np.uint8)


def encoded(image: Image.Image | np.ndarray, kind: str = "PNG", **options: object) -> bytes:
    buffer = io.BytesIO()
    (image if isinstance(image, Image.Image) else Image.fromarray(image)).save(buffer, kind, **options)
    return buffer.getvalue()


def dicom(pixels: np.ndarray, *, syntax: str = "1.2.840.10008.1.2.1", **attributes: object) -> bytes:
    from pydicom.dataset import Dataset, FileMetaDataset

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.BitsAllocated = dataset.BitsStored = pixels.dtype.itemsize * 8
    dataset.HighBit, dataset.SamplesPerPixel = dataset.BitsStored - 1, 1
    dataset.PixelRepresentation, dataset.PhotometricInterpretation = 0, "MONOCHROME2"
    dataset.PixelData = pixels.tobytes()
    dataset["PixelData"].VR = "OW"
    for name, value in attributes.items():
        setattr(dataset, name, value)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def bomb_png(width: int = 30_000, height: int = 30_000) -> bytes:
    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(64))) + chunk(b"IEND", b"")
    )


def test_a_grey_png_is_read_unchanged():
    np.testing.assert_array_equal(decode(encoded(GREY)), GREY)


def test_grey_stored_as_rgb_is_the_same_and_has_no_colour():
    picture = decode_picture(encoded(np.dstack([GREY] * 3)))
    np.testing.assert_array_equal(picture.grey, GREY)
    assert picture.colour_spread == 0


def test_a_colour_photo_has_a_large_colour_spread():
    photo = np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    assert decode_picture(encoded(photo)).colour_spread > 50


def test_16_bit_values_are_scaled_by_their_full_range():
    wide = (GREY.astype(np.uint16)) * 257
    np.testing.assert_array_equal(decode(encoded(wide)), GREY)
    assert decode(encoded(np.full((20, 20), 4095, np.uint16))).max() == 16


def test_transparent_pixels_are_black():
    rgba = np.dstack([GREY] * 3 + [np.zeros_like(GREY)])
    rgba[:20, :, 3] = 255
    grey = decode(encoded(rgba))
    np.testing.assert_array_equal(grey[:20], GREY[:20])
    assert grey[20:].max() == 0


def test_palette_becomes_luma():
    image = Image.fromarray(np.dstack([GREY // 16 * 16] * 3)).convert("P", palette=Image.Palette.ADAPTIVE)
    np.testing.assert_allclose(decode(encoded(image)), GREY // 16 * 16, atol=1)


@pytest.mark.parametrize("orientation", [3, 6, 8])
def test_exif_orientation_of_a_jpeg_is_applied(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    plain = decode(encoded(GREY, "JPEG"))
    turned = {3: plain[::-1, ::-1], 6: np.rot90(plain, -1), 8: np.rot90(plain)}
    np.testing.assert_array_equal(decode(encoded(GREY, "JPEG", exif=exif)), turned[orientation])


@pytest.mark.parametrize("syntax", ["1.2.840.10008.1.2", "1.2.840.10008.1.2.1"])
def test_dicom_and_png_of_the_same_pixels_are_equal(syntax):
    np.testing.assert_array_equal(decode(dicom(GREY, syntax=syntax)), GREY)


def test_monochrome1_is_inverted():
    np.testing.assert_array_equal(decode(dicom(GREY, PhotometricInterpretation="MONOCHROME1")), 255 - GREY)


def test_12_stored_bits_fill_the_grey_scale():
    stored = GREY.astype(np.uint16) * 16
    expected = np.rint(stored / 4095 * 255)
    np.testing.assert_array_equal(decode(dicom(stored, BitsStored=12, HighBit=11)), expected)


def test_dicom_window_is_applied_after_the_rescale():
    stored = GREY.astype(np.uint16)
    grey = decode(dicom(stored, RescaleSlope=2, RescaleIntercept=-100, WindowCenter=100.5, WindowWidth=201))
    np.testing.assert_allclose(grey, np.clip((stored * 2.0 - 100) / 200, 0, 1) * 255, atol=0.51)


@pytest.mark.parametrize("name", ["WindowCenter", "RescaleSlope", "VOILUTSequence"])
def test_empty_attributes_count_as_missing(name):
    empty = [] if name == "VOILUTSequence" else None
    np.testing.assert_array_equal(decode(dicom(GREY, **{"WindowWidth": None, name: empty})), GREY)


def test_signed_dicom_uses_the_signed_range():
    stored = (GREY.astype(np.int32) * 257 - 32768).astype(np.int16)
    np.testing.assert_allclose(decode(dicom(stored, PixelRepresentation=1)), GREY, atol=1)


def test_a_negative_rescale_inverts():
    np.testing.assert_array_equal(decode(dicom(GREY, RescaleSlope=-1, RescaleIntercept=255)), 255 - GREY)


RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)
TABLE_ENTRIES = {
    "8 bits": (8, (RAMP >> 4).ravel().tolist()),
    "8 bits as words": (8, (RAMP >> 4).astype("<u2").tobytes()),
    "8 bits, two per word": (8, (RAMP >> 4).astype(np.uint8).tobytes()),
    "12 bits": (12, RAMP.ravel().tolist()),
    "16 bits as words": (16, (RAMP * 16 + 15).astype("<u2").tobytes()),
}


@pytest.mark.parametrize("name", TABLE_ENTRIES)
def test_a_voi_table_of_any_encoding_is_applied(name):
    bits, entries = TABLE_ENTRIES[name]
    data = dicom(RAMP, BitsStored=12, HighBit=11, VOILUTSequence=[table([4096, 0, bits], entries)])
    np.testing.assert_allclose(decode(data), RAMP / 4095 * 255, atol=1.01)


def test_values_outside_a_voi_table_get_its_first_or_last_entry():
    entries = table([256, 1000, 8], list(range(256)))
    data = dicom(RAMP, BitsStored=12, HighBit=11, RescaleSlope=30, RescaleIntercept=0, VOILUTSequence=[entries])
    np.testing.assert_array_equal(decode(data), np.clip(RAMP.astype(int) * 30 - 1000, 0, 255))


@pytest.mark.parametrize("first", [0, -100])
@pytest.mark.parametrize("name", ["8 bits", "8 bits, two per word", "16 bits as words"])
def test_a_modality_table_of_any_encoding_is_applied(name, first):
    bits, entries = TABLE_ENTRIES[name]
    data = dicom(RAMP, BitsStored=12, HighBit=11, ModalityLUTSequence=[table([4096, first, bits], entries)])
    positions = np.clip(RAMP.astype(int) - first, 0, 4095)
    np.testing.assert_allclose(decode(data), positions / 4095 * 255, atol=1.01)


def test_a_modality_table_may_be_longer_than_the_stored_bits():
    stored = (np.arange(4096) % 256).astype(np.uint8).reshape(64, 64)
    entries = np.arange(4096).tolist()
    data = dicom(stored, ModalityLUTSequence=[table([4096, 0, 12], entries)])
    np.testing.assert_array_equal(decode(data), np.rint(stored / 4095 * 255))


@pytest.mark.parametrize("slope", [1e10, 1e30])
def test_values_beyond_any_integer_type_get_the_first_or_last_entry(slope):
    entries = table([256, 0, 8], list(range(256)))
    data = dicom(RAMP, BitsStored=12, HighBit=11, RescaleSlope=slope, RescaleIntercept=0, VOILUTSequence=[entries])
    np.testing.assert_array_equal(decode(data), np.where(RAMP > 0, 255, 0))


def test_a_voi_table_in_big_endian_is_applied():
    entries = table([4096, 0, 16], (RAMP * 16 + 15).astype(">u2").tobytes())
    data = dicom(RAMP.byteswap(), syntax="1.2.840.10008.1.2.2", BitsStored=12, HighBit=11, VOILUTSequence=[entries])
    np.testing.assert_allclose(decode(data), RAMP / 4095 * 255, atol=1.01)


def test_the_checked_frame_is_the_decoded_frame():
    import pydicom
    from pydicom.encaps import encapsulate

    other = encoded(np.zeros((900, 900), np.uint8), "JPEG")
    dataset = pydicom.dcmread(io.BytesIO(jpeg_dicom(PROGRESSIVE)))
    dataset.PixelData = encapsulate([PROGRESSIVE, other], has_bot=False)
    dataset.ExtendedOffsetTable = struct.pack("<Q", 8 + len(PROGRESSIVE) + len(PROGRESSIVE) % 2)
    dataset.ExtendedOffsetTableLengths = struct.pack("<Q", len(other))
    dataset.save_as(buffer := io.BytesIO())
    assert decode(buffer.getvalue()).shape == (64, 64)


def test_data_after_the_end_of_a_jpeg_are_not_counted():
    assert decode(PROGRESSIVE + b"\xff\xda" * 100_000).shape == (64, 64)


def test_a_transparent_16_bit_grey_value_is_black():
    wide = GREY.astype(np.uint16) * 257
    decoded = decode(encoded(Image.fromarray(wide), transparency=int(wide[0, 0])))
    np.testing.assert_array_equal(decoded, np.where(GREY[0, 0] == GREY, 0, GREY))


def test_progressive_jpegs_of_any_encoder_are_read():
    assert decode(many_scans(PROGRESSIVE, 40)).shape == decode(jpeg_dicom(PROGRESSIVE)).shape == (64, 64)


def test_a_square_keeps_the_aspect_ratio_and_pads_with_black():
    square = to_square(np.full((50, 100), 200, np.uint8), 64)
    assert square.shape == (64, 64)
    assert (square[16:48] == 200).all()
    assert square[:16].max() == square[48:].max() == 0


@pytest.mark.parametrize("shape", [(16, 4000), (4000, 16), (17, 16), (33, 33)])
def test_any_shape_becomes_a_square(shape):
    assert to_square(np.ones(shape, np.uint8), 32).shape == (32, 32)


def test_enlarging_keeps_the_grey_range():
    assert to_square(GREY, 128).max() <= GREY.max()


def gif(frames: int) -> bytes:
    images = [Image.fromarray(GREY), Image.fromarray(255 - GREY)][:frames]
    return encoded(images[0], "GIF", save_all=True, append_images=images[1:])


def jpeg_dicom(frame: bytes, *, syntax: str = "1.2.840.10008.1.2.4.50") -> bytes:
    from pydicom.encaps import encapsulate

    return dicom(np.zeros((64, 64), np.uint8), syntax=syntax, PixelData=encapsulate([frame]))


def many_scans(data: bytes, n_scans: int) -> bytes:
    """A progressive JPEG that repeats its last scan."""
    start = data.rindex(b"\xff\xda")
    return data[:start] + data[start:-2] * n_scans + data[-2:]


def with_mpf(jpeg: bytes) -> bytes:
    """The same image as the first of two in one file, a format that Pillow calls MPO."""
    entries = b"".join(struct.pack("<IIIHH", 0, len(jpeg), 0, 0, 0) for _ in range(2))
    tags = [(0xB000, 7, 4, b"0100"), (0xB001, 4, 1, struct.pack("<I", 2)), (0xB002, 7, 32, struct.pack("<I", 50))]
    directory = struct.pack("<H", 3) + b"".join(struct.pack("<HHI", *tag[:3]) + tag[3] for tag in tags) + bytes(4)
    body = b"MPF\0" + b"II*\0" + struct.pack("<I", 8) + directory + entries
    return jpeg[:2] + b"\xff\xe2" + struct.pack(">H", len(body) + 2) + body + jpeg[2:]


def table(descriptor: list[int], entries: bytes | list[int]) -> object:
    from pydicom.dataset import Dataset

    item = Dataset()
    item.add_new("LUTDescriptor", "SS" if descriptor[1] < 0 else "US", descriptor)
    item.add_new("LUTData", "OW" if isinstance(entries, bytes) else "US", entries)
    return item


EMPTY_SEGMENT = b"\xff\xe5\0\2"
EMPTY_ELEMENT = struct.pack("<HH2sH", 0x0011, 0x1001, b"LO", 0)
UNDEFINED = struct.pack("<HH2sHI", 0x0009, 0x1001, b"SQ", 0, 0xFFFFFFFF)
TABLES = struct.pack("<HH2sHI", 0x0028, 0x3010, b"SQ", 0, 70_000 * 8)
EMPTY_ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 0)
OPEN_ITEM = struct.pack("<HHI", 0xFFFE, 0xE000, 0xFFFFFFFF)
END = struct.pack("<HHI", 0xFFFE, 0xE0DD, 0)


def with_elements(elements: bytes) -> bytes:
    """A valid DICOM with more elements before its pixels."""
    data = dicom(GREY)
    place = data.index(struct.pack("<HH", 0x7FE0, 0x0010))
    return data[:place] + elements + data[place:]


def with_values(tag: int, values: bytes, kind: bytes = b"") -> bytes:
    """A valid DICOM with one more element of many values before its pixels; without a kind, as the syntax implies."""
    data = dicom(GREY, syntax="1.2.840.10008.1.2.1" if kind else "1.2.840.10008.1.2")
    place = data.index(struct.pack("<HH", 0x7FE0, 0x0010))
    kind = kind and kind + bytes(2)
    return (
        data[:place]
        + struct.pack("<HH", tag >> 16, tag & 0xFFFF)
        + kind
        + struct.pack("<I", len(values))
        + values
        + data[place:]
    )


def with_chunks(kind: bytes, n_chunks: int) -> bytes:
    data = encoded(GREY)
    return data[:33] + (bytes(4) + kind + struct.pack(">I", zlib.crc32(kind))) * n_chunks + data[33:]


PROGRESSIVE = encoded(to_square(GREY, 64), "JPEG", progressive=True)


BAD = {
    "zero bytes": (b"", "zero bytes"),
    "text": (b"hello, this is not an image" * 20, "not a PNG, JPEG, TIFF, BMP or DICOM"),
    "1x1": (encoded(np.zeros((1, 1), np.uint8)), "1 x 1 px is too small"),
    "truncated png": (encoded(GREY)[:-800], "broken or truncated PNG"),
    "truncated jpeg": (encoded(to_square(GREY, 256), "JPEG")[:3000], "broken or truncated JPEG"),
    "broken header": (encoded(GREY)[:20], "header cannot be read"),
    "bomb": (bomb_png(), "too large"),
    "large but no bomb": (bomb_png(9_000, 9_000), "9000 x 9000 px is too large, at most 50 million"),
    "cmyk": (encoded(Image.new("CMYK", (40, 40)), "JPEG"), "CMYK colours are not read"),
    "gif": (gif(1), "but GIF"),
    "animated png": (
        encoded(Image.fromarray(GREY), save_all=True, append_images=[Image.fromarray(255 - GREY)]),
        "animated PNG",
    ),
    "text as dicom": (bytes(128) + b"DICM" + b"just some words " * 20, "DICOM"),
    "multi-frame": (dicom(np.zeros((40, 60), np.uint8), NumberOfFrames=2), "multi-frame DICOM"),
    "dicom bomb": (dicom(np.zeros((20, 20), np.uint8), Rows=30_000, Columns=30_000), "30000 x 30000 px is too large"),
    "dicom too short": (dicom(np.zeros((20, 20), np.uint8), Rows=200), "broken DICOM"),
    "dicom colour": (dicom(GREY, PhotometricInterpretation="PALETTE COLOR"), "only MONOCHROME1 and MONOCHROME2"),
    "dicom high bit": (dicom(GREY.astype(np.uint16), BitsStored=12, HighBit=15), "whose 12 bits end at 15"),
    "jpeg scans": (many_scans(PROGRESSIVE, 70), "a JPEG with more than 64 scans"),
    "dicom jpeg colours": (jpeg_dicom(encoded(np.dstack([to_square(GREY, 64)] * 3), "JPEG")), "has colours, although"),
    "dicom jpeg scans": (jpeg_dicom(many_scans(PROGRESSIVE, 70)), "a JPEG with more than 64 scans"),
    "mpo scans": (with_mpf(many_scans(PROGRESSIVE, 70)), "a JPEG with more than 64 scans"),
    "jpeg segments": (PROGRESSIVE[:2] + EMPTY_SEGMENT * 1_001 + PROGRESSIVE[2:], "more than 1,000 segments"),
    "jpeg end first": (
        PROGRESSIVE[:2] + b"\xff\xd9" + EMPTY_SEGMENT * 1_001 + PROGRESSIVE[2:],
        "more than 1,000 segments",
    ),
    "jpeg extension": (
        PROGRESSIVE[:2] + b"\xff\xf0\x3f\xfe" + EMPTY_SEGMENT * 4_095 + PROGRESSIVE[2:],
        "more than 1,000 segments",
    ),
    "png chunks": (with_chunks(b"prVt", 1_001), "a PNG with more than 1,000 chunks"),
    "png pixel chunks": (with_chunks(b"IDAT", 50_001), "or with too many pixel chunks"),
    "dicom windows": (with_values(0x0028_1050, b"1\\" * 3_000), "DICOM with too many elements"),
    "dicom characters": (with_values(0x0008_0005, b"\\" * 6_000), "DICOM with too many elements"),
    "dicom rows of items": (
        with_values(0x0028_0010, EMPTY_ITEM * 600, b"SQ"),
        "DICOM with too many elements",
    ),
    "dicom pixels of items": (
        with_values(0x7FE0_0010, EMPTY_ITEM, b"SQ")[: -12 - GREY.size],
        "data are not bytes",
    ),
    "jpeg junk": (PROGRESSIVE[:20] + bytes(70_000) + PROGRESSIVE[20:], "or with junk between them"),
    "dicom elements": (with_elements(EMPTY_ELEMENT * 60_000), "DICOM with too many elements"),
    "dicom items": (with_elements(UNDEFINED + EMPTY_ITEM * 60_000 + END), "DICOM with too many elements"),
    "dicom nested": (with_elements((UNDEFINED + OPEN_ITEM) * 2_000), "broken DICOM"),
    "dicom table items": (with_elements(TABLES + EMPTY_ITEM * 70_000), "too large a lookup table"),
    "dicom fragments": (jpeg_dicom(PROGRESSIVE)[:-8] + EMPTY_ITEM * 10_001 + END, "has too many fragments"),
    "dicom table": (dicom(GREY, VOILUTSequence=[table([300, 0, 8], bytes(200))]), "contradicts its descriptor"),
    "video": (jpeg_dicom(PROGRESSIVE, syntax="1.2.840.10008.1.2.4.100"), "MPEG2 .* not supported"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_bytes_are_rejected_with_a_short_reason(name):
    data, reason = BAD[name]
    with pytest.raises(ImageError, match=reason) as caught:
        decode(data)
    assert len(str(caught.value)) < 200
    assert "\n" not in str(caught.value)


def test_an_encrypted_dicom_without_pixels_is_reported_as_encrypted():
    import pydicom

    dataset = pydicom.dcmread(io.BytesIO(dicom(GREY)))
    del dataset.PixelData
    dataset.EncryptedAttributesSequence = [pydicom.Dataset()]
    buffer = io.BytesIO()
    dataset.save_as(buffer)
    with pytest.raises(ImageError, match="encrypted DICOM"):
        decode(buffer.getvalue())


def test_a_decompression_bomb_allocates_no_memory():
    import tracemalloc

    tracemalloc.start()
    with pytest.raises(ImageError):
        decode(bomb_png())
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 2_000_000


TALL = np.tile(GREY, (200, 8))
LARGE = {
    "png 16 bits": encoded(TALL.astype(np.uint16) * 257),
    "png rgba": encoded(np.dstack([TALL] * 4)),
    "dicom 16 bits": dicom(TALL.astype(np.uint16) * 257),
}


@pytest.mark.parametrize("name", LARGE)
def test_a_large_image_needs_few_copies_besides_pillows(name):
    import tracemalloc

    decode(LARGE[name])  # imports of the first call are not counted
    tracemalloc.start()
    decode(LARGE[name])
    peak_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak_bytes < 6 * TALL.size


def outcome(data: bytes) -> object:
    try:
        return decode(data).dtype
    except ImageError as error:
        return len(str(error)) > 0


def test_any_bytes_give_pixels_or_an_image_error():
    rng = np.random.default_rng(0)
    sources = [encoded(GREY), encoded(to_square(GREY, 64), "JPEG"), dicom(GREY)]
    for turn in range(300):
        data = bytearray(sources[turn % 3])
        for position in rng.integers(0, min(len(data), 700), 1 + turn % 8):
            data[position] = rng.integers(0, 256)
        assert outcome(bytes(data)) in (np.uint8, True)

"""PNG, JPEG, TIFF and BMP: damage, orientation, transparency, depth and completeness."""

from __future__ import annotations

import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from muralab.data.images.decode import decode, decode_picture, to_square
from muralab.errors import ImageError
from tests.fixtures.pictures import BONE, BONE_GREY, encoded, png, png_chunk

HEIGHT, WIDTH = BONE.shape
BONE_16 = BONE * np.uint16(16) + np.uint16(15)


def with_chunk(kind: bytes, body: bytes, *, checksum: int | None = None) -> bytes:
    """The bone as PNG, with one more chunk before its pixels."""
    data = encoded(BONE_GREY)
    return data[:33] + png_chunk(kind, body, checksum=checksum) + data[33:]


@pytest.mark.parametrize("kind", [b"tEXt", b"tIME", b"gAMA", b"prVt", b"iCCP"])
def test_a_damaged_chunk_that_changes_no_pixel_is_left_out(kind):
    np.testing.assert_array_equal(decode(with_chunk(kind, b"Comment\0x", checksum=7)), BONE_GREY)


def test_a_damaged_chunk_behind_the_pixels_is_left_out():
    data = encoded(BONE_GREY)
    np.testing.assert_array_equal(decode(data[:-12] + png_chunk(b"tEXt", b"a\0b", checksum=7) + data[-12:]), BONE_GREY)


@pytest.mark.parametrize("kind", [b"tRNS", b"eXIf"])
def test_a_damaged_chunk_that_may_change_pixels_is_refused(kind):
    with pytest.raises(ImageError, match=rf"damaged PNG \(chunk {kind.decode()}\)"):
        decode(with_chunk(kind, b"\0\0", checksum=7))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "JPEG"])
@pytest.mark.parametrize("orientation", range(2, 9))
def test_the_orientation_is_applied_in_every_format(kind, orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    plain = decode(encoded(BONE_GREY, kind))
    turned = {2: plain[:, ::-1], 3: plain[::-1, ::-1], 4: plain[::-1], 5: plain.T, 6: np.rot90(plain, -1),
              7: np.rot90(plain, 2).T, 8: np.rot90(plain)}  # fmt: skip
    np.testing.assert_array_equal(decode(encoded(BONE_GREY, kind, exif=exif)), turned[orientation])


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_a_transparent_grey_value_of_any_depth_is_black(bits):
    top = 2**bits - 1
    values = np.tile(np.arange(32) % (top + 1), (32, 1)).astype(np.uint8)
    packed = np.packbits(np.unpackbits(values[..., None], axis=2)[..., 8 - bits :].reshape(32, -1), axis=1)
    rows = b"".join(b"\0" + row.tobytes() for row in packed)
    white = png_chunk(b"tRNS", struct.pack(">H", top))
    expected = np.where(values == top, 0, values * (255 // top))
    np.testing.assert_array_equal(decode(png(rows, 32, 32, bits=bits, chunks=white)), expected)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.95])
@pytest.mark.parametrize("bits", [8, 16])
def test_a_png_whose_data_end_early_is_refused(share, bits):
    values = BONE_GREY if bits == 8 else BONE_16.byteswap()
    rows = b"".join(b"\0" + row.tobytes() for row in values[: int(HEIGHT * share)])
    with pytest.raises(ImageError, match="its data end before its last row"):
        decode(png(rows, WIDTH, HEIGHT, bits=bits))


def test_a_png_that_ends_in_black_rows_is_read():
    grey = BONE_GREY.copy()
    grey[-20:] = 0
    np.testing.assert_array_equal(decode(encoded(grey)), grey)


@pytest.mark.parametrize("n_pixels", [10, 100])
def test_the_size_of_interlaced_rows_is_known(n_pixels):
    from muralab.data.images.png import PngHeader

    header = PngHeader(width=n_pixels, height=n_pixels + 3, bits=4, colour=0, interlaced=True)
    passes = ((8, 8, 0, 0), (8, 8, 4, 0), (4, 8, 0, 4), (4, 4, 2, 0), (2, 4, 0, 2), (2, 2, 1, 0), (1, 2, 0, 1))
    shapes = [np.empty((n_pixels + 3, n_pixels))[top::down, left::across].shape for across, down, left, top in passes]
    assert header.n_bytes == sum(rows * (1 + (columns * 4 + 7) // 8) for rows, columns in shapes if rows * columns)


@pytest.mark.parametrize("share", [0.35, 0.6, 0.8])
@pytest.mark.parametrize("mode", ["L", "RGB"])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_whose_data_end_before_its_end_marker_is_refused(mode, progressive, share):
    noise = np.random.default_rng(0).integers(0, 60, (256, 256)).astype(np.uint8)
    data = encoded(
        Image.fromarray(to_square(BONE_GREY // 2, 256) + noise).convert(mode), "JPEG", progressive=progressive
    )
    with pytest.raises(ImageError, match="its data end before its pixels"):
        decode(data[: int(len(data) * share)] + b"\xff\xd9")


def test_a_truncated_bmp_is_refused():
    with pytest.raises(ImageError, match="broken or truncated BMP"):
        decode(encoded(BONE_GREY, "BMP")[:-500])


def test_an_orientation_behind_the_pixels_is_applied():
    exif = Image.Exif()
    exif[0x0112] = 6
    data = encoded(BONE_GREY)
    turned = decode(data[:-12] + png_chunk(b"eXIf", exif.tobytes()[6:]) + data[-12:])
    np.testing.assert_array_equal(turned, np.rot90(BONE_GREY, -1))


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_ends_in_black_is_read(progressive):
    grey = to_square(BONE_GREY, 256)
    grey[-64:] = 0
    assert decode(encoded(grey, "JPEG", progressive=progressive))[-32:].max() == 0


@pytest.mark.parametrize("kind", ["TIFF", "BMP"])
@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_tiff_and_bmp_are_read(kind, mode):
    np.testing.assert_allclose(decode(encoded(Image.fromarray(BONE_GREY).convert(mode), kind)), BONE_GREY, atol=1)


@pytest.mark.parametrize("compression", ["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_a_tiff_of_16_bits_equals_the_png(compression):
    found = decode_picture(encoded(BONE_16, "TIFF", compression=compression))
    np.testing.assert_array_equal(found.grey, decode(encoded(BONE_16)))
    assert (found.stored.lowest, found.stored.highest, found.stored.bits) == (BONE_16.min(), BONE_16.max(), 16)


def test_a_tiff_in_which_0_is_white_is_inverted():
    inverted = encoded(65_535 - BONE_16, "TIFF", tiffinfo={262: 0})
    np.testing.assert_allclose(decode(inverted), decode(encoded(BONE_16)), atol=1)


BAD_TIFFS = {
    "several pages": (
        encoded(Image.fromarray(BONE_GREY), "TIFF", save_all=True, append_images=[Image.fromarray(BONE_GREY)]),
        "several pages",
    ),
    "floats": (encoded(BONE.astype(np.float32), "TIFF"), "F colours|floating-point"),
    "signed": (encoded(BONE.astype(np.int32), "TIFF"), "signed, floating-point or 32-bit"),
    "cut short": (encoded(BONE_GREY, "TIFF")[:2000], "."),
}


@pytest.mark.parametrize("name", BAD_TIFFS)
def test_tiffs_that_would_be_misread_are_refused(name):
    data, reason = BAD_TIFFS[name]
    with pytest.raises(ImageError, match=reason):
        decode(data)


def wide_png(channels: list[np.ndarray], colour: int, chunks: bytes = b"") -> bytes:
    pixels = np.stack(channels, axis=2).astype(">u2")
    rows = b"".join(b"\0" + row.tobytes() for row in pixels)
    return png(rows, WIDTH, HEIGHT, bits=16, colour=colour, chunks=chunks)


@pytest.mark.parametrize("colour", [2, 4, 6])
def test_16_bit_channels_keep_their_depth(colour):
    opaque = np.full(BONE.shape, 65_535)
    channels = [BONE] * (1 if colour == 4 else 3) + ([opaque] if colour > 2 else [])
    picture = decode_picture(wide_png(channels, colour), value_range=(0, 4095))
    np.testing.assert_allclose(picture.grey, BONE_GREY, atol=1)
    assert (picture.colour_spread, picture.stored.highest) == (0, BONE.max())


def test_a_transparent_16_bit_colour_is_black_where_all_its_bits_agree():
    colour = int(BONE[30, 20])
    hidden = png_chunk(b"tRNS", struct.pack(">HHH", colour, colour, colour))
    grey = decode(wide_png([BONE] * 3, 2, hidden), value_range=(0, 4095))
    hidden_pixels = np.isin(BONE, colour)
    assert grey[hidden_pixels].max() == 0
    np.testing.assert_allclose(grey[~hidden_pixels], BONE_GREY[~hidden_pixels], atol=1)


def test_transparent_16_bit_pixels_are_black():
    alpha = np.where(np.arange(HEIGHT)[:, None] < 20, 0, 65_535) * np.ones((1, WIDTH), int)
    grey = decode(wide_png([BONE_16, alpha], 4))
    assert grey[:20].max() == 0 < grey[20:].min()


def test_a_truncated_16_bit_colour_png_is_refused():
    rows = b"".join(b"\0" + row.tobytes() for row in np.stack([BONE_16] * 3, axis=2).astype(">u2")[:30])
    with pytest.raises(ImageError, match="broken or truncated PNG"):
        decode(png(rows, WIDTH, HEIGHT, bits=16, colour=2))


def test_a_bad_checksum_of_the_compressed_data_is_no_traceback():
    packed = zlib.compress(b"".join(b"\0" + bytes(WIDTH) for _ in range(HEIGHT)))[:-4] + b"abcd"
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 0, 0, 0, 0))
    data = b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", packed) + png_chunk(b"IEND", b"")
    with pytest.raises(ImageError, match="broken"):
        decode(data)

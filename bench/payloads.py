"""Files and requests that servers are tried with: good pictures in every kind, and the bad ones that people send."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

JSON, CSV = "application/json", "text/csv"
JPEG_SYNTAX = "1.2.840.10008.1.2.4.50"


@dataclass(frozen=True, kw_only=True)
class Bad:
    """A request that must be refused."""

    body: bytes
    words: str
    """That the refusal must hold."""
    kind: str = JSON
    """The Content-Type."""
    reaches_model: bool = True
    """Whether MLflow's server takes it to the model; what it does not, it answers in its own way."""


def encoded(picture: Image.Image | np.ndarray, form: str = "PNG", **options: Any) -> bytes:
    """A picture as a file."""
    buffer = io.BytesIO()
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    image.save(buffer, form, **options)
    return buffer.getvalue()


def wrap_dicom(grey: np.ndarray, *, syntax: str = "1.2.840.10008.1.2.1", **attributes: Any) -> bytes:
    """Grey values, uint8 or uint16 [H, W], as a DICOM file; an attribute of None is left out."""
    from pydicom.dataset import Dataset, FileMetaDataset

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID = "1.2.3"
    dataset.Rows, dataset.Columns = grey.shape
    dataset.BitsAllocated = dataset.BitsStored = 8 * grey.dtype.itemsize
    dataset.HighBit, dataset.SamplesPerPixel, dataset.PixelRepresentation = dataset.BitsStored - 1, 1, 0
    dataset.PhotometricInterpretation = "MONOCHROME2"
    pixels = grey.tobytes()
    dataset.PixelData = pixels + b"\0" * (len(pixels) % 2)
    dataset["PixelData"].VR = "OW" if grey.dtype.itemsize > 1 else "OB"
    for name, value in attributes.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def bomb_png(side: int = 30_000) -> bytes:
    """A whole black picture of one bit a pixel: some 110 kB that unpack to 900 million pixels."""
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    packer = zlib.compressobj(9)
    lines = [packer.compress(bytes(1 + (side + 7) // 8)) for _ in range(side)]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        chunk(kind, body)
        for kind, body in ((b"IHDR", header), (b"IDAT", b"".join(lines) + packer.flush()), (b"IEND", b""))
    )


def chunk(kind: bytes, body: bytes) -> bytes:
    """A PNG's chunk with its checksum."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


@cache
def good_files(side: int = 96) -> dict[str, bytes]:
    """One picture in every wrapping that is read."""
    rng = np.random.default_rng(0)
    coarse = Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8))
    grey = np.asarray(coarse.resize((side, side), Image.Resampling.BICUBIC))
    wide = grey.astype(np.uint16) * 257
    jpeg = encoded(grey, "JPEG", quality=90)
    from pydicom.encaps import encapsulate

    return {
        "png": encoded(grey),
        "png 16 bit": encoded(wide),
        "png palette": encoded(Image.fromarray(grey).convert("P")),
        "png rgba": encoded(Image.fromarray(grey).convert("RGBA")),
        "png one bit": encoded(Image.fromarray(grey).convert("1")),
        "jpeg": jpeg,
        "jpeg colour": encoded(Image.fromarray(grey).convert("RGB"), "JPEG", progressive=True),
        "dicom": wrap_dicom(grey),
        "dicom 12 bit": wrap_dicom(wide >> 4, BitsStored=12, HighBit=11, WindowCenter=2048, WindowWidth=4096),
        "dicom inverted": wrap_dicom(255 - grey, PhotometricInterpretation="MONOCHROME1"),
        "dicom implicit": wrap_dicom(wide, syntax="1.2.840.10008.1.2", RescaleSlope=2, RescaleIntercept=-5),
        "dicom jpeg": wrap_dicom(grey, syntax=JPEG_SYNTAX, PixelData=encapsulate([jpeg])),
    }


@cache
def large_files(side: int = 7000) -> dict[str, bytes]:
    """Pictures near the limit of 50 million pixels, of the kinds that take most memory."""
    from pydicom.encaps import encapsulate

    grey = np.tile(np.arange(250, dtype=np.uint8), (side, side // 250))
    wide = grey.astype(np.uint16) * 16
    frame = encapsulate([encoded(wide, "JPEG2000")])
    bits = {"BitsStored": 12, "HighBit": 11}
    return {
        "png 16 bits": encoded(grey.astype(np.uint16) * 257),
        "png rgba": encoded(np.dstack([grey, grey, grey, np.full_like(grey, 200)])),
        "dicom jpeg 2000": wrap_dicom(wide, syntax="1.2.840.10008.1.2.4.90", PixelData=frame, **bits),
    }


@cache
def bad_files() -> dict[str, tuple[bytes, str]]:
    """Name -> a file that is refused, and words of the reason."""
    from pydicom.dataset import Dataset

    files, grey = good_files(), np.zeros((40, 60), np.uint8)
    still = Image.fromarray(grey)
    sealed: dict[str, Any] = {"PixelData": None, "EncryptedAttributesSequence": [Dataset()]}
    return {
        "not an image": (b"hello, this is no picture", "not a PNG, JPEG or DICOM file"),
        "truncated PNG": (files["png"][:-400], "broken or truncated PNG"),
        "truncated JPEG": (files["jpeg"][:700], "broken or truncated JPEG"),
        "truncated DICOM": (files["dicom"][:-4000], "broken DICOM"),
        "zero bytes": (b"", "zero bytes"),
        "1x1": (encoded(np.zeros((1, 1), np.uint8)), "1 x 1 px is too small"),
        "30,000x30,000": (bomb_png(), "too large"),
        "DICOM of 30,000x30,000": (wrap_dicom(grey, Rows=30_000, Columns=30_000), "30000 x 30000 px is too large"),
        "CMYK": (encoded(Image.new("CMYK", (40, 40)), "JPEG"), "CMYK colours are not read"),
        "animated PNG": (encoded(still, save_all=True, append_images=[Image.new("L", (60, 40), 9)]), "an animated PNG"),
        "GIF": (encoded(still, "GIF"), "a GIF"),
        "text in DICOM clothing": (bytes(128) + b"DICM" + b"just some words " * 20, "DICOM"),
        "encrypted DICOM": (wrap_dicom(grey, **sealed), "encrypted DICOM"),
        "multi-frame DICOM": (wrap_dicom(grey, NumberOfFrames=2), "multi-frame DICOM"),
        "colour DICOM": (wrap_dicom(grey, PhotometricInterpretation="RGB"), "only MONOCHROME1 and MONOCHROME2"),
    }


def text(data: bytes) -> str:
    """Base64 text of a file."""
    return base64.b64encode(data).decode("ascii")


def records(*images: Any, **params: Any) -> bytes:
    """A request's body: one study."""
    rows = [{"image": image, "study": "s"} for image in images]
    return json.dumps({"dataframe_records": rows, **({"params": params} if params else {})}).encode()


@cache
def bad_requests() -> dict[str, Bad]:
    """Name -> a request that is refused with HTTP 400 or, where MLflow's server is not asked, 4xx."""
    good = text(good_files()["png"])
    return {
        **{name: Bad(body=records(text(data)), words=words) for name, (data, words) in bad_files().items()},
        "not base64": Bad(body=records("%%%"), words="row 1: not base64 text"),
        "null": Bad(body=records(None), words="no image"),
        "number": Bad(body=records(7), words="image"),
        "missing column": Bad(body=json.dumps({"dataframe_records": [{"picture": good}]}).encode(), words="image"),
        "empty list": Bad(body=records(), words=""),
        "1,000 rows": Bad(body=records(*["x"] * 1000), words="1000 rows; at most 64"),
        "good and bad rows": Bad(body=records(good, "%", good, ""), words="2 of 4 rows cannot be used"),
        "NaN threshold": Bad(body=records(good, threshold=float("nan")), words="threshold must be"),
        "endless threshold": Bad(body=records(good, threshold=float("inf")), words="threshold must be"),
        "word as threshold": Bad(body=records(good, threshold="high"), words="threshold"),
        "unknown policy": Bad(body=records(good, policy="maybe"), words="policy must be"),
        "number as explain": Bad(body=records(good, explain=7), words="explain"),
        "broken JSON": Bad(body=b'{"dataframe_records": [', words="", reaches_model=False),
        "wrong content type": Bad(body=b"<x/>", words="", kind="application/xml", reaches_model=False),
        "broken CSV": Bad(body=b'image\n"x', words="", kind=CSV, reaches_model=False),
    }

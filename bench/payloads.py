"""Images and request bodies for measurements of the served model."""

from __future__ import annotations

import base64
import io
import json
import struct
import zlib
from collections.abc import Sequence
from functools import cache
from typing import Any, TypedDict

import cv2
import imagecodecs
import numpy as np
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate

JSON, CSV = "application/json", "text/csv"
EXPLICIT, IMPLICIT, DEFLATED = "1.2.840.10008.1.2.1", "1.2.840.10008.1.2", "1.2.840.10008.1.2.1.99"
JPEG_BASELINE, JPEG_LOSSLESS, JPEG_LS, JPEG_2000 = (f"1.2.840.10008.1.2.4.{number}" for number in (50, 70, 80, 90))


class LoadRequest(TypedDict):
    """A request that the clients of `make soak` send again and again."""

    name: str
    body: str
    content_type: str
    reaches_model: bool
    """Whether MLflow's server passes it to the model; how it answers all others itself is not checked."""
    expected: list[float | None] | None
    """Probability of each row; None where the request must be refused."""


def grey_images(n_images: int, size: int) -> np.ndarray:
    """Soft shapes with grain, uint8 [N, S, S]."""
    rng = np.random.default_rng(0)
    coarse = [rng.random((9, 9), np.float32) for _ in range(n_images)]
    soft = [cv2.resize(image, (size, size), interpolation=cv2.INTER_CUBIC) for image in coarse]
    return np.clip(np.stack(soft) * 200 + rng.normal(0, 1.5, (n_images, size, size)), 0, 255).astype(np.uint8)


def encode(image: Image.Image | np.ndarray, file_format: str = "PNG", **options: Any) -> bytes:
    """An image as a file."""
    buffer = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(buffer, file_format, **options)
    return buffer.getvalue()


def encode_dicom(grey: np.ndarray, *, syntax: str = EXPLICIT, **attributes: Any) -> bytes:
    """Grey values, uint8 or uint16 [H, W], as a DICOM file; an attribute of None is removed."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"
    dataset.set_pixel_data(grey, "MONOCHROME2", 8 * grey.dtype.itemsize)
    dataset.file_meta.TransferSyntaxUID = syntax
    for name, value in attributes.items():
        if value is None:
            delattr(dataset, name)
        else:
            setattr(dataset, name, value)
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


@cache
def valid_files(side: int = 96) -> dict[str, bytes]:
    """One image in every readable format."""
    grey = grey_images(1, side)[0]
    image, wide, jpeg = Image.fromarray(grey), grey.astype(np.uint16) * 257, encode(grey, "JPEG", quality=90)
    lossless = imagecodecs.jpeg8_encode(wide, lossless=True, bitspersample=16)
    return {
        "png": encode(grey),
        "png 16 bit": encode(wide),
        "png palette": encode(image.convert("P")),
        "png rgba": encode(image.convert("RGBA")),
        "png one bit": encode(image.convert("1")),
        "jpeg": jpeg,
        "jpeg colour": encode(image.convert("RGB"), "JPEG", progressive=True),
        "dicom": encode_dicom(grey),
        "dicom 12 bit": encode_dicom(wide >> 4, BitsStored=12, HighBit=11, WindowCenter=2048, WindowWidth=4096),
        "dicom inverted": encode_dicom(255 - grey, PhotometricInterpretation="MONOCHROME1"),
        "dicom implicit": encode_dicom(wide, syntax=IMPLICIT, RescaleSlope=2, RescaleIntercept=-5),
        "dicom jpeg": encode_dicom(grey, syntax=JPEG_BASELINE, PixelData=encapsulate([jpeg])),
        "dicom lossless": encode_dicom(wide, syntax=JPEG_LOSSLESS, PixelData=encapsulate([lossless])),
        "dicom ls": encode_dicom(grey, syntax=JPEG_LS, PixelData=encapsulate([imagecodecs.jpegls_encode(grey)])),
        "dicom deflated": encode_dicom(grey, syntax=DEFLATED),
        "dicom without preamble": encode_dicom(grey)[132:],
        "tiff": encode(grey, "TIFF", compression="tiff_lzw"),
        "tiff 16 bit": encode(wide, "TIFF"),
        "bmp": encode(grey, "BMP"),
    }


def large_files(side: int = 7000) -> dict[str, bytes]:
    """Images near the limit of 50 million pixels, in the formats that take most memory."""
    grey = np.tile(np.arange(250, dtype=np.uint8), (side, side // 250))
    wide = grey.astype(np.uint16) * 16
    frame = encapsulate([encode(wide, "JPEG2000")])
    return {
        "large png 16 bit": encode(grey.astype(np.uint16) * 257),
        "large png rgba": encode(np.dstack([grey, grey, grey, np.full_like(grey, 200)])),
        "large dicom jpeg 2000": encode_dicom(wide, syntax=JPEG_2000, PixelData=frame, BitsStored=12, HighBit=11),
    }


def invalid_files() -> dict[str, bytes]:
    """Files that are refused."""
    files, grey = valid_files(), np.zeros((40, 60), np.uint8)
    header = b"IHDR" + struct.pack(">II", 30_000, 30_000) + files["png"][24:29]
    checksum = struct.pack(">I", zlib.crc32(header))
    encrypted: dict[str, Any] = {"PixelData": None, "EncryptedAttributesSequence": [Dataset()]}
    return {
        "not an image": b"hello, this is not an image",
        "truncated png": files["png"][:-400],
        "truncated jpeg": files["jpeg"][:700],
        "truncated dicom": files["dicom"][:-4000],
        "empty file": b"",
        "1 x 1 px": encode(np.zeros((1, 1), np.uint8)),
        "png of 30,000 x 30,000 px": files["png"][:12] + header + checksum + files["png"][33:],
        "gif": encode(grey, "GIF"),
        "cmyk jpeg": encode(Image.new("CMYK", (40, 40)), "JPEG"),
        "encrypted dicom": encode_dicom(grey, **encrypted),
        "multi-frame dicom": encode_dicom(grey, NumberOfFrames=2),
    }


def base64_text(data: bytes) -> str:
    """A file as it is sent."""
    return base64.b64encode(data).decode("ascii")


def request_body(images: Sequence[bytes | str | None], **params: Any) -> bytes:
    """The JSON body of a request for one study; text is sent as it is, bytes as base64."""
    texts = [base64_text(image) if isinstance(image, bytes) else image for image in images]
    rows = [{"image": text, "study": "s"} for text in texts]
    return json.dumps({"dataframe_records": rows, "params": params}).encode()


def read_probabilities(answer: dict[str, Any]) -> list[float | None] | None:
    """Probability of each row, None for a row with an error; None if a row has neither."""
    rows = answer["predictions"]
    complete = all(row.get("error") or 0 <= row["probability"] <= 1 for row in rows)  # false for NaN
    return [row["probability"] for row in rows] if complete else None


def valid_requests() -> list[LoadRequest]:
    """Studies in every format, with and without heat maps, and the largest images; their answers are still to come."""
    files = valid_files(400)
    several = list(files.values())
    bodies = {
        **{name: request_body([data]) for name, data in (files | large_files()).items()},
        "a study of every format": request_body(several),
        "heat maps": request_body(several[:3], explain=True),
        "one of two rows": request_body([several[0], "%"], policy="partial"),
    }
    text = base64_text(several[0])
    csv = f"image,study\n{text},1\n{text},1\n".encode()
    return [*(_request(name, body) for name, body in bodies.items()), _request("csv", csv, CSV)]


def invalid_requests() -> list[LoadRequest]:
    """Common mistakes."""
    png = valid_files()["png"]
    bodies = {
        **{name: request_body([data]) for name, data in invalid_files().items()},
        "not base64": request_body(["%%%"]),
        "null": request_body([None]),
        "no rows": request_body([]),
        "1,000 rows": request_body(["x"] * 1000),
        "valid and invalid rows": request_body([png, "%", png, ""]),
        "NaN as threshold": request_body([png], threshold=float("nan")),
        "text as threshold": request_body([png], threshold="high"),
        "unknown policy": request_body([png], policy="maybe"),
    }
    unparsable = (
        ("truncated json", b'{"dataframe_records": [', JSON),
        ("xml", b"<x/>", "application/xml"),
        ("unclosed csv", b'image\n"x', CSV),
    )
    return [
        *(_request(name, body) for name, body in bodies.items()),
        *(_request(name, body, content_type, reaches_model=False) for name, body, content_type in unparsable),
    ]


def _request(name: str, body: bytes, content_type: str = JSON, *, reaches_model: bool = True) -> LoadRequest:
    return LoadRequest(
        name=name, body=body.decode(), content_type=content_type, reaches_model=reaches_model, expected=None
    )

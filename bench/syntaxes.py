"""Which DICOM files are read, and how far from DCMTK's renderer are their grey values?

    python -m bench.syntaxes [--markdown FILE]      (under a minute; needs Debian's package dcmtk)

Two tables, as in docs/data.md: a synthetic bone in every transfer syntax, photometric interpretation and depth, written
by DCMTK's own programs (JPEG 2000, which DCMTK does not have, by OpenJPEG); and the test files that come with pydicom.
A difference is the largest one of any pixel, in grey levels of 255. DCMTK shows the first window or lookup table of a
file, as we do, without overlays; it rounds down where we round to the nearest level.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from bench.payloads import encode_dicom
from muralab.data.images.decode import decode
from muralab.errors import ImageError

RENDERERS = ("dcm2img", "dcmj2pnm", "dcml2pnm")
"""DCMTK's programs: newer versions have the first one alone, older ones the others, of which the last reads JPEG-LS."""
DEPTHS = {"8": 8, "10 of 16": 10, "12 of 16": 12, "16": 16, "12 of 16, signed": -12, "16, signed": -16}
"""Title -> bits stored, negative for signed values."""
SYNTAXES: dict[str, Sequence[str]] = {
    "implicit little endian": ("dcmconv", "+ti"),
    "explicit little endian": ("dcmconv", "+te"),
    "explicit big endian": ("dcmconv", "+tb"),
    "deflated": ("dcmconv", "+td"),
    "data set without preamble": ("dcmconv", "-F"),
    "RLE": ("dcmcrle",),
    "JPEG baseline (.50)": ("dcmcjpeg", "+eb", "+q", "95"),
    "JPEG extended (.51)": ("dcmcjpeg", "+ee", "+q", "95"),
    "JPEG lossless (.57)": ("dcmcjpeg", "+el", "+sv", "6"),
    "JPEG lossless, first order (.70)": ("dcmcjpeg", "+e1"),
    "JPEG-LS (.80)": ("dcmcjpls", "+el"),
    "JPEG-LS, near lossless (.81)": ("dcmcjpls", "+en", "+md", "2"),
    "JPEG 2000, lossless (.90)": (),
}
JPEG_2000 = "1.2.840.10008.1.2.4.90"
PHOTOMETRIC = ("MONOCHROME1", "MONOCHROME2")


@dataclass(frozen=True)
class Outcome:
    """What became of one file."""

    reason: str = ""
    """Why it is refused; empty if it is read."""
    difference: int | None = None
    """Largest difference to DCMTK; None where DCMTK cannot show the file."""

    def __str__(self) -> str:
        if self.reason:
            return "refused"
        return "read, DCMTK cannot" if self.difference is None else str(self.difference)


def build_bone(bits: int) -> np.ndarray:
    """A soft shaft that uses the full range, [96, 80]; negative bits give signed values."""
    rows, columns = np.mgrid[0:96, 0:80]
    shaft = np.exp(-(((columns - 40 - 6 * np.sin(rows / 12)) / 14) ** 2)) * 0.8 + rows / 480
    values = np.rint(shaft / shaft.max() * (2 ** abs(bits) - 1)).astype(np.int32)
    if bits < 0:
        return np.asarray(values - 2 ** (-bits - 1), np.int16)
    return np.asarray(values, np.uint8 if bits == 8 else np.uint16)


def write_variant(folder: Path, syntax: str, photometric: str, bits: int) -> Path | None:
    """The bone in a syntax; None where DCMTK does not write it."""
    stored, pixels = abs(bits), build_bone(bits)
    header: dict[str, Any] = {"PhotometricInterpretation": photometric, "BitsStored": stored, "HighBit": stored - 1}
    plain, file = folder / "plain.dcm", folder / "variant.dcm"
    file.unlink(missing_ok=True)
    plain.write_bytes(encode_dicom(pixels, **header))
    if not SYNTAXES[syntax]:
        file.write_bytes(encode_dicom(pixels, syntax=JPEG_2000, PixelData=_jpeg_2000(pixels, stored), **header))
        return file
    done = subprocess.run([*SYNTAXES[syntax], plain, file], capture_output=True, check=False)
    return file if done.returncode == 0 and file.is_file() else None


def _jpeg_2000(pixels: np.ndarray, bits: int) -> bytes:
    import imagecodecs
    from pydicom.encaps import encapsulate

    return bytes(encapsulate([imagecodecs.jpeg2k_encode(pixels, level=0, codecformat="j2k", bitspersample=bits)]))


def render(file: Path) -> np.ndarray | None:
    """What DCMTK shows of a file, int [H, W]: its first table or window, if it has one."""
    target = file.with_suffix(".pgm")
    for program in filter(shutil.which, RENDERERS):
        raw = "--write-raw-pnm" if program == "dcm2img" else "+opb"
        for options in (["+Wl", "1"], ["+Wi", "1"], []):
            target.unlink(missing_ok=True)
            done = subprocess.run([program, *options, "-O", raw, file, target], capture_output=True, check=False)
            if done.returncode == 0 and target.is_file():
                with Image.open(target) as image:
                    return np.asarray(image.convert("L")).astype(int)
    return None


def compare(file: Path, reference: Path | None = None) -> Outcome:
    """Decode a file, and compare it with what DCMTK shows of it, or of a reference."""
    try:
        grey = decode(file.read_bytes())
    except ImageError as error:
        return Outcome(reason=str(error))
    shown = render(reference or file)
    if shown is None or shown.shape != grey.shape:
        return Outcome()
    return Outcome(difference=int(np.abs(shown - grey).max()))


def variants(folder: Path) -> Iterator[list[str]]:
    """Rows of the table of syntaxes."""
    for syntax in SYNTAXES:
        for photometric in PHOTOMETRIC:
            cells = []
            for bits in DEPTHS.values():
                file = write_variant(folder, syntax, photometric, bits)
                raw = folder / "plain.dcm"
                cells.append("not written" if file is None else str(compare(file, None if SYNTAXES[syntax] else raw)))
            yield [syntax, photometric, *cells]


def test_files() -> Iterator[list[str]]:
    """Rows of the table of pydicom's own files that hold pixels; those refused for one reason share a row."""
    import pydicom

    refused: Counter[str] = Counter()
    for name in sorted(Path(pydicom.__file__).parent.glob("data/test_files/*.dcm")):  # its list would download more
        header = pydicom.dcmread(name, force=True, stop_before_pixels=True)
        if "Rows" not in header:
            continue
        with tempfile.TemporaryDirectory() as folder:
            outcome = compare(Path(shutil.copy(name, folder)))
        if outcome.reason:
            refused[re.sub(r"with [\w ]+ colours|\(\d+ frames\)|\d+ x \d+ px|\(.*", _kind, outcome.reason)] += 1
            continue
        syntax = header.file_meta.get("TransferSyntaxUID")
        depth = f"{header.BitsStored} of {header.BitsAllocated}{', signed' * header.get('PixelRepresentation', 0)}"
        kind = str(header.get("PhotometricInterpretation", ""))
        yield [name.name, syntax.name if syntax else "none", kind, depth, str(outcome)]
    for reason, count in refused.most_common():
        yield [f"{count} file{'s' * (count > 1)}", "", "", "", f"refused: {reason.strip()}"]


def _kind(found: re.Match[str]) -> str:
    """What differs between files that are refused for one reason, without it."""
    text = found.group(0)
    return "with colours" if "colours" in text else "an image" if text.endswith("px") else ""


def as_markdown(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table in Markdown."""
    lines = [headings, ["---"] * len(headings), *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--markdown", type=Path, help="also write the tables to this file")
    given = parser.parse_args()
    if not any(map(shutil.which, RENDERERS)):
        sys.exit("DCMTK is not installed: apt-get install dcmtk")
    with tempfile.TemporaryDirectory() as folder:
        first = as_markdown(("transfer syntax", "photometric", *DEPTHS), list(variants(Path(folder))))
    second = as_markdown(("file", "transfer syntax", "photometric", "bits", "difference"), list(test_files()))
    text = f"{first}\n\n{second}\n"
    if given.markdown:
        given.markdown.write_text(text, encoding="utf-8")
    print(text)


if __name__ == "__main__":
    main()

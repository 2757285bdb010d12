"""DICOM files against DCMTK's renderer, where it is installed (Debian's package dcmtk): within one grey level."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import numpy as np
import pytest

from muralab.data.images.decode import decode
from tests.fixtures.pictures import BONE, bone_dicom, lookup_table

RENDERERS = [name for name in ("dcm2img", "dcmj2pnm", "dcml2pnm") if shutil.which(name)]
"""The first one reads every compression, the last one JPEG-LS."""
pytestmark = pytest.mark.skipif(not RENDERERS, reason="DCMTK is not installed")

SIGNED = BONE.astype(np.int16) - 2048
WINDOW = {"WindowCenter": 1600, "WindowWidth": 1800}
HEADERS = {
    "no window": (bone_dicom(), []),
    "window": (bone_dicom(**WINDOW), ["+Wi", "1"]),
    "inverted": (bone_dicom(PhotometricInterpretation="MONOCHROME1", **WINDOW), ["+Wi", "1"]),
    "sigmoid": (bone_dicom(VOILUTFunction="SIGMOID", **WINDOW), ["+Wi", "1"]),
    "shape": (bone_dicom(PresentationLUTShape="INVERSE", **WINDOW), ["+Wi", "1"]),
    "signed": (bone_dicom(SIGNED, WindowCenter=-400, WindowWidth=1800), ["+Wi", "1"]),
    "signed, no window": (bone_dicom(SIGNED), []),
    "rescale": (bone_dicom(RescaleSlope=2, RescaleIntercept=-1000, WindowCenter=2200, WindowWidth=3600), ["+Wi", "1"]),
    "slope 0": (bone_dicom(RescaleSlope=0, RescaleIntercept=0, **WINDOW), ["+Wi", "1"]),
    "table": (bone_dicom(VOILUTSequence=[lookup_table([4096, 0, 12], list(range(4095, -1, -1)))]), ["+Wl", "1"]),
}
PROGRAMS = {
    "JPEG lossless, first order": ["dcmcjpeg", "+e1"],
    "JPEG lossless": ["dcmcjpeg", "+el", "+sv", "6"],
    "JPEG extended": ["dcmcjpeg", "+ee", "+q", "98"],
    "JPEG-LS": ["dcmcjpls", "+el"],
    "JPEG-LS, near": ["dcmcjpls", "+en", "+md", "2"],
    "run lengths": ["dcmcrle"],
    "implicit": ["dcmconv", "+ti"],
    "big endian": ["dcmconv", "+tb"],
    "deflated": ["dcmconv", "+td"],
    "data set alone": ["dcmconv", "-F"],
}


def rendered(file: Path, options: list[str]) -> np.ndarray:
    """What DCMTK shows, uint8 [H, W]."""
    from PIL import Image

    target = file.with_suffix(".pgm")
    for program in RENDERERS:
        raw = "--write-raw-pnm" if program == "dcm2img" else "+opb"
        done = subprocess.run([program, *options, raw, file, target], capture_output=True, check=False)
        if done.returncode == 0:
            with Image.open(target) as image:
                return np.asarray(image.convert("L"))
    raise AssertionError(done.stderr.decode())


@pytest.mark.parametrize("name", HEADERS)
def test_a_header_is_applied_as_dcmtk_does(name, tmp_path):
    data, options = HEADERS[name]
    (tmp_path / "a.dcm").write_bytes(data)
    np.testing.assert_allclose(decode(data), rendered(tmp_path / "a.dcm", options).astype(int), atol=1)


@pytest.mark.parametrize("name", PROGRAMS)
def test_dcmtks_own_files_are_read_as_dcmtk_does(name, tmp_path):
    plain, file = tmp_path / "plain.dcm", tmp_path / "a.dcm"
    plain.write_bytes(bone_dicom(**WINDOW))
    subprocess.run([*PROGRAMS[name], plain, file], check=True)
    options = ["+Wi", "1", *(["-f"] if name == "data set alone" else [])]
    np.testing.assert_allclose(decode(file.read_bytes()), rendered(file, options).astype(int), atol=1)

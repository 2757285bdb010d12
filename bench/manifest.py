"""How long does it take to describe the 40,000 pictures of a PACS export, and to index as many of a MURA tree?

    python -m bench.manifest            (two minutes; --full writes larger files)

The export has one folder per series and headers of about 90 elements; its pixels are few, because they are not read.
"""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset, FileMetaDataset

from bench.common import Options, Row, run
from bench.data import write_tree
from muralab.data.manifest_builder import build_manifest
from muralab.data.mura import read_tree
from muralab.data.scan import scan_folder

N_PICTURES = 40_000
N_INDEXED = 10_000
MANIFEST_LIMIT_S = 120.0
INDEX_LIMIT_S = 2.0
VIEWS = 3
NUMBER = "0" * 9
"""Stands for a number of nine digits in the template."""


def build_template(side: int) -> bytes:
    """A radiograph with a long header, in which `NUMBER` is replaced: a study, then an instance."""
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    dataset.set_pixel_data(np.zeros((side, side), np.uint16), "MONOCHROME2", 12)
    dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2.1"
    dataset.SpecificCharacterSet, dataset.Modality = "ISO_IR 100", "DX"
    dataset.PatientID, dataset.PatientName = f"P1{NUMBER}", "Synthetic^Patient"
    dataset.StudyInstanceUID, dataset.SOPInstanceUID = f"1.2.3.1{NUMBER}", f"1.2.3.2{NUMBER}"
    dataset.SeriesInstanceUID, dataset.AccessionNumber = f"1.2.3.3{NUMBER}", f"A1{NUMBER}"
    dataset.StudyDate, dataset.PatientAge, dataset.PatientSex = "20200101", "045Y", "F"
    dataset.BodyPartExamined, dataset.ViewPosition, dataset.ImageLaterality = "WRIST", "PA", "L"
    dataset.Manufacturer, dataset.ManufacturerModelName = "Maker", "Model"
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "T-8A420", "SRT", "Wrist"
    dataset.AnatomicRegionSequence = [code]
    block = dataset.private_block(0x0019, "BENCH", create=True)
    for element in range(60):
        block.add_new(element, "LO", f"value {element}")
    buffer = io.BytesIO()
    dataset.save_as(buffer, enforce_file_format=True)
    return buffer.getvalue()


def fill(template: bytes, number: int) -> bytes:
    """The template of one picture; `VIEWS` of them are one study of one patient."""
    study, instance = f"{number // VIEWS:09d}".encode(), f"{number:09d}".encode()
    blank = NUMBER.encode()
    for prefix, value in (
        (b"P1", study),
        (b"1.2.3.1", study),
        (b"A1", study),
        (b"1.2.3.2", instance),
        (b"1.2.3.3", instance),
    ):
        template = template.replace(prefix + blank, prefix + value)
    return template


def write_export(root: Path, n_pictures: int, side: int) -> None:
    """PATIENT/STUDY/SERIES/IMAGE folders of pictures without suffix."""
    template = build_template(side)
    for number in range(n_pictures):
        folder = root / f"PA{number // VIEWS:06d}" / "ST000000" / f"SE{number % VIEWS:06d}"
        folder.mkdir(parents=True)
        (folder / "IM000000").write_bytes(fill(template, number))


def measure_manifest(folder: Path, side: int) -> Row:
    """Seconds to walk the export, read its headers and build the table."""
    write_export(folder / "export", N_PICTURES, side)
    started, used = time.perf_counter(), time.process_time()
    scan = scan_folder(folder / "export")
    draft = build_manifest(scan, folder=folder / "export", base=folder)
    seconds, cpu_s = time.perf_counter() - started, time.process_time() - used
    if len(draft.table) != N_PICTURES or draft.table["study"].nunique() != -(-N_PICTURES // VIEWS):
        raise RuntimeError(f"the manifest has {len(draft.table)} rows")
    return Row(
        what=f"manifest: an export of {N_PICTURES:,} DICOM files, from walk to table",
        ours=f"{seconds:.0f} s",
        theirs=f"limit {MANIFEST_LIMIT_S:.0f} s",
        ratio=seconds / MANIFEST_LIMIT_S,
        at_most=1.0,
        note=f"{cpu_s:.0f} s of processor time, {1000 * cpu_s / N_PICTURES:.2f} ms per file",
    )


def measure_index(folder: Path) -> Iterator[Row]:
    """Seconds to index a MURA tree, with its lists and without, scaled to as many pictures."""
    root = folder / "MURA-v1.1"
    write_tree(root, N_INDEXED, side=32)
    for kind in ("with its lists", "without lists"):
        started, used = time.perf_counter(), time.process_time()
        scale = N_PICTURES / len(read_tree(root, "wrist").table)
        seconds, cpu_s = (time.perf_counter() - started) * scale, (time.process_time() - used) * scale
        yield Row(
            what=f"index: a MURA tree of {N_PICTURES:,} pictures {kind} (scaled from {N_INDEXED:,})",
            ours=f"{seconds:.2f} s",
            theirs=f"limit {INDEX_LIMIT_S:.0f} s",
            ratio=seconds / INDEX_LIMIT_S,
            at_most=1.0,
            note=f"{cpu_s:.2f} s of processor time",
        )
        for file in root.glob("*.csv"):
            file.unlink()


def measure(options: Options) -> list[Row]:
    """Write both and measure them once."""
    with tempfile.TemporaryDirectory() as folder:
        rows = list(measure_index(Path(folder)))
        return [measure_manifest(Path(folder), 256 if options.full else 32), *rows]


if __name__ == "__main__":
    run(measure, __doc__)

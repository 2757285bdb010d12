"""No name of a patient or study is in the store, the artifacts, the output or the plans of any command."""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path

import pandas as pd
import pydicom
import pytest
from pydicom.dataset import FileMetaDataset
from pydicom.uid import DigitalXRayImageStorageForPresentation, ExplicitVRLittleEndian

from muralab.tracking import Store
from tests.cli.conftest import SMALL, Muralab, Outcome, all_runs
from tests.conftest import write_easy_tree

PLANTED = "mustermann"
QUICK = {"recipe": SMALL, "epochs": "1+1", "cpus_per_trial": 1}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The easy tree, whose patients have a name; one file is broken, one picture is of two patients."""
    root = write_easy_tree(tmp_path / "data" / "MURA-v1.1")
    for folder in sorted(root.glob("*/*/patient*")):
        folder.rename(folder.with_name(f"{PLANTED}_{folder.name[-3:]}"))
    images = sorted(root.glob("*/*/*/*/image1.png"))
    images[3].write_bytes(b"not a picture")
    shutil.copy(images[0], images[10])
    return root


def leaks(folder: Path) -> list[str]:
    """Files below a folder that hold the planted name in their content or path; keys and names stay local."""
    files = [path for path in folder.rglob("*") if path.is_file() and "names" not in path.parts]
    found = [path for path in files if PLANTED.encode() in path.read_bytes().lower() or PLANTED in str(path)]
    return [str(path.relative_to(folder)) for path in found]


def check(outcome: Outcome, tmp_path: Path) -> None:
    assert outcome.code == 0, outcome
    assert PLANTED not in (outcome.out + outcome.err).lower()
    assert leaks(tmp_path / "mlruns") == []
    text = "\n".join(sqlite3.connect(tmp_path / "mlflow.db").iterdump())
    assert PLANTED not in text.lower()


def test_no_command_logs_or_prints_a_name(muralab: Muralab, store: Store, tree: Path, tmp_path: Path) -> None:
    check(muralab("explore", data=tree), tmp_path)
    check(muralab("train", data=tree, pictures="true", **QUICK), tmp_path)
    run = next(run for run in all_runs(store) if run.kind == "train")
    check(muralab("evaluate", model=run.run_id), tmp_path)
    check(muralab("report", runs=run.run_id, pictures="true"), tmp_path)
    check(muralab("promote", run=run.run_id), tmp_path)
    names = pd.concat(
        pd.read_csv(file) for file in (tmp_path / "cache" / "muralab" / "names").glob("*-????????????.csv")
    )
    assert set(run.predictions["test"]["patient"]) <= set(names["patient"])
    assert names["real_patient"].str.startswith(PLANTED).all()


def write_dicom(path: Path, burned_in: str) -> None:
    image = pydicom.Dataset()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    image.SOPClassUID = image.file_meta.MediaStorageSOPClassUID = DigitalXRayImageStorageForPresentation
    image.SOPInstanceUID = image.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"
    image.Rows, image.Columns, image.BitsAllocated, image.BitsStored, image.HighBit = 40, 48, 8, 8, 7
    image.SamplesPerPixel, image.PixelRepresentation, image.PhotometricInterpretation = 1, 0, "MONOCHROME2"
    image.BurnedInAnnotation, image.PixelData = burned_in, bytes(range(240)) * 8
    image.save_as(path, enforce_file_format=True)


@pytest.mark.parametrize(("command", "values"), [("explore", {}), ("train", QUICK)])
def test_pictures_with_names_in_their_pixels_are_refused(
    muralab: Muralab, store: Store, tree: Path, command: str, values: dict[str, object]
) -> None:
    write_dicom(next(tree.glob("train/*/*/*")) / "image9.dcm", "YES")
    outcome = muralab(command, data=tree, pictures="true", **values)
    assert outcome.code == 2
    assert "pictures=true: 1 images, such as i-" in outcome.complaint
    assert "are marked BurnedInAnnotation=YES" in outcome.complaint


def test_pictures_that_say_no_are_shown(muralab: Muralab, store: Store, tree: Path) -> None:
    write_dicom(next(tree.glob("train/*/*/*")) / "image9.dcm", "NO")
    assert muralab("explore", data=tree, pictures="true").code == 0


def test_a_run_of_an_earlier_version_is_reported_with_codes(
    muralab: Muralab, store: Store, tree: Path, tmp_path: Path
) -> None:
    assert muralab("train", data=tree, **QUICK).code == 0
    (run,) = all_runs(store)
    as_of_an_earlier_version(store, run.run_id, tmp_path)
    check_page(muralab("report", runs=run.run_id, out=tmp_path / "page.html"), tmp_path)


def as_of_an_earlier_version(store: Store, run_id: str, tmp_path: Path) -> None:
    """Log a run's tables again, with names and without the tag that says that they are codes."""
    store.client.delete_tag(run_id, "muralab.names")
    names = pd.concat(pd.read_csv(file) for file in (tmp_path / "cache" / "muralab" / "names").glob("*.csv"))
    for path in ("predictions/test.csv", "predictions/validation.csv"):
        local = Path(store.client.download_artifacts(run_id, path, str(tmp_path)))
        table = pd.read_csv(local)
        for column in ("image", "study", "patient"):
            table[column] = table[column].map(dict(zip(names[column], names[f"real_{column}"])))
        store.client.log_text(run_id, table.to_csv(index=False), path)


def check_page(outcome: Outcome, tmp_path: Path) -> None:
    assert outcome.code == 0, outcome
    assert PLANTED not in (tmp_path / "page.html").read_text(encoding="utf-8").lower()

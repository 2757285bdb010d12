"""DICOM objects of the synthetic data set, as devices of several makers would write them.

Nothing in a header depends on the label: device, age, sex, side and date are drawn per patient or study.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from muralab.demo.plan import StudyPlan

_DX, _CR = "1.2.840.10008.5.1.4.1.1.1.1", "1.2.840.10008.5.1.4.1.1.1"
_PRESENTATION, _REPORT = "1.2.840.10008.5.1.4.1.1.11.1", "1.2.840.10008.5.1.4.1.1.88.67"
_IMPLICIT, _EXPLICIT = "1.2.840.10008.1.2", "1.2.840.10008.1.2.1"
_VIEWS = ("PA", "OBL", "LAT")
"""ViewPosition of each of `PROJECTIONS`."""
_STEP = 16
"""Stored values of 12 bits per grey value of 8."""
_FIRST_DAY = np.datetime64("2019-01-01")
_N_DAYS = 1_800


@dataclass(frozen=True, kw_only=True)
class _Device:
    maker: str
    model: str
    modality: str
    sop_class: str
    syntax: str
    bits: int
    inverted: bool = False
    """Whether low values are bright (MONOCHROME1)."""


_DEVICES = (
    _Device(maker="Synthetic Imaging", model="XR-100", modality="DX", sop_class=_DX, syntax=_EXPLICIT, bits=12),
    _Device(
        maker="Synthetic Imaging",
        model="XR-200",
        modality="DX",
        sop_class=_DX,
        syntax=_IMPLICIT,
        bits=12,
        inverted=True,
    ),
    _Device(maker="Phantom Medical", model="CR-7", modality="CR", sop_class=_CR, syntax=_EXPLICIT, bits=8),
)


@dataclass(frozen=True, kw_only=True)
class StudyFacts:
    """What the headers of one study say."""

    patient: str
    study: str
    """StudyInstanceUID."""
    accession: str
    age: int
    """Of the patient, in years."""
    sex: str
    """F or M."""
    device: str
    """Maker and model."""
    label: int


def study_facts(study: StudyPlan, seed: int) -> StudyFacts:
    """The identifiers of a study."""
    patient, number = _numbers(study)
    person, device = np.random.default_rng([seed, patient]), _device(study, seed)
    return StudyFacts(
        patient=f"SYN{patient:05d}",
        study=_uid(seed, patient, number),
        accession=f"A{patient:05d}{number}",
        age=int(person.integers(18, 90)),
        sex=str(person.choice(["F", "M"])),
        device=f"{device.maker} {device.model}",
        label=study.label,
    )


def build_picture(study: StudyPlan, png: bytes, *, view: int, seed: int) -> Any:
    """One view as a DICOM image, in a series of its own.

    Args:
        study: that the view belongs to.
        png: of the view, 8 bits.
        view: its number within the study, from 0.
        seed: of the data set.
    """
    device = _device(study, seed)
    dataset = _build_object(study, seed, series=view + 1, modality=device.modality, sop_class=device.sop_class)
    dataset.Manufacturer, dataset.ManufacturerModelName = device.maker, device.model
    dataset.BodyPartExamined = study.part.upper()
    dataset.ViewPosition = _VIEWS[(study.first_view + view) % len(_VIEWS)]
    dataset.ImageLaterality = str(_rng(study, seed, "side").choice(["L", "R"]))
    dataset.BurnedInAnnotation = "NO"
    grey = cv2.imdecode(np.frombuffer(png, np.uint8), cv2.IMREAD_GRAYSCALE)
    _add_pixels(dataset, np.asarray(grey, np.uint8), device)
    return dataset


def build_presentation(study: StudyPlan, seed: int) -> Any:
    """A presentation state: how to show the study's pictures, without pixels of its own."""
    dataset = _build_object(study, seed, series=90, modality="PR", sop_class=_PRESENTATION)
    dataset.PresentationCreationDate, dataset.PresentationCreationTime = dataset.StudyDate, "130000"
    dataset.ContentLabel = "DEFAULT"
    return dataset


def build_report(study: StudyPlan, seed: int) -> Any:
    """A dose report: text, without pixels."""
    from pydicom.dataset import Dataset

    dataset = _build_object(study, seed, series=91, modality="SR", sop_class=_REPORT)
    dataset.ContentDate, dataset.ContentTime = dataset.StudyDate, "130000"
    dataset.CompletionFlag, dataset.VerificationFlag = "COMPLETE", "UNVERIFIED"
    title = Dataset()
    title.CodeValue, title.CodingSchemeDesignator = "113701", "DCM"
    title.CodeMeaning = "X-Ray Radiation Dose Report"
    dataset.ConceptNameCodeSequence = [title]
    return dataset


def _build_object(study: StudyPlan, seed: int, *, series: int, modality: str, sop_class: str) -> Any:
    """What every object of a study has."""
    from pydicom.dataset import Dataset, FileMetaDataset

    facts, (patient, number) = study_facts(study, seed), _numbers(study)
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = _EXPLICIT
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.PatientID, dataset.PatientName = facts.patient, f"SYNTHETIC^{patient:05d}"
    dataset.PatientAge, dataset.PatientSex = f"{facts.age:03d}Y", facts.sex
    dataset.StudyInstanceUID, dataset.StudyID = facts.study, str(number)
    dataset.SeriesInstanceUID, dataset.SeriesNumber = _uid(seed, patient, number, series), series
    dataset.SOPClassUID, dataset.SOPInstanceUID = sop_class, _uid(seed, patient, number, series, 1)
    dataset.InstanceNumber = 1
    dataset.Modality = modality
    dataset.AccessionNumber = facts.accession
    day = _FIRST_DAY + int(_rng(study, seed, "day").integers(_N_DAYS))
    dataset.StudyDate, dataset.StudyTime = str(day).replace("-", ""), "120000"
    dataset.InstitutionName = "Synthetic Hospital"
    dataset.StudyDescription = f"{study.part.title()}, synthetic"
    return dataset


def _add_pixels(dataset: Any, grey: NDArray[np.uint8], device: _Device) -> None:
    """Store grey values as a device does; shown as its header says, they are the same again."""
    kind = "MONOCHROME1" if device.inverted else "MONOCHROME2"
    shown = 255 - grey if device.inverted else grey
    stored = shown if device.bits == 8 else shown.astype(np.uint16) * _STEP
    dataset.set_pixel_data(stored, kind, device.bits, generate_instance_uid=False)
    dataset.file_meta.TransferSyntaxUID = device.syntax
    if device.bits > 8:
        dataset.WindowCenter, dataset.WindowWidth = 255 * _STEP / 2 + 0.5, 255 * _STEP + 1


def _device(study: StudyPlan, seed: int) -> _Device:
    return _DEVICES[int(_rng(study, seed, "device").choice(len(_DEVICES), p=(0.5, 0.2, 0.3)))]


def _numbers(study: StudyPlan) -> tuple[int, int]:
    """Number of the patient, and of the study within the patient."""
    patient, name = study.folder.split("/")[2:4]
    return int(patient.removeprefix("patient")), int(name.removeprefix("study").partition("_")[0])


def _rng(study: StudyPlan, seed: int, purpose: str) -> np.random.Generator:
    return np.random.default_rng([seed, *_numbers(study), *purpose.encode()])


def _uid(*numbers: int) -> str:
    """A UID of the form that needs no registered root: 2.25 and a number of 128 bits."""
    digest = hashlib.sha256(f"muralab demo {numbers}".encode()).digest()
    return f"2.25.{int.from_bytes(digest[:16], 'big')}"

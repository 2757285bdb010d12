"""The synthetic data set as an export of a PACS: DICOM files in PATIENT/STUDY/SERIES folders, and a table of labels.

<folder>/export/DICOMDIR
<folder>/export/PT000000/ST000000/SE000000/IM000000     no suffixes; three devices; also reports without pixels
<folder>/labels.csv                                     study, accession, patient, label
<folder>/SYNTHETIC.txt
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from muralab.demo.dataset import draw_views
from muralab.demo.folders import write_folder
from muralab.demo.pacs_objects import build_picture, build_presentation, build_report, study_facts
from muralab.demo.plan import PARTS, PartPlan, StudyPlan, plan_images
from muralab.threads import map_in_threads

EXPORT_NAME, LABELS_NAME = "export", "labels.csv"
_PRESENTATION_EVERY, _REPORT_EVERY = 5, 7
"""Studies that also have an object without pixels."""
_LABEL_WORDS = ("normal", "abnormal")


def write_export(
    folder: Path,
    *,
    seed: int = 0,
    n_images: int | None = None,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
    parts: Sequence[PartPlan] = PARTS,
) -> Path:
    """Write the synthetic data set as a DICOM export, unless it exists, and return the folder of its DICOM files.

    Args:
        folder: created; it holds nothing else.
        seed: of everything drawn.
        n_images: how many pictures; None: as many as the demo tree has.
        workers: drawing threads; None takes one per core.
        progress: called with (studies written, studies in total), in the calling thread.
        parts: the shares of parts and classes.

    Raises:
        DataError: the folder cannot be written, or holds something else.
    """
    studies = plan_images(parts, seed, n_images)

    def write(draft: Path) -> None:
        _write_objects(draft / EXPORT_NAME, studies, seed=seed, workers=workers, progress=progress)
        _write_labels(draft / LABELS_NAME, studies, seed)

    return write_folder(folder, layout="pacs", seed=seed, n_images=n_images, write=write) / EXPORT_NAME


def _write_objects(
    folder: Path,
    studies: Sequence[StudyPlan],
    *,
    seed: int,
    workers: int | None,
    progress: Callable[[int, int], None] | None,
) -> None:
    from pydicom.fileset import FileSet

    def build(numbered_study: tuple[int, StudyPlan]) -> list[Any]:
        return _build_study(*numbered_study, seed)

    files = FileSet()
    with closing(map_in_threads(build, enumerate(studies, start=1), workers=workers, name="muralab-demo")) as built:
        for done, objects in enumerate(built, start=1):
            for one in objects:
                files.add(one)
            if progress is not None:
                progress(done, len(studies))
    folder.mkdir()
    files.write(folder)


def _build_study(number: int, study: StudyPlan, seed: int) -> list[Any]:
    objects = [build_picture(study, png, view=view, seed=seed) for view, png in enumerate(draw_views(study))]
    if number % _PRESENTATION_EVERY == 0:
        objects.append(build_presentation(study, seed))
    if number % _REPORT_EVERY == 0:
        objects.append(build_report(study, seed))
    return objects


def _write_labels(file: Path, studies: Sequence[StudyPlan], seed: int) -> None:
    with file.open("w", encoding="utf-8", newline="") as opened:
        writer = csv.writer(opened)
        writer.writerow(("study", "accession", "patient", "label"))
        for study in studies:
            facts = study_facts(study, seed)
            writer.writerow((facts.study, facts.accession, facts.patient, _LABEL_WORDS[facts.label]))

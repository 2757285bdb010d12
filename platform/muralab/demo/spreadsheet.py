"""Synthetic radiographs of hands as pictures in one folder, and a spreadsheet with a row for each.

<folder>/pictures/000001.png
<folder>/radiographs.csv           file, fracture, patient, study, age, device
<folder>/SYNTHETIC.txt
"""

from __future__ import annotations

import csv
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from muralab.demo.dataset import draw_views
from muralab.demo.folders import write_folder
from muralab.demo.pacs_objects import study_facts
from muralab.demo.plan import PARTS, StudyPlan, plan_images
from muralab.threads import map_in_threads

PICTURES_NAME, TABLE_NAME = "pictures", "radiographs.csv"
HEADINGS = ("file", "fracture", "patient", "study", "age", "device")
N_IMAGES = 600
HANDS = tuple(part for part in PARTS if part.part == "hand")


def write_spreadsheet(
    folder: Path,
    *,
    seed: int = 0,
    n_images: int = N_IMAGES,
    workers: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write pictures and the table of their labels, unless they exist, and return the table's path.

    Args:
        folder: created; it holds nothing else.
        seed: of everything drawn.
        n_images: how many pictures.
        workers: drawing threads; None takes one per core.
        progress: called with (studies written, studies in total), in the calling thread.

    Raises:
        DataError: the folder cannot be written, or holds something else.
    """
    studies = plan_images(HANDS, seed, n_images)

    def write(draft: Path) -> None:
        (draft / PICTURES_NAME).mkdir()
        with (
            (draft / TABLE_NAME).open("w", encoding="utf-8", newline="") as file,
            closing(map_in_threads(lambda study: list(draw_views(study)), studies, workers=workers)) as drawn,
        ):
            table = csv.writer(file)
            table.writerow(HEADINGS)
            number = 0
            for done, (study, views) in enumerate(zip(studies, drawn), start=1):
                for view in views:
                    number += 1
                    name = f"{PICTURES_NAME}/{number:06d}.png"
                    (draft / name).write_bytes(view)
                    table.writerow((name, *_facts(study, seed)))
                if progress is not None:
                    progress(done, len(studies))

    return write_folder(folder, layout="spreadsheet", seed=seed, n_images=n_images, write=write) / TABLE_NAME


def _facts(study: StudyPlan, seed: int) -> tuple[object, ...]:
    """Label, patient, study, age and device of one study."""
    facts = study_facts(study, seed)
    return facts.label, facts.patient, facts.accession, facts.age, facts.device

"""What a data set holds, before anything is trained: class balance, sizes, an audit of every file, sample grids."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from muralab.config.parsing import check_word
from muralab.config.settings import PICTURES
from muralab.console import build_console, build_progress
from muralab.data.audit.audit import audit_images
from muralab.data.cache import open_cache
from muralab.data.dataset import open_root
from muralab.data.mura import parts_of, read_index
from muralab.data.splits import fingerprint
from muralab.evaluation.data_plots import plot_class_balance, sample_grid
from muralab.results.gallery import may_show
from muralab.tracking import RunWriter, close_dead_runs, open_store
from muralab.tracking.tags import Tag
from muralab.tune.prepare import Job

GRID_SIDE_PX = 160
GRID_IMAGES = 24
SHOWN = 20
"""Names of unreadable files; audit.csv holds them all."""


def run_explore(data: str, part: str, job: Job, *, seed: int = 0, pictures: str = "auto") -> None:
    """Log a data set's class balance per part and split, its audit and, if asked, sample grids of its pictures.

    Args:
        data: `demo`, or the path of a MURA tree.
        part: one of its parts, or `all`.
        job: where this command runs.
        seed: of the sample.
        pictures: whether what is logged may show the pictures themselves: `true`, `false`, or `auto` (synthetic ones).

    Raises:
        MuraLabError: the data or the store cannot be used.
    """
    check_word("pictures", pictures, PICTURES)
    console = build_console()
    store = open_store(job.tracking_uri)
    close_dead_runs(store, claim=job.run_id)
    progress = build_progress(console)
    root, synthetic = open_root(data, progress)
    shown = may_show(pictures, synthetic=synthetic)
    index = read_index(root, part)
    audit = audit_images(index, folder=job.cache / "audit", progress=progress("auditing files"))
    balance = class_balance(index)
    console.print(balance.to_string(index=False), highlight=False, markup=False)
    console.print(audit.summary(), highlight=False, markup=False)
    for name in sorted(set(audit.findings.loc[audit.findings["kind"] == "unreadable", "images"].explode()))[:SHOWN]:
        console.print(f"  cannot be read: {name}", highlight=False, markup=False, soft_wrap=True)
    facts = {
        Tag.PART: part,
        Tag.SYNTHETIC: str(synthetic).lower(),
        Tag.DATA_FINGERPRINT: fingerprint(index),
        Tag.PARTS: ",".join(parts_of(root)),
    }
    with RunWriter(store) as writer, tempfile.TemporaryDirectory() as folder:
        if job.run_id:
            run = writer.adopt_run(job.run_id, facts, kind="explore")
        else:
            run = writer.start_run(
                experiment=job.experiment or f"mura-{part}", kind="explore", name=f"explore-{part}", tags=facts
            )
        writer.log_table(run, balance, "class_balance.csv")
        writer.log_table(run, audit.findings.assign(images=audit.findings["images"].map("; ".join)), "audit.csv")
        writer.log_text(run, audit.summary(), "audit.md")
        writer.log_epoch(run, 0, {f"audit_{kind}": float(count) for kind, count in audit.counts.items()})
        writer.log_dataset(
            run,
            name=f"{'synthetic-' if synthetic else ''}mura-{part}",
            digest=audit.digest[:36],
            source=str(root),
            context="exploration",
            profile={"images": audit.n_images, "studies": audit.n_studies, "patients": audit.n_patients},
        )
        _log_figures(writer, run, Path(folder), index, job, seed, shown)
        writer.finish(run)
    if not shown:
        console.print("No picture was logged; pictures=true logs sample grids.")


def class_balance(index: pd.DataFrame) -> pd.DataFrame:
    """A row a part and split: images and studies, normal and abnormal, and the ratio abnormal / normal of images."""
    rows = []
    for (part, split), table in index.groupby(["part", "split"], sort=True):
        studies = table.drop_duplicates("study")
        abnormal, normal = int(table["label"].sum()), int((table["label"] == 0).sum())
        rows.append(
            {
                "part": part,
                "split": split,
                "images": len(table),
                "normal": normal,
                "abnormal": abnormal,
                "ratio": abnormal / normal if normal else float("nan"),
                "studies": len(studies),
                "abnormal_studies": int(studies["label"].sum()),
                "patients": table["patient"].nunique(),
            }
        )
    return pd.DataFrame(rows).round({"ratio": 3})


def _log_figures(
    writer: RunWriter, run: str, folder: Path, index: pd.DataFrame, job: Job, seed: int, pictures: bool
) -> None:
    figures: dict[str, Any] = {"class_balance": plot_class_balance(index)}
    if pictures:
        rng = np.random.default_rng(seed)
        for part, table in index.groupby("part", sort=True):
            some = table.iloc[np.sort(rng.permutation(len(table))[:GRID_IMAGES])].reset_index(drop=True)
            cache = open_cache(some, size=GRID_SIDE_PX, folder=job.cache / "pixels")
            some = cache.readable(some)
            captions = ["abnormal" if label else "normal" for label in some["label"]]
            figures[f"samples_{part}"] = sample_grid(np.asarray(cache.images)[cache.rows(some)], captions)
    for name, figure in figures.items():
        path = folder / f"{name}.png"
        figure.savefig(path, dpi=150, bbox_inches="tight")
        writer.log_file(run, path, "figures")
    writer.flush()

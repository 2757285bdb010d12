"""`explore`: what a data set holds, before anything is trained: class balance, an audit of every file, sample grids."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image

from muralab.commands.remote_data import with_fetched_data
from muralab.commands.session import Session, open_session
from muralab.config.commands import ExploreConfig
from muralab.config.environment import Environment
from muralab.config.parsing import unless_auto
from muralab.data.audit.report import Audit, audit_images
from muralab.data.cache import open_cache
from muralab.data.images.value_range import ValueRange
from muralab.data.manifest import Manifest
from muralab.data.name_keys import NAMES_FOLDER, write_names, write_private
from muralab.data.names import NameKey, code_names, hide_names_of
from muralab.data.source import DatasetSource
from muralab.data.splits import fingerprint
from muralab.evaluation.data_plots import plot_class_balance, sample_grid
from muralab.evaluation.intervals import MIN_PATIENTS
from muralab.results.checks import explored_check, log_checks
from muralab.results.gallery import check_burned_in, may_show
from muralab.results.inputs import data_tags, log_corrections, log_manifest
from muralab.results.previews import build_strength_previews
from muralab.tracking.tags import Tag

GRID_SIDE_PX = 160
GRID_IMAGES = 24
N_VALUES = 5
"""Values of a further column that are printed, the most frequent first."""
N_SHOWN = 20
"""Names of unreadable files that are printed; audit.csv holds them all."""


def run(config: ExploreConfig, environment: Environment) -> None:
    """Log a data set's class balance per part and split, its audit and, if asked, sample grids of its images.

    Raises:
        MuraLabError: the data or the store cannot be used.
    """
    with open_session("explore", environment) as session:
        session.require_access(config.part)
        config = with_fetched_data(config, session)
        source = DatasetSource(
            data=config.data,
            part=config.part,
            image_root=config.root,
            columns=config.columns,
            label_corrections=config.label_corrections,
        )
        source.draw_demo(session.progress)
        shown = may_show(config.pictures, synthetic=source.is_synthetic)
        index = source.index
        key = source.name_key(session.cache / NAMES_FOLDER, unless_auto(config.names_key))
        session.warn(hide_names_of(index, note, key) for note in source.notes)
        found = audit_images(index, folder=session.cache / "audit", progress=session.progress("auditing files"))
        audit = found.coded(key)
        if config.pictures:
            check_burned_in(audit.burned_in)
        balance = class_balance(index)
        print_findings(session, balance, audit)
        session.print(*fact_lines(source.manifest))
        check = explored_check(index, found.measures, None if source.manifest is None else source.manifest.facts)
        if check is not None:
            session.print(f"{check.title}: {check.text}")
        if key is not None:
            local = write_local(session, key, index, found)
            session.print(f"Names are codes. The findings with names, on this machine only: {local}")
        tags = {
            Tag.PART: config.part,
            Tag.SYNTHETIC: str(source.is_synthetic).lower(),
            Tag.DATA_FINGERPRINT: fingerprint(index),
            Tag.PARTS: ",".join(source.parts),
            **data_tags(source.location, source.manifest, source.corrections),
            **({} if key is None else {Tag.NAMES: key.id}),
        }
        run_id = session.start_run(name=f"explore {config.part}", part=config.part, tags=tags)
        log_findings(session, run_id, balance, audit)
        log_checks(session.writer, run_id, [] if check is None else [check])
        session.writer.log_dataset(
            run_id,
            name=f"{'synthetic-' if source.is_synthetic else ''}mura-{config.part}",
            digest=audit.digest[:36],
            source=source.location,
            context="exploration",
            profile={"images": audit.n_images, "studies": audit.n_studies, "patients": audit.n_patients},
        )
        log_manifest(session.writer, run_id, source.manifest)
        log_corrections(session.writer, run_id, source.corrections)
        log_figures(session, run_id, index, seed=config.seed, grids=shown, value_range=audit.value_range)
        session.writer.finish(run_id)
        if not shown:
            session.print("No image was logged; pictures=true logs sample grids.")
        session.print_run(run_id)


def write_local(session: Session, key: NameKey, index: pd.DataFrame, audit: Audit) -> Path:
    """Write the audit's findings with names, and the table of codes and names, to files that stay on this machine."""
    names = write_names(session.cache / NAMES_FOLDER, key, code_names(index, key, keep=True))
    file = names.with_name(f"{names.stem}-audit.csv")
    write_private(file, logged_findings(audit).to_csv(index=False))
    return file


def logged_findings(audit: Audit) -> pd.DataFrame:
    """The findings as a table of text."""
    return audit.findings.assign(images=audit.findings["images"].map("; ".join)).drop(columns="quoted")


def print_findings(session: Session, balance: pd.DataFrame, audit: Audit) -> None:
    """Print the class balance, the audit, and the first unreadable files."""
    session.console.print(balance.to_string(index=False), highlight=False, markup=False)
    session.console.print(audit.summary(), highlight=False, markup=False)
    unreadable = audit.findings.loc[audit.findings["kind"] == "unreadable", "images"].explode()
    session.print(*(f"  unreadable: {name}" for name in sorted(set(unreadable))[:N_SHOWN]))


def fact_lines(manifest: Manifest | None) -> list[str]:
    """What each further column of a manifest holds, in one line each; nothing for a MURA tree."""
    if manifest is None or manifest.facts.columns.empty:
        return []
    lines = ["Further columns:"]
    for name in manifest.facts:
        values = manifest.facts[name]
        if pd.api.types.is_numeric_dtype(values):
            held = f"numbers from {values.min():g} to {values.max():g}, median {values.median():g}"
        else:
            counts = values[values != ""].value_counts()
            patients = manifest.index["patient"].groupby(values.to_numpy()).nunique()
            common = counts[counts.index.map(patients) >= MIN_PATIENTS]  # a name that was left in a column is not
            shown = ", ".join(f"{value} ({count:,})" for value, count in common.head(N_VALUES).items())
            more = " ..." * (len(counts) > min(N_VALUES, len(common)))
            held = f"{len(counts):,} value{'s' * (len(counts) > 1)}: {shown}{more}"
        missing = int(values.isna().sum() if pd.api.types.is_numeric_dtype(values) else (values == "").sum())
        lines.append(f"  {name}: {held}; {missing:,} missing")
    return lines


def log_findings(session: Session, run_id: str, balance: pd.DataFrame, audit: Audit) -> None:
    """Log the class balance and the audit."""
    writer = session.writer
    writer.log_table(run_id, balance, "class_balance.csv")
    writer.log_table(run_id, logged_findings(audit), "audit.csv")
    writer.log_text(run_id, audit.summary(), "audit.md")
    writer.set_tags(run_id, {Tag.NOTE: audit.summary()})
    writer.log_epoch(run_id, 0, {f"audit_{kind}": float(count) for kind, count in audit.counts.items()})


def class_balance(index: pd.DataFrame) -> pd.DataFrame:
    """One row per part and split: images and studies by class, and the ratio abnormal / normal of images."""
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


def log_figures(
    session: Session, run_id: str, index: pd.DataFrame, *, seed: int, grids: bool, value_range: ValueRange | None
) -> None:
    """Log the class balance, what each strength of augmentation does and, if asked, sample images of each part."""
    figures: dict[str, Any] = {"class_balance": plot_class_balance(index)}
    if grids:
        rng = np.random.default_rng(seed)
        for part, table in index.groupby("part", sort=True):
            some = table.iloc[np.sort(rng.permutation(len(table))[:GRID_IMAGES])].reset_index(drop=True)
            figures[f"samples_{part}"] = draw_samples(some, session.cache, value_range)
    with tempfile.TemporaryDirectory() as folder:
        for name, figure in figures.items():
            path = Path(folder) / f"{name}.png"
            figure.savefig(path, dpi=150, bbox_inches="tight")
            session.writer.log_file(run_id, path, "figures")
        for name, grid in build_strength_previews().items():
            path = Path(folder) / f"{name}.png"
            Image.fromarray(grid).save(path)
            session.writer.log_file(run_id, path, "augmentation")
        session.writer.flush()


def draw_samples(table: pd.DataFrame, cache_folder: Path, value_range: ValueRange | None) -> Any:
    """A grid of the readable images of a table, each under its label."""
    cache = open_cache(table, size=GRID_SIDE_PX, folder=cache_folder / "pixels", value_range=value_range)
    table = cache.readable(table)
    captions = ["abnormal" if label else "normal" for label in table["label"]]
    return sample_grid(np.asarray(cache.images)[cache.rows(table)], captions)

"""The checks that every training runs: what metadata alone reach, what hiding the borders changes, which labels are
suspicious."""

from __future__ import annotations

import contextlib
import io
import json
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd

from muralab.data.dataset import Dataset
from muralab.data.mura import COLUMNS
from muralab.data.names import REAL
from muralab.errors import StoreError
from muralab.evaluation.evaluated_model import EvaluatedModel
from muralab.evaluation.metadata_baseline import MetadataBaseline, cross_validate, fit_on_train, study_metadata
from muralab.evaluation.occlusion import BORDER, CORNER, Images, Movement, Predict, measure_occlusion
from muralab.evaluation.study_groups import group_studies
from muralab.report.context import Check
from muralab.report.sentences import number, with_bounds
from muralab.results.suspicious_labels import CHECK, TITLE, label_check, unseen_studies
from muralab.tracking import RunRecord, RunWriter, Store, download_artifact

if TYPE_CHECKING:
    from muralab.results.final_test import FinalTest

FOLDER = "checks"
GROUPS_TABLE = "study_groups.csv"
METADATA, OCCLUSION = "metadata", "occlusion"
TITLES = {METADATA: "Metadata alone", OCCLUSION: "Hidden borders and corners", CHECK: TITLE}
BATCH = 32


def run_checks(dataset: Dataset, best: FinalTest | None) -> list[Check]:
    """What can be found out with the model that validation selected; without one, of the data alone."""
    found = [metadata_check(dataset, None if best is None else best.model)]
    if best is not None and best.network is not None:
        found.append(occlusion_check(dataset, best))
    if best is not None:
        found.append(label_check(unseen_studies(best.model), dataset.index["study"].nunique()))
    return [check for check in found if check is not None]


def with_facts(images: pd.DataFrame, facts: pd.DataFrame | None) -> tuple[pd.DataFrame, list[str]]:
    """Rows of an index with the further columns of their data set, and the names of these, such as age or device.

    Args:
        images: rows of the index.
        facts: the further columns by image; None: there are none.
    """
    if facts is None:
        return images, []
    columns = [name for name in facts.columns if name not in (*COLUMNS, *REAL.values())]
    return images.join(facts[columns], on="image"), [str(name) for name in columns]


def metadata_check(dataset: Dataset, model: EvaluatedModel | None) -> Check | None:
    """What metadata alone reach on the test studies; None where nothing varies.

    Args:
        dataset: with its audit.
        model: evaluated on the same test set, to compare with; None: none.
    """
    images, columns = with_facts(pd.concat(dataset.tables.values(), ignore_index=True), dataset.facts)
    studies = study_metadata(images, dataset.audit.measures, columns)
    test = dataset.tables["test"]["study"].unique().tolist()
    baseline = fit_on_train(studies, test)
    if baseline is None:
        return None
    return describe_metadata(baseline, f"{len(test)} test studies", model)


def explored_check(index: pd.DataFrame, measures: pd.DataFrame, facts: pd.DataFrame | None = None) -> Check | None:
    """What metadata alone reach on all studies of a data set, cross-validated by patient; None where nothing varies.

    Args:
        index: one row per image.
        measures: of its files, see `MEASURES`.
        facts: further columns by image; None: there are none.
    """
    images, columns = with_facts(index, facts)
    baseline = cross_validate(study_metadata(images, measures, columns))
    if baseline is None:
        return None
    return describe_metadata(baseline, f"{index['study'].nunique()} studies (cross-validated by patient)", None)


def describe_metadata(baseline: MetadataBaseline, where: str, model: EvaluatedModel | None) -> Check:
    """What metadata reach, and a model beside them; the paired difference only if it answered the same studies."""
    table = baseline.table()
    best = table.iloc[1]
    text = f"Without a single pixel, metadata reach an AUROC of {with_bounds(baseline.auroc)} on the {where}. "
    if model is not None and model.problem() is None:
        text += f"{model.title} reaches {with_bounds(model.intervals()['auroc'])} there. "
        difference = baseline.difference_to(model)
        text += "" if difference is None else f"Paired difference: {with_bounds(difference, signed=True)}. "
    if baseline.beats_chance:
        text += (
            "Metadata beat chance: part of what a model reaches on these studies may come from how the images were "
            f"made. The strongest by itself: {best['metadata']}, {number(best['auroc'])}."
        )
    elif np.isnan(baseline.auroc.low):
        text += "Whether that is above chance cannot be said."
    else:
        text += "Metadata are not shown to beat chance."
    return Check(name=METADATA, title=TITLES[METADATA], text=text, table=table)


def occlusion_check(dataset: Dataset, tested: FinalTest) -> Check | None:
    """How far the answers of a tested model move with the borders or corners hidden; None where nothing was tested."""
    model = tested.model
    if tested.network is None or model.problem() is not None:
        return None
    cache = dataset.caches[tested.image_size]
    measures = dataset.audit.measures
    sizes = dict(zip(measures["image"], zip(measures["width"], measures["height"])))

    def read(table: pd.DataFrame) -> Images:
        return np.asarray(cache.images[cache.rows(table)])

    moved = measure_occlusion(model, predictor(tested), read, {name: size for name, size in sizes.items() if all(size)})
    return Check(
        name=OCCLUSION, title=TITLES[OCCLUSION], text=_occlusion_text(model, moved), table=_occlusion_table(moved)
    )


def predictor(tested: FinalTest) -> Predict:
    """The network of a test as a function of images."""

    def predict(images: Images) -> np.ndarray:
        import torch

        assert tested.network is not None
        network = tested.network.eval()
        device = next(network.parameters()).device
        with torch.inference_mode():
            parts = [
                network(torch.from_numpy(images[first : first + BATCH]).to(device)).float().cpu().numpy()
                for first in range(0, len(images), BATCH)
            ]
        return np.concatenate(parts)

    return predict


def _occlusion_text(model: EvaluatedModel, moved: Sequence[Movement]) -> str:
    said = "; ".join(
        f"without the {one.region} by {number(one.mean)} on average (95% of studies by at most {number(one.most)}), "
        f"and {one.calls:.1%} of the calls change"
        for one in moved
    )
    text = (
        f"The probability that {model.title} gives a test study moves {said}. Hidden are {BORDER:.0%} of each side, "
        f"{CORNER:.0%} of the shorter side in each corner, or the centre, each filled with its own mean grey value. "
    )
    worse = [one.region for one in moved if one.region != "centre" and one.difference.high < 0]
    if worse:
        return (
            f"{text}It ranks studies worse without the {' and without the '.join(worse)}: part of its skill comes from "
            "there. Look for markers, text or collimation that go with the label."
        )
    return f"{text}It is not shown to rank studies worse without the borders or without the corners."


def _occlusion_table(moved: Sequence[Movement]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "hidden": one.region,
            "mean change": one.mean,
            "95% change by at most": one.most,
            "calls changed": one.calls,
            "AUROC difference": one.difference.estimate,
            "low": one.difference.low,
            "high": one.difference.high,
        }
        for one in moved
    )


def study_groups(dataset: Dataset) -> pd.DataFrame:
    """The groups of the test studies by every column of the data set."""
    return group_studies(*with_facts(dataset.tables["test"], dataset.facts))


def log_checks(writer: RunWriter, run: str, checks: Sequence[Check], groups: pd.DataFrame | None = None) -> None:
    """Log what was found out about shortcuts, and the groups of the test studies, in a run."""
    for check in checks:
        content = {"title": check.title, "text": check.text}
        writer.log_text(run, json.dumps(content, indent=1), f"{FOLDER}/{check.name}.json")
        writer.log_table(run, check.table, f"{FOLDER}/{check.name}.csv")
    if groups is not None:
        writer.log_table(run, groups, GROUPS_TABLE)


def read_checks(store: Store, record: RunRecord) -> list[Check]:
    """What `log_checks` logged with a run, or with the sweep above it; empty where nothing was."""
    found = [_read_check(store, record, name) for name in TITLES]
    return [check for check in found if check is not None]


def read_groups(store: Store, record: RunRecord) -> pd.DataFrame | None:
    """The groups of a run's test studies; None where it logged none."""
    table = _read(store, record, GROUPS_TABLE)
    return None if table is None else pd.read_csv(table, dtype=str, keep_default_na=False)


def _read_check(store: Store, record: RunRecord, name: str) -> Check | None:
    text, table = (_read(store, record, f"{FOLDER}/{name}{suffix}") for suffix in (".json", ".csv"))
    if text is None or table is None:
        return None
    return Check(name=name, table=pd.read_csv(table), **json.load(text))


def _read(store: Store, record: RunRecord, path: str) -> io.BytesIO | None:
    for run_id in (record.run_id, record.parent):
        with tempfile.TemporaryDirectory() as folder, contextlib.suppress(StoreError):
            return io.BytesIO(download_artifact(store, run_id or "", path, Path(folder)).read_bytes())
    return None

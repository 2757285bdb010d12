"""Suspicious labels: how many are logged and reported, which ones only in a table on this machine, with names.

The table has the form of label corrections (`muralab.data.label_corrections`): a reader edits `label`, fills in
`reader` and `reason`, and gives the file back as `label_corrections`.
"""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from muralab.data.dataset import Dataset
from muralab.data.label_corrections import CLASSES, OPTIONAL_COLUMNS, LabelCorrections
from muralab.data.name_keys import write_private
from muralab.data.names import REAL
from muralab.errors import DataError
from muralab.evaluation.evaluated_model import CHANCE_AUROC, EvaluatedModel, SetName
from muralab.evaluation.intervals import ClusteredSample, metric_interval, resample
from muralab.evaluation.label_quality import rank_labels
from muralab.report.context import Check

FOLDER = "labels"
"""Of these tables, in the cache."""
COLUMNS = (
    "study",
    "label",
    *OPTIONAL_COLUMNS,
    "rank",
    "suspicious",
    "probability",
    "confidence",
    "set",
    "patient",
    "views",
)
OUT_OF_FOLD: tuple[SetName, ...] = ("validation", "test")
"""Sets whose labels a model was not trained on."""
CHECK, TITLE = "labels", "Suspicious labels"


def unseen_studies(model: EvaluatedModel) -> pd.DataFrame:
    """The studies that a model was not trained on: study, patient, label, calibrated probability, and their set."""
    tables = []
    for name in OUT_OF_FOLD:
        if model.problem(name) is None:
            studies = model.studies(name)
            tables.append(studies.assign(probability=studies["calibrated"], set=name))
    kept = ["study", "patient", "label", "probability", "set"]
    return pd.concat(tables, ignore_index=True)[kept] if tables else pd.DataFrame(columns=kept)


def label_check(studies: pd.DataFrame, n_studies: int) -> Check | None:
    """How many labels are suspicious, without names; None where labels cannot be ranked.

    Args:
        studies: out of fold: study, patient, label, probability, and optionally their set.
        n_studies: of the data set.
    """
    ranked = _ranked(studies)
    if ranked is None:
        return None
    counts = ranked.groupby("label")["suspicious"].agg(["size", "sum"])
    auroc = metric_interval(resample(ClusteredSample(_tested(studies)), ["auroc"]), "auroc")
    text = (
        f"Of {len(ranked):,} studies (of {n_studies:,} in the data set) that were answered by a network which was not "
        f"trained on them, {int(ranked['suspicious'].sum()):,} are answered confidently against their label. "
    )
    if auroc.low > CHANCE_AUROC:
        text += "Whether a label is wrong is for a reader to say. "
    else:
        text += "That these answers rank studies better than chance is not shown, so they say nothing about labels. "
    text += "The ranking, with names, is on the machine of this run only."
    table = pd.DataFrame(
        {
            "label": [CLASSES[label] for label in counts.index],
            "studies": counts["size"].to_numpy(),
            "suspicious": counts["sum"].to_numpy(),
        }
    )
    return Check(name=CHECK, title=TITLE, text=text, table=table)


def write_suspicious_labels(
    studies: pd.DataFrame, index: pd.DataFrame, cache: Path, run_id: str, corrections: LabelCorrections | None = None
) -> list[str]:
    """Write the ranking of labels on this machine, the least believed first.

    Args:
        studies: out of fold: study, label, probability, set.
        index: of the data set that they are of, with names, or with codes that keep them (`REAL`).
        cache: folder of everything that is not in MLflow.
        run_id: names the file.
        corrections: what readers have decided before: their names and reasons are in the table.

    Returns:
        Where the table is, in a sentence without names; empty where labels cannot be ranked.
    """
    ranked = _ranked(studies)
    if ranked is None:
        return []
    file = cache / FOLDER / f"{run_id}.csv"
    write_private(file, _with_names(ranked, index, corrections).to_csv(index=False))
    return [
        f"The ranking of labels, with names, on this machine only: {file}. Where a reader disagrees, change the label "
        f"there, fill in reader and reason, and give it as label_corrections={file}."
    ]


def write_labels(model: EvaluatedModel, dataset: Dataset, cache: Path, run_id: str) -> list[str]:
    """Rank the labels of the studies that a model was not trained on; see `write_suspicious_labels`."""
    return write_suspicious_labels(unseen_studies(model), dataset.index, cache, run_id, dataset.corrections)


def _tested(studies: pd.DataFrame) -> pd.DataFrame:
    """The test studies where there are any: validation studies chose the model, which flatters its answers to them."""
    tested = studies[studies["set"] == "test"] if "set" in studies else studies
    return tested if tested["label"].nunique() == len(CLASSES) else studies


def _ranked(studies: pd.DataFrame) -> pd.DataFrame | None:
    try:
        return rank_labels(studies)
    except DataError:  # studies of one class
        return None


def _with_names(ranked: pd.DataFrame, index: pd.DataFrame, corrections: LabelCorrections | None) -> pd.DataFrame:
    """The ranking with real names, patients and images, and with what readers decided before."""
    named = {column: index[real] if real in index else index[column] for column, real in REAL.items()}
    images = index[["study"]].assign(**{f"its_{column}": names for column, names in named.items()})
    of_study = images.groupby("study").agg(
        name=("its_study", "first"), patient=("its_patient", "first"), views=("its_image", "; ".join)
    )
    found = ranked.drop(columns=["patient"], errors="ignore").join(of_study, on="study")
    found = found.assign(study=found["name"])
    before = pd.DataFrame(columns=["study", *OPTIONAL_COLUMNS]) if corrections is None else corrections.decided
    found = found.merge(before[["study", *OPTIONAL_COLUMNS]], on="study", how="left").fillna("")
    return found[list(COLUMNS)]

"""The table of suspicious labels: local, with names, never logged."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from muralab.data.dataset import Dataset
from muralab.data.name_keys import write_private
from muralab.data.names import with_real_names
from muralab.errors import DataError
from muralab.evaluation.evaluated_model import EvaluatedModel, SetName
from muralab.evaluation.label_quality import rank_labels

FOLDER = "labels"
"""Of these tables, in the cache."""
COLUMNS = ("rank", "study", "label", "probability", "confidence", "suspicious", "set", "patient", "views")
OUT_OF_FOLD: tuple[SetName, ...] = ("validation", "test")
"""Sets whose labels a model was not trained on."""


def unseen_studies(model: EvaluatedModel) -> pd.DataFrame:
    """The studies that a model was not trained on: study, patient, label, calibrated probability, and their set."""
    tables = []
    for name in OUT_OF_FOLD:
        if model.problem(name) is None:
            studies = model.studies(name)
            tables.append(studies.assign(probability=studies["calibrated"], set=name))
    kept = ["study", "patient", "label", "probability", "set"]
    return pd.concat(tables, ignore_index=True)[kept] if tables else pd.DataFrame(columns=kept)


def write_suspicious_labels(studies: pd.DataFrame, dataset: Dataset, cache: Path, run_id: str) -> list[str]:
    """Rank labels by how little models that have not seen them believe them, and write the table on this machine.

    Args:
        studies: out of fold: study, patient, label, probability, set.
        dataset: that they are of.
        cache: folder of everything that is not in MLflow.
        run_id: names the file.

    Returns:
        What was found and where the table is, in sentences without names; empty where labels cannot be ranked.
    """
    try:
        ranked = rank_labels(studies)
    except DataError:  # studies of one class
        return []
    file = cache / FOLDER / f"{run_id}.csv"
    write_private(file, _with_views(ranked, dataset).to_csv(index=False))
    n_studies = dataset.index["study"].nunique()
    return [
        f"Suspicious labels: {int(ranked['suspicious'].sum())} of {len(ranked):,} studies, those of {n_studies:,} that "
        f"the model was not trained on. The ranking, with names, on this machine only: {file}. A reader decides; "
        "corrected labels go into a manifest."
    ]


def _with_views(ranked: pd.DataFrame, dataset: Dataset) -> pd.DataFrame:
    """The ranking with real names, patients and images."""
    images = with_real_names(dataset.index[["image", "study", "patient"]], dataset.index)
    names = pd.DataFrame({"study": dataset.index["study"].to_numpy(), "real": images["study"].to_numpy()})
    views = images.groupby("study")["image"].agg("; ".join)
    patients = images.groupby("study")["patient"].first()
    real = ranked["study"].map(names.drop_duplicates("study").set_index("study")["real"])
    table = ranked.assign(study=real, patient=real.map(patients), views=real.map(views))
    return table[list(COLUMNS)]


def label_lines(models: Sequence[EvaluatedModel], dataset: Dataset, cache: Path, run_id: str) -> list[str]:
    """Rank the labels that the best of some models was not trained on; see `write_suspicious_labels`."""
    studies = unseen_studies(models[0]) if models else pd.DataFrame()
    return [] if studies.empty else write_suspicious_labels(studies, dataset, cache, run_id)

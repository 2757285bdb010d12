"""What a run records of its data: the sets as inputs with digests, and the audit."""

from __future__ import annotations

import pandas as pd

from muralab.data.dataset import Dataset
from muralab.results.from_mlflow import AUDIT_TABLE, AUDIT_TEXT, CONTEXTS, COUNTS
from muralab.tracking import SPLIT_TABLE, RunWriter

COLUMN_TYPES = {"image": "string", "study": "string", "patient": "string", "part": "string", "label": "long"}


def log_sets(writer: RunWriter, run: str, dataset: Dataset) -> None:
    """Log train, validation and test as inputs of a run, each with a digest of its rows and its files' bytes."""
    for row in dataset.counts().to_dict("records"):
        name = str(row["set"])
        writer.log_dataset(
            run,
            name=_input_name(dataset, name),
            digest=dataset.digest(name),
            source=str(dataset.root),
            context=CONTEXTS[name],
            profile={key: row[key] for key in COUNTS},
            columns=COLUMN_TYPES,
        )


def log_split(writer: RunWriter, run: str, dataset: Dataset) -> None:
    """Log which image is in which set, so that later checks know what the models of this run have seen."""
    writer.log_table(run, dataset.split_rows(), SPLIT_TABLE)


def log_evaluated_set(writer: RunWriter, run: str, dataset: Dataset, name: str, predictions: pd.DataFrame) -> None:
    """Log one set, or `all`, as the test input of a run."""
    writer.log_dataset(
        run,
        name=_input_name(dataset, name),
        digest=dataset.audit.digest if name == "all" else dataset.digest(name),
        source=str(dataset.root),
        context="test",
        profile={
            "images": len(predictions),
            "studies": predictions["study"].nunique(),
            "patients": predictions["patient"].nunique(),
            "abnormal": int(predictions["label"].sum()),
        },
    )


def log_audit(writer: RunWriter, run: str, dataset: Dataset) -> None:
    """Log what the audit of the data set found."""
    writer.log_text(run, dataset.audit.paragraph(), AUDIT_TEXT)
    writer.log_table(run, dataset.audit.table(), AUDIT_TABLE)


def _input_name(dataset: Dataset, name: str) -> str:
    return f"{'synthetic-' if dataset.synthetic else ''}mura-{dataset.part}-{name}"

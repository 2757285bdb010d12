"""What a run records of its data: the sets as inputs with digests, the manifest, and the audit."""

from __future__ import annotations

import json

import pandas as pd

from muralab.data.dataset import Dataset
from muralab.data.label_corrections import LabelCorrections
from muralab.data.manifest import Manifest
from muralab.data.mirror import uri_of
from muralab.results.from_mlflow import AUDIT_TABLE, AUDIT_TEXT, CONTEXTS, COUNTS
from muralab.tracking import SPLIT_TABLE, RunWriter
from muralab.tracking.tags import Tag

COLUMN_TYPES = {"image": "string", "study": "string", "patient": "string", "part": "string", "label": "long"}
MANIFEST_FILE = "manifest.json"
CORRECTIONS_FILE, CORRECTED_TABLE = "label_corrections.json", "label_corrections.csv"


def log_sets(writer: RunWriter, run: str, dataset: Dataset) -> None:
    """Log train, validation and test as inputs of a run, each with a digest of its rows and its files' bytes."""
    for row in dataset.counts().to_dict("records"):
        name = str(row["set"])
        writer.log_dataset(
            run,
            name=_input_name(dataset, name),
            digest=dataset.digest(name),
            source=dataset.source,
            context=CONTEXTS[name],
            profile={key: row[key] for key in COUNTS},
            columns=COLUMN_TYPES | fact_types(dataset.facts),
        )


def log_split(writer: RunWriter, run: str, dataset: Dataset, *, is_ensemble: bool = False) -> None:
    """Log which image is in which set, so that later checks know what the models of this run have seen.

    Args:
        writer: of the run.
        run: its id.
        dataset: that is split.
        is_ensemble: whether networks of this model were trained on every image outside the test set.
    """
    rows = dataset.split_rows()
    if is_ensemble:
        rows = rows.assign(set=rows["set"].replace("validation", "train"))
    writer.log_table(run, rows, SPLIT_TABLE)
    log_manifest(writer, run, dataset.manifest)
    log_corrections(writer, run, dataset.corrections)
    if dataset.corrections is not None:
        writer.log_table(run, dataset.decided_labels(), CORRECTED_TABLE)


def log_manifest(writer: RunWriter, run: str, manifest: Manifest | None) -> None:
    """Log which file named the images: its digest, its columns and its counts; nothing for a MURA tree."""
    if manifest is None:
        return
    facts = {
        "path": str(manifest.path),
        "digest": manifest.digest,
        "root": str(manifest.root),
        "columns": dict(manifest.columns),
        "further_columns": fact_types(manifest.facts),
        "rows": manifest.n_rows,
        "parts": list(manifest.parts),
        "used": {
            "images": len(manifest.index),
            "studies": manifest.index["study"].nunique(),
            "patients": manifest.index["patient"].nunique(),
            "abnormal": int(manifest.index["label"].sum()),
        },
    }
    writer.log_text(run, json.dumps(facts, indent=1, ensure_ascii=False), MANIFEST_FILE)


def log_corrections(writer: RunWriter, run: str, corrections: LabelCorrections | None) -> None:
    """Log how many labels readers corrected, and the digest of their file; neither names nor reasons."""
    if corrections is None:
        return
    facts = {
        "path": str(corrections.path),
        "digest": corrections.digest,
        **corrections.counts(),
        "readers": len(set(corrections.decided["reader"]) - {""}),
        "rows_of_other_parts": corrections.n_elsewhere,
    }
    writer.log_text(run, json.dumps(facts, indent=1, ensure_ascii=False), CORRECTIONS_FILE)


def data_tags(path: str, manifest: Manifest | None, corrections: LabelCorrections | None = None) -> dict[str, str]:
    """Tags of a run that say where its images and labels came from, as far as `evaluate` needs it to read them again.

    Args:
        path: of the MURA tree or the manifest.
        manifest: None for a tree.
        corrections: of labels; None where there are none.
    """
    tags = {Tag.DATA_PATH: path}
    if uri := uri_of(path):
        tags[Tag.DATA_URI] = uri
    if manifest is not None:
        columns = json.dumps(dict(manifest.columns), ensure_ascii=False)
        tags |= {Tag.IMAGE_ROOT: str(manifest.root), Tag.MANIFEST: manifest.digest, Tag.COLUMNS: columns}
    if corrections is not None:
        tags |= {
            Tag.LABEL_CORRECTIONS: corrections.digest,
            Tag.LABEL_CORRECTIONS_PATH: str(corrections.path),
            Tag.CORRECTED_LABELS: corrections.sentence(),
        }
    return tags


def fact_types(facts: pd.DataFrame) -> dict[str, str]:
    """Further column -> its type as MLflow names it."""
    return {str(name): "double" if pd.api.types.is_numeric_dtype(facts[name]) else "string" for name in facts}


def log_evaluated_set(writer: RunWriter, run: str, dataset: Dataset, name: str, predictions: pd.DataFrame) -> None:
    """Log one set, or `all`, as the test input of a run."""
    writer.log_dataset(
        run,
        name=_input_name(dataset, name),
        digest=dataset.audit.digest if name == "all" else dataset.digest(name),
        source=dataset.source,
        context="test",
        profile={
            "images": len(predictions),
            "studies": predictions["study"].nunique(),
            "patients": predictions["patient"].nunique(),
            "abnormal": int(predictions["label"].sum()),
        },
    )


def names_tag(dataset: Dataset) -> dict[str, str]:
    """The tag of a run whose names are codes; empty for generated images, whose names are shown."""
    return {Tag.NAMES: dataset.key_id} if dataset.key_id else {}


def log_audit(writer: RunWriter, run: str, dataset: Dataset) -> None:
    """Log what the audit of the data set found."""
    writer.log_text(run, dataset.audit.paragraph(), AUDIT_TEXT)
    writer.log_table(run, dataset.audit.table(), AUDIT_TABLE)


def _input_name(dataset: Dataset, name: str) -> str:
    return f"{'synthetic-' if dataset.synthetic else ''}mura-{dataset.part}-{name}"

"""Files, predictions and data sets of a run."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from muralab.errors import StoreError
from muralab.tracking import (
    LoggedData,
    RunWriter,
    Store,
    download_artifact,
    fingerprint_test_set,
    read_datasets,
    read_run,
)
from muralab.tracking.tags import Tag
from tests.tracking.conftest import UNKNOWN

PREDICTIONS = pd.DataFrame(
    {"image": ["007", "NA"], "study": ["s1", "s2"], "patient": ["p1", "p2"], "part": "wrist", "label": [0, 1],
     "logit": [1 / 3, -2e-17]}
)  # fmt: skip


def test_predictions_keep_all_digits_and_names(store: Store, parent: str) -> None:
    with RunWriter(store) as writer:
        writer.log_predictions(parent, "test", PREDICTIONS)
    predictions = read_run(store, parent).predictions
    assert list(predictions) == ["test"]
    assert len(predictions) == 1
    pd.testing.assert_frame_equal(predictions["test"], PREDICTIONS)


def test_an_undefined_logit_is_read_back(local: Store, trial: str) -> None:
    with RunWriter(local) as writer:
        writer.log_predictions(trial, "validation", PREDICTIONS.assign(logit=[float("nan"), 1.0]))
    assert read_run(local, trial).predictions["validation"]["logit"].isna().to_list() == [True, False]


def test_predictions_on_the_test_set_mark_the_run(local: Store, trial: str) -> None:
    with RunWriter(local) as writer:
        writer.log_predictions(trial, "validation", PREDICTIONS)
        writer.flush()
        assert Tag.TEST_FINGERPRINT not in read_run(local, trial).tags
        writer.log_predictions(trial, "test", PREDICTIONS)
    assert read_run(local, trial).tags[Tag.TEST_FINGERPRINT] == fingerprint_test_set(PREDICTIONS)


def test_a_fingerprint_depends_on_labels_and_not_on_logits() -> None:
    fingerprint = fingerprint_test_set(PREDICTIONS)
    assert len(fingerprint) == 32
    assert fingerprint_test_set(PREDICTIONS.assign(logit=0.0)) == fingerprint
    assert fingerprint_test_set(PREDICTIONS.assign(label=1)) != fingerprint


def test_missing_predictions_are_an_error_that_lists_the_others(local: Store, trial: str) -> None:
    with RunWriter(local) as writer:
        writer.log_predictions(trial, "validation", PREDICTIONS)
        writer.log_text(trial, "", "predictions/notes.txt")
    with pytest.raises(StoreError, match=r"has no predictions on 'test'. Available: validation\."):
        read_run(local, trial).predictions["test"]


def test_a_run_without_predictions(store: Store, parent: str) -> None:
    with pytest.raises(StoreError, match=r"has no predictions on 'test'. Available: none\."):
        read_run(store, parent).predictions["test"]


def test_files_and_texts_come_back(store: Store, parent: str, tmp_path: Path) -> None:
    (tmp_path / "head.bin").write_bytes(b"\x00\x01")
    with RunWriter(store) as writer:
        writer.log_file(parent, tmp_path / "head.bin", "weights")
        writer.log_file(parent, tmp_path / "head.bin")
        writer.log_text(parent, "<p>\u00e9</p>", "report.html")
    assert download_artifact(store, parent, "weights", tmp_path / "a").joinpath("head.bin").read_bytes() == b"\x00\x01"
    assert download_artifact(store, parent, "head.bin", tmp_path / "b" / "c").read_bytes() == b"\x00\x01"
    assert download_artifact(store, parent, "report.html", tmp_path).read_text("utf-8") == "<p>\u00e9</p>"


def test_a_missing_artifact_is_an_error(store: Store, parent: str, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=f"could not read 'absent.csv' of the run {parent}"):
        download_artifact(store, parent, "absent.csv", tmp_path)


def test_a_data_set_is_read_back(store: Store, parent: str) -> None:
    data = LoggedData(name="wrist train", digest="a" * 36, source="/data", profile={"images": 3})
    fields = {"digest": data.digest, "source": data.source, "profile": data.profile}
    with RunWriter(store) as writer:
        writer.log_dataset(parent, name=data.name, context="training", columns={"image": "string"}, **fields)
    assert read_datasets(store, parent) == {"training": data}
    (entry,) = store.client.get_run(parent).inputs.dataset_inputs
    assert '{"type": "string", "name": "image", "required": true}' in entry.dataset.schema


def test_the_data_sets_of_an_unknown_run_are_an_error(local: Store) -> None:
    with pytest.raises(StoreError, match="could not read the data sets of the run"):
        read_datasets(local, UNKNOWN)

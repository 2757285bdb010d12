"""Runs read back as they were written."""

from __future__ import annotations

import math
import time

import pandas as pd
import pytest

from muralab.errors import StoreError
from muralab.tracking import (
    RunWriter,
    Store,
    experiment_of,
    find_evaluations,
    find_records,
    read_children,
    read_run,
    start_run,
    with_histories,
)
from muralab.tracking.tags import Tag


def test_a_trial_is_read_back_as_it_was_written(store: Store, parent: str) -> None:
    with RunWriter(store) as writer:
        trial = writer.start_run(kind="trial", name="t", parent=parent, tags={Tag.RECIPE: "cnn"})
        for step in (2, 1):
            writer.log_epoch(trial, step, {"val_loss": 1 / step})
        writer.log_resolved(trial, {"full.lr": 3e-5})
        writer.finish(trial)
    (record,) = read_children(store, parent)
    assert (record.parent, record.kind, record.recipe, record.status) == (parent, "trial", "cnn", "FINISHED")
    assert list(record.history["val_loss"].items()) == [(1, 1.0), (2, 0.5)]
    assert record.params == {"resolved.full.lr": "3e-05"}
    assert record.experiment_id == experiment_of(store, parent)


def test_undefined_and_infinite_metrics_are_kept_beside_those_of_mlflow(store: Store, parent: str) -> None:
    values = {"undefined": math.nan, "up": math.inf, "down": -math.inf, "fine": 0.1}
    with RunWriter(store) as writer:
        writer.log_epoch(parent, 1, values)
    record = read_run(store, parent)
    assert {key: repr(value) for key, value in record.metrics.items()} == {k: repr(v) for k, v in values.items()}
    assert record.history.loc[1, "up"] == math.inf
    assert store.client.get_run(parent).data.metrics == {"fine": 0.1}


def test_a_metric_may_be_undefined_at_some_steps_only(local: Store, trial: str) -> None:
    with RunWriter(local) as writer:
        for step, value in enumerate([0.5, math.nan, 0.7, math.inf], start=1):
            writer.log_epoch(trial, step, {"auroc": value})
    record = read_run(local, trial)
    assert [repr(value) for value in record.history["auroc"]] == ["0.5", "nan", "0.7", "inf"]
    assert record.metrics["auroc"] == math.inf
    assert read_children(local, trial) == []


def test_undefined_metrics_of_a_resumed_run_are_kept(local: Store, trial: str) -> None:
    for step in (1, 2):
        with RunWriter(local) as writer:
            assert writer.resume_run(trial) == set(range(1, step))
            writer.log_epoch(trial, 1, {"auroc": math.nan})
            writer.log_epoch(trial, step, {"auroc": math.nan})
    assert len(read_run(local, trial).history) == 2


def test_metrics_that_an_earlier_version_logged_as_they_were_are_read(local: Store, trial: str) -> None:
    for key, value in {"undefined": math.nan, "up": math.inf}.items():
        local.client.log_metric(trial, key, value, step=1)
    record = read_run(local, trial)
    assert (math.isnan(record.metrics["undefined"]), record.metrics["up"]) == (True, math.inf)


def test_children_may_be_read_without_history_and_predictions(local: Store, trial: str) -> None:
    with RunWriter(local) as writer:
        child = writer.start_run(kind="trial", name="child", parent=trial)
        writer.log_epoch(child, 1, {"loss": 1.0})
    (record,) = read_children(local, trial, history=False)
    assert record.metrics == {"loss": 1.0}
    assert record.history.empty
    assert record.predictions == {}


def test_histories_of_some_metrics_are_those_of_the_whole_record(store: Store, parent: str) -> None:
    values = {"val_loss": [0.5, math.nan, 0.3], "phase": [1.0, 1.0, 2.0], "other": [1.0, 2.0, 3.0]}
    with RunWriter(store) as writer:
        child = writer.start_run(kind="trial", name="child", parent=parent)
        for step in (1, 2, 3):
            writer.log_epoch(child, step, {key: points[step - 1] for key, points in values.items()})
    (found,) = with_histories(store, read_children(store, parent, history=False), ("phase", "val_loss", "missing"))
    (whole,) = read_children(store, parent)
    pd.testing.assert_frame_equal(found.history, whole.history[["phase", "val_loss"]])


def test_a_run_that_has_been_deleted_is_named_with_how_to_restore_it(local: Store, trial: str) -> None:
    kept, deleted = (start_run(local, kind="trial", name=name, parent=trial) for name in "ab")
    assert set(find_records(local, trial, [kept, deleted])) == {kept, deleted}
    local.client.delete_run(deleted)
    assert set(find_records(local, trial, [kept])) == {kept}
    with pytest.raises(StoreError, match=f"1. mlflow runs restore --run-id {deleted}"):
        find_records(local, trial, [kept, deleted])


def test_a_run_may_be_read_without_predictions(local: Store, trial: str) -> None:
    assert read_run(local, trial, predictions=False).predictions == {}


def test_the_start_is_in_seconds(local: Store, trial: str) -> None:
    assert abs(read_run(local, trial).started_s - time.time()) < 600


def test_a_run_of_another_program_is_read(local: Store) -> None:
    record = read_run(local, local.client.create_run("0").info.run_id)
    assert (record.kind, record.recipe, record.part, record.parent) == ("", "", "", None)


@pytest.mark.parametrize("run_id", ["nonsense", "it's", "0" * 32])
def test_an_unknown_run_is_an_error(store: Store, run_id: str) -> None:
    with pytest.raises(StoreError, match=rf"has no run '{run_id}'.*MLFLOW_TRACKING_URI"):
        read_run(store, run_id)
    with pytest.raises(StoreError, match=rf"has no run '{run_id}'"):
        read_children(store, run_id)


def test_evaluations_are_counted_in_all_experiments(local: Store) -> None:
    for experiment, fingerprint in (("a", "x"), ("b", "x"), ("b", "y")):
        tags = {Tag.TEST_FINGERPRINT: fingerprint}
        start_run(local, experiment=experiment, kind="trial", name="t", tags=tags)
    assert [len(find_evaluations(local, one).run_ids) for one in "xz"] == [2, 0]

"""Names in the store, and the names that the code uses for them."""

from __future__ import annotations

import pytest

from muralab.experiment import VALIDATION_METRICS
from muralab.tracking import RunWriter, Store, find_evaluations, read_run, start_run
from muralab.tracking.stored_names import HIDDEN_TAGS, metric_of, stored_metric, stored_tag, stored_tags, tags_of
from muralab.tracking.tags import Tag

LOGGED = (
    *VALIDATION_METRICS, "train_loss", "test_study_auroc_low", "objective", "epoch_objective", "phase", "lr",
    "upper_epochs", "upper_eval_train_loss", "full_val_loss", "batch_parts", "members_mean_study_auroc",
)  # fmt: skip
UNGROUPED = (
    "folds_study_auroc",
    "fullness",
    "progress/trials_done",
    "system/cpu_percentage",
    "recipes/full_net/folds_study_auroc",
)


@pytest.mark.parametrize("name", [*LOGGED, *UNGROUPED])
def test_a_metric_is_read_by_the_name_that_it_was_logged_by(name: str) -> None:
    assert metric_of(stored_metric(name)) == name


def test_mlflow_shows_the_objective_first_and_then_groups() -> None:
    groups = {stored_metric(name).rpartition("/")[0] for name in LOGGED}
    assert sorted(groups) == ["objective", "phase/full", "phase/upper", "test", "train", "val"]


@pytest.mark.parametrize("name", [*LOGGED, *UNGROUPED])
def test_metrics_of_earlier_versions_keep_their_names(name: str) -> None:
    assert metric_of(name) == name


def test_bookkeeping_is_hidden_from_the_pages_and_read_back() -> None:
    tags = {name: "x" for name in HIDDEN_TAGS} | {Tag.PART: "wrist"}
    assert [name for name in stored_tags(tags) if not name.startswith("mlflow.")] == [Tag.PART]
    assert tags_of(stored_tags(tags)) == tags


def test_tags_of_earlier_versions_are_read_and_this_versions_hold() -> None:
    assert tags_of({Tag.PID: "1"}) == {Tag.PID: "1"}
    assert tags_of({Tag.PID: "1", stored_tag(Tag.PID): "2"}) == {Tag.PID: "2"}


@pytest.mark.parametrize("name", ["val_loss", "full_val_loss", "batch_parts"])
def test_a_run_of_an_earlier_version_is_resumed_as_one_curve(store: Store, name: str) -> None:
    run = start_run(store, experiment="lab", kind="trial", name="cnn-00")
    for step in (1, 2):
        store.client.log_metric(run, name, 1 / step, step=step)
    with RunWriter(store) as writer:
        writer.resume_run(run)
        for step in (2, 3):
            writer.log_epoch(run, step, {name: 1 / step})
        writer.finish(run)
    record = read_run(store, run)
    assert record.history[name].to_dict() == {1: 1.0, 2: 0.5, 3: 1 / 3}
    assert record.metrics == {name: 1 / 3}
    assert set(store.client.get_run(run).data.metrics) == {name, stored_metric(name)}


def test_evaluations_of_earlier_versions_are_found_too(store: Store) -> None:
    old, new = (start_run(store, experiment="lab", kind="trial", name=name) for name in ("old", "new"))
    store.client.set_tag(old, Tag.TEST_FINGERPRINT, "f" * 32)
    store.client.set_tag(new, stored_tag(Tag.TEST_FINGERPRINT), "f" * 32)
    assert find_evaluations(store, "f" * 32).run_ids == {old, new}

"""The count of evaluations on a test set: it includes every run once, and deleting runs does not lower it."""

from __future__ import annotations

from collections.abc import Iterable

import pytest

from muralab.registry import evaluation_count
from muralab.registry.evaluation_count import count_test_evaluations, record_evaluations
from muralab.tracking import Store, start_run
from muralab.tracking.patient_sketch import sketch_patients
from muralab.tracking.stored_names import stored_tag
from muralab.tracking.tags import Tag


@pytest.fixture
def name(store: Store, request: pytest.FixtureRequest) -> str:
    """A registered model of one test's own; also the fingerprint of its test set."""
    own = request.node.name[:50]
    store.client.create_registered_model(own)
    return str(own)


def evaluate(store: Store, fingerprint: str, times: int = 1, *, patients: Iterable[int] = ()) -> list[str]:
    """Runs that were evaluated on a test set; without patients, by a version that did not log them."""
    tags = {Tag.TEST_FINGERPRINT: fingerprint}
    if patients:
        tags[stored_tag(Tag.TEST_PATIENTS)] = sketch_patients(f"{fingerprint[:20]} {number}" for number in patients)
    return [start_run(store, experiment="lab", kind="trial", name="t", tags=tags) for _ in range(times)]


def purge(store: Store, runs: list[str]) -> None:
    """Delete runs for good, as `mlflow gc` does."""
    for run in runs:
        store.client.delete_run(run)
        store.client._tracking_client.store._hard_delete_run(run)


def test_each_run_counts_once(store, name):
    evaluate(store, name, 3)
    assert [record_evaluations(store, name, name) for _ in range(2)] == [3, 3]
    evaluate(store, name)
    assert record_evaluations(store, name, name) == 4


def test_deleted_runs_stay_counted(store, name):
    runs = evaluate(store, name, 3)
    store.client.delete_run(runs[0])
    assert record_evaluations(store, name, name) == 3
    purge(store, runs[1:])
    evaluate(store, name, 2)
    assert count_test_evaluations(store, name, name) == 5
    assert record_evaluations(store, name, name) == 5


def test_the_count_is_a_tag_of_the_registered_model(store, name):
    evaluate(store, name, 2)
    record_evaluations(store, name, name)
    assert store.client.get_registered_model(name).tags[f"muralab.test_looks.{name}"] == "2"


def test_counting_alone_stores_nothing(store, name):
    evaluate(store, name, 2)
    assert count_test_evaluations(store, name, name) == 2
    assert not store.client.get_registered_model(name).tags


def test_a_model_that_is_not_registered_yet_has_the_count_of_the_runs(store, request):
    evaluate(store, request.node.name, 2)
    assert record_evaluations(store, "mura-none", request.node.name) == 2
    assert count_test_evaluations(store, "mura-none", request.node.name) == 2


def test_other_test_sets_are_counted_apart(store, name):
    evaluate(store, name, 2)
    evaluate(store, f"{name}-other")
    assert record_evaluations(store, name, f"{name}-other") == 1
    assert record_evaluations(store, name, name) == 2


def test_a_set_with_mostly_the_same_patients_continues_the_count(store, name):
    """Such as with duplicates=drop, a corrected label or an unreadable file; the fingerprint differs."""
    kept, dropped = f"{name}-keep", f"{name}-drop"
    early = evaluate(store, kept, 20, patients=range(100))
    assert record_evaluations(store, name, kept) == 20
    evaluate(store, dropped, patients=range(10, 100))
    assert count_test_evaluations(store, name, dropped) == 21
    assert record_evaluations(store, name, dropped) == 21
    assert record_evaluations(store, name, kept) == 21
    purge(store, early)
    assert count_test_evaluations(store, name, dropped) == 21
    evaluate(store, f"{name}-third", patients=range(5, 100))
    assert count_test_evaluations(store, name, f"{name}-third") == 22


def test_deleting_the_runs_of_a_similar_set_does_not_lower_the_count(store, name):
    """Where the similar set was never counted under this fingerprint itself."""
    runs = evaluate(store, f"{name}-a", 5, patients=range(80))
    record_evaluations(store, name, f"{name}-a")
    purge(store, runs)
    evaluate(store, f"{name}-b", patients=range(4, 80))
    assert count_test_evaluations(store, name, f"{name}-b") == 6


def test_a_set_with_few_patients_in_common_is_another_one(store, name):
    evaluate(store, f"{name}-a", 5, patients=range(100))
    record_evaluations(store, name, f"{name}-a")
    evaluate(store, f"{name}-b", patients=range(60, 160))
    assert record_evaluations(store, name, f"{name}-b") == 1


def test_long_lists_of_runs_are_kept_in_several_tags(store, name, monkeypatch):
    monkeypatch.setattr(evaluation_count, "IDS_PER_TAG", 2)
    for total in (3, 4, 7):
        evaluate(store, name, total - count_test_evaluations(store, name, name))
        assert record_evaluations(store, name, name) == total
    lists = [value for key, value in store.client.get_registered_model(name).tags.items() if "look_runs" in key]
    assert sorted(len(one.split()) for one in lists) == [1, 2, 2, 2]

"""Starting and adopting runs, experiments, and closing the runs of dead processes."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from muralab.errors import StoreError
from muralab.tracking import (
    Store,
    adopt_run,
    claim_run,
    close_dead_runs,
    experiment_id_of,
    experiment_of,
    is_alive,
    read_children,
    read_run,
    start_run,
)
from muralab.tracking.runs import clean_tags
from muralab.tracking.tags import Tag
from tests.fixtures.runs import find_runs
from tests.tracking.conftest import UNKNOWN, start_python


def test_a_started_run_is_running(local: Store) -> None:
    record = read_run(local, start_run(local, kind="tune", name="sweep", tags={Tag.SEED: 3}))
    assert (record.name, record.kind, record.status, record.tags[Tag.SEED]) == ("sweep", "tune", "RUNNING", "3")
    assert is_alive(record.tags)


def test_a_nested_run_is_in_its_parents_experiment(store: Store, parent: str) -> None:
    run_id = start_run(store, experiment="another", kind="trial", name="t", parent=parent)
    assert experiment_of(store, run_id) == experiment_of(store, parent) != "0"
    assert read_run(store, run_id).tags[Tag.PARENT_RUN_ID] == parent


def test_a_run_without_experiment_is_in_the_default(local: Store, trial: str) -> None:
    assert experiment_of(local, trial) == experiment_id_of(local, None) == "0"


def test_an_experiment_is_created_once(local: Store) -> None:
    assert experiment_id_of(local, "lab") == experiment_id_of(local, "lab")


def test_a_deleted_experiment_is_refused(local: Store) -> None:
    found = experiment_id_of(local, "lab")
    local.client.delete_experiment(found)
    with pytest.raises(StoreError, match=rf"'lab' of .* is deleted.*restore --experiment-id {found}"):
        experiment_id_of(local, "lab")


@pytest.mark.parametrize(
    ("name", "folder"), [("mura wrist", "mura-wrist"), ("a/b: c", "a-b-c"), (" ..", "experiment"), ("v1.2", "v1.2")]
)
def test_artifacts_are_beside_the_database(
    local: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, folder: str
) -> None:
    monkeypatch.chdir("/")
    found = local.client.get_experiment(experiment_id_of(local, name))
    assert found.artifact_location == (tmp_path / "mlruns" / folder).as_uri()


def test_an_experiment_is_shown_as_training_unless_its_kind_is_set(local: Store) -> None:
    run_id = local.client.create_run("0").info.run_id
    adopt_run(local, run_id)
    assert local.client.get_experiment("0").tags[Tag.EXPERIMENT_KIND] == "custom_model_development"
    local.client.set_experiment_tag("0", Tag.EXPERIMENT_KIND, "other")
    adopt_run(local, run_id)
    assert local.client.get_experiment("0").tags[Tag.EXPERIMENT_KIND] == "other"


def test_an_adopted_run_keeps_its_own_tags(store: Store) -> None:
    tags = {Tag.SOURCE_NAME: "https://example.org/lab", Tag.USER: "ada", Tag.GIT_COMMIT: "abc"}
    run_id = store.client.create_run("0", tags=tags).info.run_id
    adopt_run(store, run_id, {Tag.PART: "wrist", Tag.RUN_NAME: "sweep"})
    record = read_run(store, run_id)
    assert (record.kind, record.part, record.name, record.status) == ("tune", "wrist", "sweep", "RUNNING")
    assert tags.items() <= record.tags.items()


@pytest.mark.parametrize("call", [adopt_run, claim_run])
def test_an_unknown_run_is_not_adopted(local: Store, call: object) -> None:
    with pytest.raises(StoreError, match=f"could not adopt the run {UNKNOWN}"):
        call(local, UNKNOWN)


def test_tags_are_texts_of_limited_length() -> None:
    tags = clean_tags({"number": 1.5, "longest": "x" * 8000, "longer": "x" * 8001})
    assert (tags["number"], tags["longest"]) == ("1.5", "x" * 8000)
    assert tags["longer"].endswith("... [shortened: 8001 characters]")
    assert len(tags["longer"]) == 8000


def test_a_search_reads_all_pages(local: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muralab.tracking.runs.PAGE", 2)
    parent = start_run(local, kind="tune", name="sweep")
    for i in range(5):
        start_run(local, kind="trial", name=str(i), parent=parent)
    assert [run.name for run in read_children(local, parent)] == list("01234")


def test_a_search_reads_all_experiments(local: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("muralab.tracking.runs.PAGE", 2)
    for i in range(5):
        start_run(local, experiment=f"lab {i}", kind="tune", name=str(i))
    assert [run.name for run in find_runs(local)] == list("01234")


@pytest.mark.slow
def test_runs_of_a_killed_process_are_closed(local: Store) -> None:
    code = (
        "import os, signal; from muralab.tracking import *\n"
        f"store = open_store('{local.uri}'); parent = start_run(store, kind='tune', name='sweep')\n"
        "with RunWriter(store) as writer:\n"
        "    writer.start_run(kind='trial', name='t', parent=parent); writer.flush()\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    assert start_python(code).wait(600) == -signal.SIGKILL
    assert len(close_dead_runs(local)) == 2
    assert {record.status for record in find_runs(local)} == {"KILLED"}


def test_a_run_of_a_dead_process_is_closed(local: Store) -> None:
    tags = {Tag.PROCESS_STARTED: "0a1b2c3d.4026531836.152678"}  # of an earlier boot, as commit 2303a03 wrote it
    run_id = start_run(local, kind="tune", name="old", tags=tags)
    assert close_dead_runs(local, ["0"]) == [run_id]
    record = read_run(local, run_id)
    assert (record.status, record.tags[Tag.CLOSED_AFTER]) == ("KILLED", "the process was gone")


@pytest.mark.parametrize("tags", [{}, {Tag.HOST: "elsewhere", Tag.PID: "1"}, {Tag.PROCESS_STARTED: "unknown"}])
def test_runs_of_live_processes_and_other_hosts_are_not_closed(local: Store, tags: dict[str, str]) -> None:
    start_run(local, kind="tune", name="mine", tags=tags)
    assert close_dead_runs(local) == []


def test_only_runs_of_the_given_experiments_are_closed(local: Store) -> None:
    start_run(local, experiment="lab", kind="tune", name="old", tags={Tag.PROCESS_STARTED: "0.0.0"})
    assert close_dead_runs(local, ["0"]) == []


def test_a_claimed_run_belongs_to_this_process(local: Store) -> None:
    run_id = local.client.create_run("0").info.run_id
    assert close_dead_runs(local, claim=run_id) == []
    tags = read_run(local, run_id).tags
    assert is_alive(tags)
    assert tags[Tag.PID] == str(os.getpid())
    assert Tag.SOURCE_NAME not in tags

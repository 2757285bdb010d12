"""What every command does around its own work."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from muralab.commands.session import Session, open_session, page_lines, ui_command
from muralab.config.environment import Environment
from muralab.errors import StoreError
from muralab.tracking import Store, experiment_id_of, read_run, start_run
from muralab.tracking.pages import run_page
from muralab.tracking.projects import ENTRY_POINT, discard_refused
from tests.tune.recorder import Recorder

COMMAND = "make tune ARGS='-P resume=abc'"


def session(**fields: Any) -> Session:
    """A session whose writer only remembers and whose console writes into a text."""
    environment = Environment(tracking_uri="sqlite:////none/m.db", cache=Path("/none"), **fields)
    console, store = Console(file=io.StringIO(), width=200), Store(uri=environment.tracking_uri)
    writer: Any = Recorder()
    return Session(kind="tune", environment=environment, store=store, writer=writer, console=console)


class Closed(io.StringIO):
    """A stream that can no longer be written."""

    def write(self, _: str) -> int:
        raise OSError(5, "Input/output error")


def printed(one: Session) -> str:
    return str(one.console.file.getvalue())


@pytest.mark.parametrize("error", [StoreError("The store went away."), OSError(28, "No space left"), SystemExit(1)])
def test_whatever_stops_the_work_shows_how_to_resume(error: BaseException) -> None:
    one = session()
    with pytest.raises(type(error)), one.resumable(COMMAND):
        raise error
    assert f"Once it is fixed, resume with:\n  {COMMAND}\n" in printed(one)


def test_an_interrupt_ends_the_open_runs_and_shows_how_to_resume_once() -> None:
    one = session()
    one.interrupted(COMMAND)  # as the executor does before Ray is taken down
    with pytest.raises(KeyboardInterrupt), one.resumable(COMMAND):
        raise KeyboardInterrupt
    assert printed(one) == f"\nInterrupted. Resume with:\n  {COMMAND}\n"
    assert one.writer.all("end_open_runs") == [("KILLED",)] * 2  # type: ignore[attr-defined]


def test_a_lost_terminal_does_not_stop_the_clean_up() -> None:
    one = session()
    one.console.file = Closed()
    one.interrupted(COMMAND)
    assert one.writer.all("end_open_runs") == [("KILLED",)]  # type: ignore[attr-defined]


def test_work_that_ends_well_shows_nothing() -> None:
    one = session()
    with one.resumable(COMMAND):
        pass
    assert printed(one) == ""


def test_lines_are_printed_as_they_are() -> None:
    one = session()
    one.print("[bold]", "x" * 300)
    assert printed(one) == "[bold]\n" + "x" * 300 + "\n"


def test_the_run_of_mlflow_run_is_adopted() -> None:
    one = session(run_id="r1", experiment="lab")
    one.start_run(name="tune-wrist", part="wrist", tags={"a": "b"})
    assert one.writer.all("adopt_run") == [("r1", {"a": "b", "mlflow.runName": "tune-wrist"})]  # type: ignore[attr-defined]


def test_without_it_a_run_is_started_in_the_parts_experiment(store: Store) -> None:
    environment = Environment(tracking_uri=store.uri, cache=Path("/none"))
    with open_session("report", environment) as one:
        run = one.start_run(name="report-wrist", part="wrist", tags={})
        one.writer.finish(run)
    record = read_run(store, run)
    assert (record.kind, record.name, record.status) == ("report", "report-wrist", "FINISHED")
    assert store.client.get_experiment(record.experiment_id).name == "mura-wrist"


def project_run(store: Store, name: str, experiment: str = "Default") -> str:
    """A run as `mlflow run` creates it."""
    tags = {ENTRY_POINT: "tune"}
    run = store.client.create_run(experiment_id_of(store, experiment), tags=tags, run_name=name)
    store.client.log_param(run.info.run_id, "trials", "auto")
    return str(run.info.run_id)


def is_discarded(store: Store, run_id: str) -> bool:
    info = store.client.get_run(run_id).info
    return bool(info.lifecycle_stage == "deleted" and info.status == "FINISHED")


def test_the_run_of_a_command_that_resumes_another_is_discarded(store: Store) -> None:
    old, own = start_run(store, experiment="lab", kind="tune", name="old"), project_run(store, "vocal-fox-1")
    environment = Environment(tracking_uri=store.uri, cache=Path("/none"), run_id=own)
    with open_session("tune", environment) as one:
        one.resume_run(old)
        one.writer.finish(old)
    assert is_discarded(store, own)
    assert (read_run(store, old).kind, read_run(store, old).status) == ("tune", "FINISHED")


def test_a_run_that_mlflow_run_made_in_no_experiment_is_replaced_by_one_of_the_part(store: Store) -> None:
    own = project_run(store, "vocal-fox-1")
    environment = Environment(tracking_uri=store.uri, cache=Path("/none"), run_id=own)
    with open_session("tune", environment) as one:
        run = one.start_run(name="tune hand", part="hand", tags={})
        one.writer.log_used(run, {"trials": 2})
        one.writer.finish(run)
    record = read_run(store, run)
    assert store.client.get_experiment(record.experiment_id).name == "mura-hand"
    assert (record.params, record.tags[ENTRY_POINT]) == ({"trials": "auto", "resolved.trials": "2"}, "tune")
    assert is_discarded(store, own)


def test_a_command_that_logs_nothing_leaves_no_run(store: Store) -> None:
    own = project_run(store, "vocal-fox-1", "mura-hand")
    with open_session("tune", Environment(tracking_uri=store.uri, cache=Path("/none"), run_id=own)) as one:
        one.discard_own_run("dry_run")
    assert is_discarded(store, own)


def test_the_run_of_a_refused_command_is_discarded_with_the_reason(store: Store) -> None:
    own, used = project_run(store, "vocal-fox-1"), project_run(store, "vocal-fox-2")
    store.client.set_tag(used, "muralab.kind", "tune")
    for run in (own, used):
        discard_refused(store.uri, run, "data=/nowhere does not exist.")
    runs = {run: store.client.get_run(run) for run in (own, used)}
    assert [runs[run].info.lifecycle_stage for run in (own, used)] == ["deleted", "active"]
    assert runs[own].data.tags["mlflow.note.content"] == "data=/nowhere does not exist."


def test_a_run_that_nobody_finished_is_ended_as_failed(store: Store) -> None:
    environment = Environment(tracking_uri=store.uri, cache=Path("/none"))
    with open_session("explore", environment) as one:
        run = one.start_run(name="x", part="wrist", tags={})
    assert read_run(store, run).status == "FAILED"


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("postgresql://me:secret@host/runs", '--backend-store-uri "$MLFLOW_TRACKING_URI" --host'),
        ("sqlite:////data/mlflow.db", "sqlite:////data/mlflow.db --host 127.0.0.1 --port 5000 --workers 1"),
    ],
)
def test_a_password_is_not_part_of_the_ui_command(
    uri: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)  # in a checkout it is `make ui`
    assert expected in ui_command(uri)
    assert "secret" not in ui_command(uri)


def test_in_a_checkout_the_pages_are_served_by_make(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("Makefile", "MLproject"):
        (tmp_path / name).touch()
    assert ui_command("sqlite:////data/mlflow.db") == "make ui"


@pytest.mark.parametrize(
    ("uri", "server"),
    [("sqlite:////data/m.db", "http://127.0.0.1:5000"), ("http://me:secret@host:5000", "http://me:***@host:5000")],
)
def test_a_printed_address_leads_to_the_page_of_a_run(uri: str, server: str) -> None:
    first = page_lines(Store(uri=uri), run_page("1", "abc"))[0]
    assert first.strip() == f"{server}/#/experiments/1/runs/abc?workflowType=machine_learning"

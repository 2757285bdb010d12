"""What every command does around its own work."""

from __future__ import annotations

import io
import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from muralab import ending
from muralab.commands.session import Session, open_session, page_lines, ui_command, with_latest
from muralab.config.commands import TuneConfig
from muralab.config.environment import Environment
from muralab.errors import SettingsError, StoreError, SweepTakenError
from muralab.tracking import Store, experiment_id_of, read_run, start_run
from muralab.tracking.journal import Journal
from muralab.tracking.operations import Batch
from muralab.tracking.pages import run_page
from muralab.tracking.projects import ENTRY_POINT, close_refused
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


@pytest.fixture(autouse=True)
def no_last_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "_last_lines", [])


def last_lines() -> list[str]:
    return ending._last_lines


def printed(one: Session) -> str:
    return str(one.console.file.getvalue())


@pytest.mark.parametrize("error", [StoreError("The store went away."), OSError(28, "No space left"), SystemExit(1)])
def test_whatever_stops_the_work_shows_how_to_resume(error: BaseException) -> None:
    one = session()
    with pytest.raises(type(error)), one.resumable(COMMAND):
        raise error
    assert last_lines() == ["Once it is fixed, resume with:", f"  {COMMAND}"]


def test_an_interrupt_ends_the_open_runs_and_shows_how_to_resume_once() -> None:
    one = session()
    one.interrupted(COMMAND)  # as the executor does before Ray is taken down
    with pytest.raises(KeyboardInterrupt), one.resumable(COMMAND):
        raise KeyboardInterrupt
    assert last_lines() == ["Interrupted. Resume with:", f"  {COMMAND}"]
    assert printed(one) == "\nInterrupted: closing the runs.\n"
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
    assert last_lines() == []


def test_lines_are_printed_as_they_are() -> None:
    one = session()
    one.print("[bold]", "x" * 300)
    assert printed(one) == "[bold]\n" + "x" * 300 + "\n"


def test_the_run_of_mlflow_run_is_adopted() -> None:
    one = session(run_id="r1", experiment="lab")
    one.start_run(name="tune-wrist", part="wrist", tags={"a": "b"})
    assert one.writer.all("adopt_run") == [("r1", {"a": "b", "mlflow.runName": "tune-wrist"})]  # type: ignore[attr-defined]


def test_without_it_a_run_is_started_in_the_parts_experiment(store: Store, tmp_path: Path) -> None:
    environment = Environment(tracking_uri=store.uri, cache=tmp_path)
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


def closed_as(store: Store, run_id: str) -> tuple[str, str, str]:
    """Name, status and description of a run."""
    run = store.client.get_run(run_id)
    return run.info.run_name, run.info.status, run.data.tags["mlflow.note.content"]


def test_the_run_of_a_command_that_resumes_another_links_to_it(store: Store, tmp_path: Path) -> None:
    old, own = start_run(store, experiment="lab", kind="tune", name="old"), project_run(store, "vocal-fox-1")
    environment = Environment(tracking_uri=store.uri, cache=tmp_path, run_id=own)
    with open_session("tune", environment) as one:
        one.resume_run(old)
        one.writer.finish(old)
    name, status, note = closed_as(store, own)
    assert (name, status, old in note) == ("tune, resumed", "FINISHED", True)
    assert (read_run(store, old).kind, read_run(store, old).status) == ("tune", "FINISHED")


def test_a_run_that_mlflow_run_made_in_no_experiment_is_replaced_by_one_of_the_part(
    store: Store, tmp_path: Path
) -> None:
    own = project_run(store, "vocal-fox-1")
    environment = Environment(tracking_uri=store.uri, cache=tmp_path, run_id=own)
    with open_session("tune", environment) as one:
        run = one.start_run(name="tune hand", part="hand", tags={})
        one.writer.log_used(run, {"trials": 2})
        one.writer.finish(run)
    record = read_run(store, run)
    assert store.client.get_experiment(record.experiment_id).name == "mura-hand"
    assert (record.params, record.tags[ENTRY_POINT]) == ({"trials": "auto", "resolved.trials": "2"}, "tune")
    name, status, note = closed_as(store, own)
    assert (name, status) == ("see mura-hand: tune hand", "FINISHED")
    assert f"/runs/{run}?" in note


def test_the_run_of_a_command_that_logs_nothing_says_so(store: Store, tmp_path: Path) -> None:
    own = project_run(store, "vocal-fox-1", "mura-hand")
    with open_session("tune", Environment(tracking_uri=store.uri, cache=tmp_path, run_id=own)) as one:
        one.close_own_run("tune, dry run", "Nothing was started.")
    assert closed_as(store, own) == ("tune, dry run", "FINISHED", "Nothing was started.")


def test_the_run_of_a_refused_command_has_the_reason(store: Store) -> None:
    own, used = project_run(store, "vocal-fox-1"), project_run(store, "vocal-fox-2")
    store.client.set_tag(used, "muralab.kind", "tune")
    for run in (own, used):
        close_refused(store.uri, run, "data=/nowhere does not exist.")
    assert closed_as(store, own) == ("tune, refused", "FAILED", "Nothing was started: data=/nowhere does not exist.")
    assert store.client.get_run(used).info.run_name == "vocal-fox-2"


def test_a_run_that_nobody_finished_is_ended_as_failed(store: Store, tmp_path: Path) -> None:
    environment = Environment(tracking_uri=store.uri, cache=tmp_path)
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


# The run of `mlflow run`, and what else the environment names


@pytest.mark.parametrize("status", ["FINISHED", "FAILED", "KILLED"])
def test_a_run_that_has_ended_is_not_taken_over(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str], status: str
) -> None:
    old = start_run(store, kind="tune", name="old")
    store.client.set_terminated(old, status)
    with open_session("tune", Environment(tracking_uri=store.uri, cache=tmp_path, run_id=old)) as one:
        run = one.start_run(name="new", part="wrist", tags={})
        one.writer.finish(run)
    assert run != old
    assert (read_run(store, old).name, read_run(store, old).status) == ("old", status)
    assert f"MLFLOW_RUN_ID names the run {old}, which has ended ({status})" in capsys.readouterr().out


@pytest.mark.parametrize("status", ["RUNNING", "SCHEDULED"])
def test_a_run_that_has_not_ended_is_taken_over(store: Store, tmp_path: Path, status: str) -> None:
    given = start_run(store, kind="tune", name="given")
    store.client.update_run(given, status=status)
    with open_session("tune", Environment(tracking_uri=store.uri, cache=tmp_path, run_id=given)) as one:
        assert one.environment.run_id == given
        one.writer.finish(one.start_run(name="new", part="wrist", tags={}))
    assert (read_run(store, given).name, read_run(store, given).status) == ("new", "FINISHED")


def test_a_run_of_another_process_is_not_taken_over(store: Store, tmp_path: Path) -> None:
    other = start_run(store, kind="tune", name="other", tags={"muralab.host": "elsewhere"})
    with open_session("tune", Environment(tracking_uri=store.uri, cache=tmp_path, run_id=other)) as one:
        assert one.environment.run_id is None
    assert read_run(store, other).status == "RUNNING"


def test_a_run_in_another_folders_store_is_explained_and_no_store_is_created(tmp_path: Path) -> None:
    environment = Environment(tracking_uri=f"sqlite:///{tmp_path}/mlflow.db", cache=tmp_path, run_id="0" * 32)
    with pytest.raises(StoreError, match=r"started in another folder.*absolute"), open_session("tune", environment):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_the_store_does_not_hold_is_explained(store: Store, tmp_path: Path) -> None:
    environment = Environment(tracking_uri=store.uri, cache=tmp_path / "cache", run_id="0" * 32)
    with (
        pytest.raises(StoreError, match=r"does not hold the run 0{32}.*unset MLFLOW_RUN_ID"),
        open_session("tune", environment),
    ):
        pass


def test_an_experiment_may_be_given_by_its_id(store: Store, tmp_path: Path) -> None:
    lab = store.client.create_experiment("lab")
    environment = Environment(tracking_uri=store.uri, cache=tmp_path, experiment_id=lab)
    with open_session("report", environment) as one:
        assert read_run(store, one.start_run(name="r", part="wrist", tags={})).experiment_id == lab


# What the store did not take


def test_what_the_store_refuses_is_printed_at_the_end_and_kept(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with open_session("tune", Environment(tracking_uri=store.uri, cache=tmp_path)) as one:
        run = one.start_run(name="new", part="wrist", tags={})
        one.writer.log_epoch(run, 1, {"bad%name": 1.0})
        one.writer.finish(run)
    out = capsys.readouterr().out
    assert "The tracking store refused 1 items; everything else is written." in out
    assert "once that is fixed, `muralab sync`" in out
    assert "Names may only contain" in read_run(store, run).tags["muralab.not_logged"]


def test_the_next_command_writes_what_an_earlier_one_kept(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = start_run(store, kind="tune", name="sweep")
    journal = Journal.create(tmp_path / "journals", store_uri=store.uri, command="tune")
    journal.add(run, Batch(tags={"kept": "1"}))
    journal.close(finished=False)
    with open_session("report", Environment(tracking_uri=store.uri, cache=tmp_path)):
        assert read_run(store, run).tags["kept"] == "1"
    assert "Wrote 1 entries that an earlier `tune` had kept" in capsys.readouterr().out


def test_a_cache_that_cannot_be_written_costs_no_command(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "file").touch()
    with open_session("report", Environment(tracking_uri=store.uri, cache=tmp_path / "file")) as one:
        one.writer.finish(one.start_run(name="r", part="wrist", tags={}))
    assert "kept in memory only" in capsys.readouterr().out


def test_the_runs_of_a_sweep_that_another_command_has_taken_over_are_left_to_it(store: Store, tmp_path: Path) -> None:
    runs: list[str] = []

    def work() -> None:
        with open_session("tune", Environment(tracking_uri=store.uri, cache=tmp_path)) as one:
            runs.append(one.start_run(name="taken", part="wrist", tags={}))
            with one.resumable(COMMAND, runs[0]):
                raise SweepTakenError

    with pytest.raises(SweepTakenError):
        work()
    found = read_run(store, runs[0])
    assert (found.status, found.tags.get("mlflow.note.content")) == ("RUNNING", None)


# Searches to resume


def interrupted_search(cache: Path, run_id: str, kind: str = "tune", *, started_s: float = 0.0) -> None:
    folder = cache / "sweeps" / run_id
    folder.mkdir(parents=True)
    (folder / "split.csv").touch()
    os.utime(folder / "split.csv", (started_s, started_s))
    (folder / "plan.json").write_text(json.dumps({"kind": kind, "options": {"part": "left wrist"}, "specs": []}))


def test_latest_is_the_interrupted_search_of_this_command_that_started_last(tmp_path: Path) -> None:
    one = session()
    one.environment = replace(one.environment, cache=tmp_path)
    for run_id, kind, started_s in (("a", "tune", 5.0), ("b", "tune", 9.0), ("c", "train", 20.0)):
        interrupted_search(tmp_path, run_id, kind, started_s=started_s)
    assert with_latest(TuneConfig(resume="latest"), one).resume == "b"
    assert with_latest(TuneConfig(resume="a"), one).resume == "a"
    shutil.rmtree(tmp_path / "sweeps" / "a")
    shutil.rmtree(tmp_path / "sweeps" / "b")
    with pytest.raises(SettingsError, match="resume=latest: no interrupted `tune` is left in"):
        with_latest(TuneConfig(resume="latest"), one)


def test_the_next_command_shows_how_to_resume_a_search_that_was_killed(
    store: Store, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run_id = start_run(store, experiment="e", kind="tune", name="x")
    monkeypatch.setattr("muralab.commands.session.close_dead_runs", lambda *_, **__: [run_id])
    interrupted_search(tmp_path, run_id)
    environment = Environment(tracking_uri=store.uri, cache=tmp_path)
    with open_session("explore", environment):
        pass
    assert f"  make tune PART='left wrist' ARGS='-P resume={run_id}'\n" in capsys.readouterr().out
    with open_session("tune", environment, resuming="latest"):
        pass
    assert "make tune" not in capsys.readouterr().out

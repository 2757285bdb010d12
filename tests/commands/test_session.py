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
from muralab.commands.session import Session, find_resumed, open_session, ui_command
from muralab.config.environment import Environment
from muralab.errors import SettingsError, StoreError
from muralab.tracking import Store, read_run, start_run
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
    one = session(run_id="r1")
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


def test_the_run_that_resumes_another_ends_as_a_link(store: Store) -> None:
    old, own = (start_run(store, experiment="lab", kind="tune", name=name) for name in ("old", "own"))
    environment = Environment(tracking_uri=store.uri, cache=Path("/none"), run_id=own)
    with open_session("tune", environment) as one:
        one.resume_run(old, {"muralab.part": "wrist"})
        one.writer.finish(old)
    link = read_run(store, own)
    assert (link.kind, link.status, link.tags["muralab.resumes"]) == ("resume", "FINISHED", old)
    assert read_run(store, old).kind == "tune"


def test_a_run_that_nobody_finished_is_ended_as_failed(store: Store) -> None:
    environment = Environment(tracking_uri=store.uri, cache=Path("/none"))
    with open_session("explore", environment) as one:
        run = one.start_run(name="x", part="wrist", tags={})
    assert read_run(store, run).status == "FAILED"


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("http://me:secret@host:5000", "open http://me:***@host:5000"),
        ("postgresql://me:secret@host/runs", '--backend-store-uri "$MLFLOW_TRACKING_URI" --host'),
        ("sqlite:////data/mlflow.db", "--backend-store-uri sqlite:////data/mlflow.db --host"),
    ],
)
def test_a_password_is_not_part_of_the_ui_command(uri: str, expected: str) -> None:
    assert expected in ui_command(uri)
    assert "secret" not in ui_command(uri)


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
    assert find_resumed("latest", one, "tune") == "b"
    assert find_resumed("latest", one, "train") == "c"
    one.stack.close()
    shutil.rmtree(tmp_path / "sweeps")
    with pytest.raises(SettingsError, match="resume=latest: no interrupted `tune` is left in"):
        find_resumed("latest", one, "tune")


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

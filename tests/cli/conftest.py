"""Commands run as a user types them, in this process: exit code, output, and what is in the store afterwards."""

from __future__ import annotations

import shutil
import signal
import socket
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from muralab.tracking import RunRecord, Store, open_store, read_run
from muralab.tracking.runs import search_runs

SMALL = "tiny_lab.small_net"
COMMANDS = ["tune", "train", "explore", "evaluate"]


@dataclass(frozen=True)
class Outcome:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def complaint(self) -> str:
        """Standard error as one line."""
        return " ".join(self.err.split())


Muralab = Callable[..., Outcome]


@pytest.fixture
def store(tmp_path: Path, empty_database: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """An empty store of this test's own, and a cache; nothing else in the environment decides."""
    shutil.copy(empty_database, tmp_path / "mlflow.db")
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return open_store(f"sqlite:///{tmp_path}/mlflow.db")


@pytest.fixture
def muralab(store: Store, lab: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Muralab:
    """A function that runs a command: muralab("train", data=tree, epochs="1+1") -> Outcome; a bug raises."""
    from muralab import cli, ending

    monkeypatch.setattr(signal, "signal", lambda *_: None)
    monkeypatch.setattr(ending, "_limit_the_end", lambda: None)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    monkeypatch.setenv("COLUMNS", "160")  # tables are compared line by line
    monkeypatch.setattr(ending, "_received", [])
    monkeypatch.setattr(ending, "_last_lines", [])

    def run(command: str, **values: object) -> Outcome:
        flags = [word for key, value in values.items() for word in (f"--{key.replace('_', '-')}", str(value))]
        monkeypatch.setattr(sys, "argv", ["muralab", command, *flags])
        capsys.readouterr()
        try:
            cli.main()
        except SystemExit as leaving:
            return Outcome(int(str(leaving.code)), *capsys.readouterr())
        return Outcome(0, *capsys.readouterr())

    return run


@pytest.fixture
def tree(tmp_path: Path, write_tree: Callable[..., Path]) -> Path:
    """A tree of 16 patients' wrists that a test may spoil."""
    return write_tree(tmp_path / "own", parts=("wrist",), lists=False)


@pytest.fixture
def closed_port() -> str:
    """An address where nobody listens."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{free.getsockname()[1]}"


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch, closed_port: str) -> None:
    """No ImageNet weights on this machine, and a hub that cannot be reached."""
    import huggingface_hub
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "ENDPOINT", closed_port)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_: None)


def all_runs(store: Store) -> list[RunRecord]:
    """Every run of a store."""
    return [read_run(store, run.info.run_id) for run in search_runs(store, None, "")]


def spoil(folder: Path, pattern: str, content: bytes = b"not a picture") -> list[Path]:
    """Overwrite the files of a pattern; the hidden ones are left alone."""
    files = [path for path in sorted(folder.glob(pattern)) if not path.name.startswith(".")]
    for path in files:
        path.write_bytes(content)
    return files


def flags(command: str, tree: Path) -> dict[str, Any]:
    """What makes a command quick, and right but for what the test adds."""
    own = {"tune": {"recipes": SMALL}, "train": {"recipe": SMALL}, "evaluate": {"model": "none"}, "explore": {}}
    return {"data": tree, "part": "wrist", **own[command]}


def refused(muralab: Muralab, store: Store, command: str, **values: Any) -> Outcome:
    """The outcome of a command that must end with one paragraph and leave no run behind."""
    outcome = muralab(command, **values)
    assert outcome.code == 2, outcome
    assert "Traceback" not in outcome.err + outcome.out
    assert outcome.err.count("muralab: ") == 1
    assert all_runs(store) == []
    return outcome

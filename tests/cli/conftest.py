"""Commands run as a user types them, in this process: exit code, output, and what is in the store afterwards."""

from __future__ import annotations

import shutil
import signal
import socket
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from muralab.tracking import RunRecord, Store, open_store, read_run
from muralab.tracking.runs import search_runs
from tests.fixtures.old_store import replace_text

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
def prepared() -> None:
    """What a file does to a test's folder before its store is opened: nothing, unless the file overrides this."""


@pytest.fixture
def store(tmp_path: Path, empty_database: Path, prepared: None, monkeypatch: pytest.MonkeyPatch) -> Store:
    """A store of this test's own, empty unless prepared, and a cache; nothing else in the environment decides."""
    return use_store(tmp_path, empty_database, monkeypatch)


def use_store(folder: Path, empty_database: Path, patch: pytest.MonkeyPatch) -> Store:
    """Let commands use the store of a folder, which is created if missing, and a cache beside it."""
    if not (folder / "mlflow.db").exists():
        shutil.copy(empty_database, folder / "mlflow.db")
    for name in ("MLFLOW_RUN_ID", "MLFLOW_EXPERIMENT_ID", "MLFLOW_EXPERIMENT_NAME"):
        patch.delenv(name, raising=False)
    patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
    patch.setenv("XDG_CACHE_HOME", str(folder / "cache"))
    return open_store(f"sqlite:///{folder}/mlflow.db")


@pytest.fixture
def muralab(store: Store, lab: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Muralab:
    """A function that runs a command: muralab("train", data=tree, epochs="1+1") -> Outcome; a bug raises."""

    def run(command: str, **values: object) -> Outcome:
        capsys.readouterr()
        return Outcome(call(command, values, monkeypatch), *capsys.readouterr())

    return run


def call(command: str, values: Mapping[str, object], patch: pytest.MonkeyPatch) -> int:
    """Run a command in this process; its exit code."""
    from muralab import cli, ending

    flags = [word for key, value in values.items() for word in (f"--{key.replace('_', '-')}", str(value))]
    patch.setattr(signal, "signal", lambda *_: None)
    patch.setattr(ending, "_limit_the_end", lambda: None)
    patch.setattr(sys, "unraisablehook", sys.unraisablehook)
    patch.setenv("COLUMNS", "160")  # tables are compared line by line
    patch.setattr(ending, "_received", [])
    patch.setattr(ending, "_last_lines", [])
    patch.setattr(sys, "argv", ["muralab", command, *flags])
    try:
        cli.main()
    except SystemExit as leaving:
        return int(str(leaving.code))
    return 0


def copy_store(source: Path, target: Path) -> None:
    """Copy a folder with a store and a cache, so that its runs have their artifacts in the copy."""
    shutil.copytree(source, target, dirs_exist_ok=True)
    replace_text(target / "mlflow.db", {str(source): str(target)})


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


def image_codes(folder: Path) -> dict[str, str]:
    """Name -> code of every image that commands have coded, from the tables in the cache of a test's folder."""
    files = (folder / "cache" / "muralab" / "names").glob("*-????????????.csv")
    tables = [pd.read_csv(file) for file in files]
    return {name: code for table in tables for name, code in zip(table["real_image"], table["image"])}


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

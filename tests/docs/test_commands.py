"""The commands of the docs: each is run as printed in a fresh clone, or listed as not run with its reason."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import time
import urllib.request
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.docs.printed import NOT_RUN, ROOT, SERVERS, WALK, console_commands, printed_commands, reason

COMMAND_S = 3600


def test_every_printed_command_is_run_or_listed_with_a_reason() -> None:
    unlisted = [
        f"{page}: {command}" for page, command in printed_commands() if command not in WALK and not reason(command)
    ]
    assert unlisted == [], "add each to WALK, or with its reason to NOT_RUN, in tests/docs/printed.py"


def test_every_listed_command_is_printed_somewhere() -> None:
    printed = {command for _, command in printed_commands()}
    assert [command for command in WALK if command not in printed] == []
    used = {reason(command) for command in printed}
    assert [why for why in NOT_RUN.values() if why not in used] == []


def test_commands_are_read_without_comments_and_on_one_line() -> None:
    block = "```console\n$ make tune \\\n    A=1    # why\noutput $ not\n$ printf x |\n    cat\n```\n"
    assert console_commands(block) == ["make tune A=1", "printf x | cat"]


@pytest.mark.long
def test_the_walk_through_the_docs_runs_as_printed(tmp_path: Path) -> None:
    if not (ROOT / ".venv" / "installed-dev").exists():
        pytest.skip("make has not set up this checkout")
    clone = clone_checkout(tmp_path / "lab")
    environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
    environment |= {"XDG_CACHE_HOME": str(tmp_path / "cache"), "PATH": without_environments(os.environ["PATH"])}
    environment.pop("PYTHONPATH", None)
    exported: list[str] = []  # of this terminal
    for command in WALK:
        if command.startswith("export "):
            exported.append(command)
        if command in SERVERS:
            check_server(command, SERVERS[command], clone, environment)
        else:
            done = subprocess.run(
                ["bash", "-c", " && ".join([*exported, command])],
                cwd=clone,
                env=environment,
                capture_output=True,
                text=True,
                timeout=COMMAND_S,
                check=False,
            )
            assert done.returncode == 0, f"{command}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
            assert "Traceback" not in done.stderr, command


def clone_checkout(folder: Path) -> Path:
    """A clone with this checkout's environment, which make takes for complete."""
    subprocess.run(["git", "clone", "--quiet", str(ROOT), str(folder)], check=True)
    (folder / ".venv").symlink_to((ROOT / ".venv").resolve())
    for name in ("requirements.txt", "requirements-dev.txt"):
        shutil.copystat(ROOT / name, folder / name)
    return folder


def without_environments(path: str) -> str:
    """A search path without virtual environments, as a new terminal has it."""
    folders = path.split(os.pathsep)
    return os.pathsep.join(folder for folder in folders if not (Path(folder).parent / "pyvenv.cfg").exists())


def check_server(command: str, port: int, clone: Path, environment: Mapping[str, str]) -> None:
    """Start a server, wait for its answer, and stop it with Ctrl-C."""
    process = subprocess.Popen(["bash", "-c", f"exec {command}"], cwd=clone, env=environment, start_new_session=True)
    try:
        deadline = time.monotonic() + 300
        while not _answers(f"http://127.0.0.1:{port}/health"):
            assert process.poll() is None, f"{command} ended"
            assert time.monotonic() < deadline, f"{command} does not answer"
            time.sleep(1)
    finally:
        os.killpg(process.pid, signal.SIGINT)
        process.wait(timeout=120)


def _answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False

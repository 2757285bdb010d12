"""Before the app serves: who may reach it, with which token, and which model."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest

from muralab.commands.app import read_about, read_token, run
from muralab.config.commands import AppConfig
from muralab.config.environment import Environment
from muralab.errors import SettingsError

SOURCES = [str(Path(__file__).parents[2] / "platform"), str(Path(__file__).parents[2])]
MODEL = "models:/none/1"
ENVIRONMENT = Environment(tracking_uri="sqlite:////none/m.db", cache=Path("/none"))


def test_other_machines_need_a_token():
    with pytest.raises(SettingsError, match=r"host=0\.0\.0\.0 accepts other machines, which needs a token"):
        read_token(AppConfig(model=MODEL, host="0.0.0.0"))


def test_a_token_is_read_without_its_line_end(tmp_path):
    (tmp_path / "token").write_text("0123456789abcdef0123\n")
    assert read_token(AppConfig(model=MODEL, token_file=tmp_path / "token")) == "0123456789abcdef0123"


@pytest.mark.parametrize("token", ["short", "two words that are long", "ümlautümlautümlaut", ""])
def test_a_weak_token_is_refused(tmp_path, token):
    (tmp_path / "token").write_text(token, encoding="utf-8")
    with pytest.raises(SettingsError, match="one word of at least 16 characters"):
        read_token(AppConfig(model=MODEL, token_file=tmp_path / "token"))


def test_a_token_file_that_is_missing_is_named(tmp_path):
    with pytest.raises(SettingsError, match=r"token_file=.*/none cannot be read"):
        read_token(AppConfig(model=MODEL, token_file=tmp_path / "none"))


def test_a_taken_port_is_reported_before_the_model_loads_and_telemetry_is_off(monkeypatch):
    for name in ("MLFLOW_DISABLE_TELEMETRY", "DO_NOT_TRACK"):
        monkeypatch.setenv(name, "")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=rf"127\.0\.0\.1:{port} cannot be served .*Give another port"):
            run(AppConfig(model=MODEL, port=port), ENVIRONMENT)
    assert (os.environ["MLFLOW_DISABLE_TELEMETRY"], os.environ["DO_NOT_TRACK"]) == ("true", "true")


def test_a_folder_without_a_configuration_still_has_its_disclaimer(tmp_path):
    assert read_about(tmp_path)["disclaimer"].startswith("Not a medical device")


@pytest.mark.slow
def test_the_command_serves_until_it_is_stopped(model_folder, tmp_path):
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(SOURCES)}
    command = [sys.executable, "-m", "muralab", "app", "--model", str(model_folder), "--port", str(port)]
    process = subprocess.Popen(command, env=environment, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    try:
        assert reached(f"http://127.0.0.1:{port}/about", process)
        process.send_signal(signal.SIGTERM)
        assert process.wait(100) == 143
        assert "Traceback" not in process.stderr.read()
    finally:
        process.kill()
        process.stderr.close()


def reached(url: str, process: subprocess.Popen) -> bool:
    for _ in range(3000):
        assert process.poll() is None, process.stderr.read()
        try:
            return urllib.request.urlopen(url, timeout=2).status == 200
        except OSError:
            time.sleep(0.1)
    return False

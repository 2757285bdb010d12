"""The files of a team's server: each is what its own program takes, and what is backed up can be restored."""

from __future__ import annotations

import os
import re
import shutil
import stat
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from muralab.tracking import open_store, read_run
from tests.fixtures.team import BUCKET, object_store, postgres, postgres_programs, team_server
from tests.registry.conftest import log_run
from tests.team.conftest import become

ROOT = Path(__file__).parents[2]
TEAM = ROOT / "deploy" / "team"
MODEL = "mura-wrist"


def call(*command: object, env: Mapping[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    words, environment = [str(word) for word in command], {**os.environ, **(env or {})}
    return subprocess.run(words, capture_output=True, text=True, check=False, env=environment, timeout=600)


@pytest.mark.parametrize(
    "file", [TEAM / "compose.yaml", ROOT / "deploy" / "compose.yaml"], ids=lambda path: path.parent.name
)
def test_compose_files_fit_their_schema(file: Path) -> None:
    done = call(sys.executable, "-m", "check_jsonschema", "--builtin-schema", "vendor.compose-spec", file)
    assert done.returncode == 0, done.stdout


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not installed")
def test_systemd_takes_the_units(tmp_path: Path) -> None:
    for unit in (TEAM / "systemd").iterdir():
        text = re.sub(r"^ExecStart=/opt/\S+", "ExecStart=/bin/true", unit.read_text(), flags=re.MULTILINE)
        (tmp_path / unit.name).write_text(text)
    done = call("systemd-analyze", "verify", *sorted(tmp_path.glob("muralab-*")))
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
def test_nginx_takes_its_settings(tmp_path: Path) -> None:
    (tmp_path / "tls").mkdir()
    request = ("req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=lab", "-days", 2)
    made = call("openssl", *request, "-keyout", tmp_path / "tls" / "key.pem", "-out", tmp_path / "tls" / "cert.pem")
    assert made.returncode == 0, made.stderr
    text = (TEAM / "nginx.conf").read_text().replace("server mlflow:5000", "server 127.0.0.1:5000")
    (tmp_path / "nginx.conf").write_text(f"pid {tmp_path}/pid;\n{text}")
    done = call("nginx", "-t", "-p", tmp_path, "-c", tmp_path / "nginx.conf", "-g", "error_log stderr;")
    assert done.returncode == 0, done.stderr


def test_secrets_are_made_once_and_for_one_user(tmp_path: Path) -> None:
    assert call("bash", TEAM / "secrets.sh", tmp_path / "secrets").returncode == 0
    made = {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()}
    assert made.keys() == {"postgres_password", "pgpass", "s3.env", "mlflow.env"}
    assert {stat.S_IMODE((tmp_path / "secrets" / name).stat().st_mode) for name in made} == {0o600}
    call("bash", TEAM / "secrets.sh", tmp_path / "secrets")
    assert {path.name: path.read_text() for path in (tmp_path / "secrets").iterdir()} == made


def test_the_server_is_of_the_version_that_is_tested() -> None:
    def pin(file: Path, package: str) -> str:
        return next(line for line in file.read_text().splitlines() if line.startswith(f"{package}=="))

    server = TEAM / "requirements.txt"
    assert pin(server, "mlflow") == pin(ROOT / "requirements.txt", "mlflow")
    for package in ("Flask-WTF", "psycopg", "psycopg-binary", "boto3"):
        assert pin(server, package) == pin(ROOT / "requirements-dev.txt", package)


@pytest.mark.long
@pytest.mark.skipif(shutil.which("rclone") is None, reason="rclone is not installed")
def test_what_is_backed_up_is_restored(tmp_path: Path, easy_tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs = postgres_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    with ExitStack() as stack:
        ends = []
        for name in ("old", "new"):
            (tmp_path / name / "s3").mkdir(parents=True)
            backend = stack.enter_context(postgres(programs))
            ends.append((tmp_path / name, backend, stack.enter_context(object_store(tmp_path / name / "s3"))))
        (old, backend, keys), (new, new_backend, new_keys) = ends
        own = {"auth": f"{backend}_auth", "artifacts": f"s3://{BUCKET}", "env": keys}
        with team_server(old, backend=backend, **own) as server:
            become(ann := server.add_user("ann"), monkeypatch)
            run = log_run(open_store(server.uri), easy_tree, 1.0, experiment=MODEL)
            for note in ("old", "new"):
                open_store(server.uri).client.log_text(run, note, "note.txt")
                time.sleep(1)  # S3 states times in seconds, by which rclone knows a file of the same size as changed
                done = call("bash", TEAM / "backup.sh", tmp_path / "backups", env=client_of(backend, keys))
                assert done.returncode == 0, done.stderr
        notes = sorted((tmp_path / "backups").rglob("note.txt"))
        assert [(path.relative_to(tmp_path / "backups").parts[0], path.read_text()) for path in notes] == [
            ("artifacts", "new"), ("replaced", "old"),
        ]  # fmt: skip
        backup = done.stdout.strip()
        done = call("bash", TEAM / "restore.sh", backup, env=client_of(new_backend, new_keys))
        assert done.stdout == f"Restored {backup}.\n", done.stderr
        refused = call("bash", TEAM / "restore.sh", backup, env=client_of(new_backend, new_keys))
        assert (refused.returncode, "restore into an empty one" in refused.stderr) == (1, True)
        own = {"auth": f"{new_backend}_auth", "artifacts": f"s3://{BUCKET}", "env": new_keys}
        with team_server(new, backend=new_backend, **own, password=server.admin_password) as server:
            become({**ann, "MLFLOW_TRACKING_URI": server.uri}, monkeypatch)
            record = read_run(open_store(server.uri), run)
            assert (record.status, len(record.predictions["test"]) > 20) == ("FINISHED", True)


@pytest.mark.long
def test_a_laptops_runs_move_with_their_artifacts(
    tmp_path: Path, easy_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs = postgres_programs()
    if programs is None or not all(shutil.which(needed) for needed in ("pgloader", "rclone", "sqlite3")):
        pytest.skip("PostgreSQL, pgloader, rclone or sqlite3 is not installed")
    (tmp_path / "laptop").mkdir()
    run = log_run(open_store(f"sqlite:///{tmp_path}/laptop/mlflow.db"), easy_tree, 1.0, experiment=MODEL)
    (tmp_path / "laptop").rename(tmp_path / "copy")
    (tmp_path / "s3").mkdir()
    with ExitStack() as stack:
        backend = stack.enter_context(postgres(programs))
        keys = stack.enter_context(object_store(tmp_path / "s3"))
        assert call(sys.executable, "-m", "mlflow", "db", "upgrade", backend).returncode == 0
        move = ("bash", TEAM / "migrate.sh", tmp_path / "copy" / "mlflow.db")
        wrong = call(*move, env={**client_of(backend, keys), "AWS_SECRET_ACCESS_KEY": "wrong"})
        assert wrong.returncode != 0
        done = call(*move, env=client_of(backend, keys))  # the failed copy has changed nothing
        assert done.stdout.splitlines()[-1] == "1 runs and 0 model versions moved", done.stderr
        own = {"auth": f"{backend}_auth", "artifacts": f"s3://{BUCKET}", "env": keys}
        with team_server(tmp_path, backend=backend, **own) as server:
            become(server.admin, monkeypatch)
            assert len(read_run(open_store(server.uri), run).predictions["test"]) > 20


def client_of(backend: str, keys: Mapping[str, str]) -> dict[str, str]:
    """The environment of PostgreSQL's and S3's clients."""
    parts = urlsplit(backend)
    return {
        **keys,
        "PGHOST": "127.0.0.1",
        "PGPORT": str(parts.port),
        "PGUSER": "mlflow",
        "PGPASSWORD": parts.password or "",
    }

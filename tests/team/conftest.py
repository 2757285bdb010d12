"""A server with users: a small one on SQLite, and one with everything that a team's server has."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.cli.conftest import muralab, prepared, store  # noqa: F401 - fixtures
from tests.fixtures.team import BUCKET, TeamServer, object_store, postgres, postgres_programs, team_server


@pytest.fixture(scope="session")
def small_team(empty_database: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[TeamServer]:
    """A server with users, with SQLite and a folder of artifacts."""
    folder = tmp_path_factory.mktemp("small_team")
    shutil.copy(empty_database, folder / "mlflow.db")
    backend, auth = f"sqlite:///{folder}/mlflow.db", f"sqlite:///{folder}/auth.db"
    with team_server(folder, backend=backend, auth=auth, artifacts=f"{folder}/artifacts") as server:
        yield server


@pytest.fixture(scope="session")
def whole_team(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TeamServer]:
    """A server with users, with PostgreSQL and S3."""
    programs = postgres_programs()
    if programs is None:
        pytest.skip("PostgreSQL is not installed")
    folder = tmp_path_factory.mktemp("whole_team")
    (folder / "s3").mkdir()
    with ExitStack() as stack:
        backend = stack.enter_context(postgres(programs))
        keys = stack.enter_context(object_store(folder / "s3"))
        server = team_server(folder, backend=backend, auth=f"{backend}_auth", artifacts=f"s3://{BUCKET}", env=keys)
        yield stack.enter_context(server)


def become(user: Mapping[str, str], patch: pytest.MonkeyPatch) -> None:
    """Let commands and clients of this process be those of a user."""
    for key, value in user.items():
        patch.setenv(key, value)

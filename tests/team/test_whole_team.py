"""A sweep against everything that a team's server has: PostgreSQL, S3 and users. One registers, the other serves."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from muralab.registry.promote import find_alias
from muralab.tracking import RunWriter, Store, open_store, read_run
from tests.cli.conftest import SMALL, Muralab, Outcome
from tests.fixtures.runs import find_runs
from tests.fixtures.team import TeamServer
from tests.fixtures.turns import holders_seen
from tests.processes import environment
from tests.team.conftest import become

pytestmark = pytest.mark.long
MODEL = "mura-wrist"


@dataclass(frozen=True, kw_only=True)
class Person:
    """A user at a machine: commands run with that user's password and a cache of their own."""

    team: TeamServer
    user: Mapping[str, str]
    home: Path
    muralab: Muralab
    patch: pytest.MonkeyPatch

    @property
    def password(self) -> str:
        return self.user["MLFLOW_TRACKING_PASSWORD"]

    def server(self) -> Store:
        become(self.user, self.patch)
        return open_store(self.team.uri)

    def run(self, command: str, **values: Any) -> Outcome:
        become(self.user, self.patch)
        self.patch.setenv("XDG_CACHE_HOME", str(self.home))
        return self.muralab(command, **values)

    def predict(self, images: Path, out: Path) -> subprocess.CompletedProcess[str]:
        """In a process of its own, which imports the model's copies of modules from then on."""
        become(self.user, self.patch)
        command = [sys.executable, "-m", "muralab", "predict", str(images), "--out", str(out)]
        own = environment(MLFLOW_TRACKING_URI=self.team.uri, XDG_CACHE_HOME=str(self.home))
        return subprocess.run(command, env=own, capture_output=True, text=True, timeout=600, check=False)


@pytest.fixture
def person(whole_team, store: Store, muralab: Muralab, lab: Path, tmp_path, monkeypatch) -> Callable[[str], Person]:
    """A function that creates a user at a machine of their own."""
    monkeypatch.setenv("PYTHONPATH", str(lab))  # the processes of trials import the recipe too

    def create(name: str) -> Person:
        user = whole_team.add_user(name)
        return Person(team=whole_team, user=user, home=tmp_path / name, muralab=muralab, patch=monkeypatch)

    return create


def test_one_sweeps_and_registers_the_other_serves_and_sweeps_as_well(
    person: Callable[[str], Person], whole_team: TeamServer, easy_tree: Path, tmp_path: Path
) -> None:
    ann, bob = person("ann"), person("bob")
    sweep = {"recipes": SMALL, "data": easy_tree, "trials": 2, "epochs": "1+2", "names_key": tmp_path / "key.json"}
    first = ann.run("tune", **sweep)
    assert first.code == 0, first
    assert "mura-wrist version 1: accepted as champion." in first.out
    assert "Models have been evaluated on this test set 1 time so far" in first.out
    assert_nowhere(ann.password, ann.server(), ann.home, first)

    answered = bob.predict(easy_tree / "valid", tmp_path / "answers.csv")
    assert answered.returncode == 0, answered
    assert (tmp_path / "answers.csv").read_text().count("\n") > 24
    assert "bob may not add or promote its versions" in bob.run("tune", **sweep).complaint

    experiment = bob.server().client.get_experiment_by_name(MODEL).experiment_id
    whole_team.grant("bob", "experiment", experiment, "EDIT")
    whole_team.grant("bob", "registered_model", MODEL, "EDIT")
    second = bob.run("tune", seed=1, **sweep)
    assert second.code == 0, second
    assert "against version 1" in second.out
    assert "Models have been evaluated on this test set 2 times so far" in second.out
    assert str(find_alias(ann.server(), MODEL, "champion").version) in ("1", "2")
    assert [run.status for run in find_runs(ann.server(), MODEL)] == ["FINISHED"] * 6


def assert_nowhere(password: str, server: Store, home: Path, outcome: Outcome) -> None:
    """A password stands in no run, model or file, and was not printed."""
    runs = [(run.params, run.tags) for run in find_runs(server)]
    models = [(one.tags, one.description) for one in server.client.search_model_versions(f"name='{MODEL}'")]
    assert password not in f"{runs} {models} {outcome}"
    files = [path for path in home.rglob("*") if path.is_file()]
    assert files
    assert [path for path in files if password.encode() in path.read_bytes()] == []


def test_postgresql_takes_what_a_run_logs(person: Callable[[str], Person]) -> None:
    server, odd = person("carl").server(), "caf\udce9\x00" + "x" * 9000
    with RunWriter(server) as writer:
        run = writer.start_run(experiment="odd", kind="trial", name=odd, tags={"note": odd})
        writer.log_params(run, {"value": odd})
        writer.log_epoch(run, 1, {"loss": float("nan"), "val_auroc": 0.5})
        writer.log_text(run, odd, "odd.txt")
        writer.describe_experiment(run, odd)
        writer.finish(run)
    record = read_run(server, writer.run_id(run))
    assert (record.status, len(record.name), len(record.tags["note"]), len(record.params["value"])) == (
        "FINISHED", 250, 8000, 6000,
    )  # fmt: skip
    assert str(record.history["loss"].tolist()) == "[nan]"


def test_processes_take_turns_on_postgresql(person: Callable[[str], Person]) -> None:
    server = person("dora").server()
    server.client.create_registered_model("turns")
    assert holders_seen(server, "turns", threads=3, turns=5, pause_s=0.2) == [1] * 5

"""A server with users: what one may not do is found before anything slow, and costs nothing but itself."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import psutil
import pytest

from muralab.commands import tune
from muralab.registry.promote import find_alias, promote_version
from muralab.tracking import Store, close_dead_runs, open_store, read_run, start_run
from muralab.tracking.runs import search_runs
from muralab.tracking.tags import Tag
from tests.cli.conftest import SMALL, Muralab
from tests.fixtures.team import TeamServer
from tests.registry.conftest import log_run
from tests.team.conftest import become

pytestmark = pytest.mark.slow
MODEL = "mura-wrist"


@pytest.fixture(scope="module")
def users(small_team: TeamServer) -> dict[str, Mapping[str, str]]:
    """Ann, who makes everything, and Bob, Carl and Eve."""
    return {name: small_team.add_user(name) for name in ("ann", "bob", "carl", "eve")}


@pytest.fixture(scope="module")
def versions(small_team: TeamServer, users: dict[str, Mapping[str, str]], easy_tree: Path) -> list[str]:
    """Two trained runs of Ann's, in the part's experiment, and a registered model with a version of each.

    Carl may write into the experiment.
    """
    with pytest.MonkeyPatch.context() as patch:
        become(users["ann"], patch)
        server = open_store(small_team.uri)
        server.client.create_registered_model(MODEL)
        runs = [log_run(server, easy_tree, skill, experiment=MODEL) for skill in (0.0, 3.0)]
        sources = [server.client.get_run(run).info.artifact_uri for run in runs]
        made = [
            server.client.create_model_version(MODEL, source=where, run_id=run) for where, run in zip(sources, runs)
        ]
        small_team.grant("carl", "experiment", experiment_id(small_team), "EDIT")
        return [str(version.version) for version in made]


@pytest.fixture
def server(small_team: TeamServer, store: Store, versions: list[str], users, monkeypatch) -> Store:
    """The server as Bob sees it; commands of this test are his."""
    become(users["bob"], monkeypatch)
    return open_store(small_team.uri)


def runs_of(server: Store) -> list[str]:
    return [run.info.run_id for run in search_runs(server, None, "")]


def test_what_is_another_users_is_named_before_anything_is_done(server, muralab: Muralab, easy_tree: Path) -> None:
    before = runs_of(server)
    outcome = muralab("tune", recipes=SMALL, data=easy_tree)
    assert outcome.code == 2
    assert "1. The experiment mura-wrist of http://127.0.0.1" in outcome.complaint
    assert "bob may not write into it. Ask for the permission EDIT on it, or use one of your own: " in outcome.err
    assert "2. The registered model mura-wrist of http://127.0.0.1" in outcome.complaint
    assert (
        "bob may not add or promote its versions. Ask for the permission EDIT on it, or let `tune` register nothing"
        in outcome.err
    )
    assert runs_of(server) == before


def test_a_run_that_mlflow_run_has_made_elsewhere_needs_no_permission_of_the_parts_experiment(
    server, muralab: Muralab, easy_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = server.client.create_run(server.client.create_experiment("chosen-by-bob")).info.run_id
    monkeypatch.setenv("MLFLOW_RUN_ID", run)
    complaint = muralab("tune", recipes=SMALL, data=easy_tree).complaint
    assert "The registered model mura-wrist of" in complaint
    assert "experiment" not in complaint.replace("MLFLOW_EXPERIMENT_NAME", "")


def test_a_sweep_that_registers_nothing_needs_no_permission_of_the_model(
    server, muralab: Muralab, easy_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "of-bob")
    assert "registered model" in muralab("tune", recipes=SMALL, data=easy_tree).complaint
    outcome = muralab("tune", recipes=SMALL, data=easy_tree, register="none", epochs="none")
    assert "registered model" not in outcome.complaint


def test_a_promotion_by_one_who_may_only_read_is_refused_at_once(server, muralab: Muralab) -> None:
    outcome = muralab("promote", part="wrist", version="2")
    assert (outcome.code, "bob may not add or promote its versions" in outcome.complaint) == (2, True)


def test_an_evaluation_that_the_model_cannot_count_is_noted(
    server, muralab: Muralab, easy_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "of-bob")
    outcome = muralab("train", recipe=SMALL, data=easy_tree, epochs="1+1")
    assert outcome.code == 0, outcome
    assert "The registered model mura-wrist does not count this evaluation" in outcome.out


def test_dead_runs_of_other_users_are_left_alone(server, small_team, users, monkeypatch) -> None:
    ended = psutil.Process().pid + 1_000_000
    tags = {Tag.PID: str(ended)}
    become(users["ann"], monkeypatch)
    run = log_dead_run(open_store(small_team.uri), tags)
    become(users["bob"], monkeypatch)
    assert close_dead_runs(server) == []
    become(users["ann"], monkeypatch)
    assert close_dead_runs(open_store(small_team.uri)) == [run]


def log_dead_run(server: Store, tags: Mapping[str, str]) -> str:
    """A run of this host whose process has ended."""
    run_id = start_run(server, experiment=MODEL, kind="train", name="dead", tags=tags)
    assert read_run(server, run_id).status == "RUNNING"
    return run_id


@pytest.mark.parametrize("command", ["compare", "explore", "report"])
def test_other_commands_name_what_is_another_users_before_they_compute(
    server, muralab: Muralab, easy_tree: Path, command: str
) -> None:
    before = runs_of(server)
    options = {
        "compare": {"recipes": f"{SMALL},cnn", "data": easy_tree, "part": "wrist"},
        "explore": {"data": easy_tree, "part": "wrist"},
        "report": {"runs": next(run for run in before if read_run(server, run).predictions)},
    }
    outcome = muralab(command, **options[command])
    assert (outcome.code, outcome.out) == (2, "")
    assert "bob may not write into it. Ask for the permission EDIT on it, or use one of your own: " in outcome.err
    assert runs_of(server) == before


def test_a_sweep_is_not_resumed_by_one_who_may_not_register_its_model(
    small_team, users, versions, muralab: Muralab, easy_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    become(users["ann"], monkeypatch)
    with monkeypatch.context() as patch:
        patch.setattr(tune, "run_search", interrupt)
        assert muralab("tune", recipes=SMALL, data=easy_tree, part="wrist").code == 130
    (run_id,) = (plan.parent.name for plan in tmp_path.glob("cache/muralab/sweeps/*/plan.json"))
    become(users["carl"], monkeypatch)
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "of-carl")  # a resumed run stays where it is
    outcome = muralab("tune", resume=run_id)
    assert outcome.code == 2
    assert "carl may not add or promote its versions. Ask for the permission EDIT on it, or start a new" in outcome.err
    assert "experiment" not in outcome.complaint
    assert read_run(open_store(small_team.uri), run_id).status == "KILLED"


def interrupt(*_: object, **__: object) -> None:
    raise KeyboardInterrupt


def test_one_who_may_edit_promotes_and_leaves_the_alias_that_only_an_owner_removes(
    server, small_team, versions, tmp_path: Path
) -> None:
    worse, better = versions
    small_team.grant("bob", "registered_model", MODEL, "EDIT")
    server.client.set_registered_model_alias(MODEL, "champion", worse)
    server.client.set_registered_model_alias(MODEL, "challenger", better)
    assert promote_version(server, MODEL, better, cache=tmp_path).champion_before == worse
    assert [str(find_alias(server, MODEL, alias).version) for alias in ("champion", "challenger")] == [better] * 2


def test_one_who_may_read_nothing_is_told_so(
    small_team, store, versions, users, muralab, easy_tree, monkeypatch
) -> None:
    become(users["eve"], monkeypatch)
    for kind, name in (("experiment", experiment_id(small_team)), ("registered_model", MODEL)):
        small_team.grant("eve", kind, name, "DENY")
    complaint = muralab("tune", recipes=SMALL, data=easy_tree).complaint
    assert "The experiment mura-wrist of" in complaint
    assert "The registered model mura-wrist of" in complaint


def experiment_id(team: TeamServer) -> str:
    """The id of the part's experiment."""
    return str(open_store(team.uri).client.get_experiment_by_name(MODEL).experiment_id)


def test_wrong_passwords_are_named(small_team, store, versions, muralab, easy_tree, monkeypatch) -> None:
    become(small_team.client("bob", "wrong"), monkeypatch)
    complaint = muralab("tune", recipes=SMALL, data=easy_tree).complaint
    assert "The password is missing or wrong: set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD" in complaint

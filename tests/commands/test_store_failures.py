"""A training whose tracking server fails on the way: what the server holds at the end, and what the user is told."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from muralab.tracking import RunRecord, Store, open_store
from tests.cli.conftest import SMALL, Muralab
from tests.fixtures.flaky_proxy import FlakyProxy, Request, Rule, flaky_proxy
from tests.fixtures.record import record_of
from tests.fixtures.runs import find_runs

pytestmark = pytest.mark.slow
QUICK = {"recipe": SMALL, "epochs": "1+2", "cpus_per_trial": 1}


@pytest.fixture(scope="module")
def proxy(tracking_server: str) -> Iterator[FlakyProxy]:
    with flaky_proxy(tracking_server) as proxy:
        yield proxy


@pytest.fixture
def server(tracking_server: str) -> Store:
    return open_store(tracking_server)


@pytest.fixture
def train(muralab: Muralab, proxy: FlakyProxy, tiny_tree: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A function that trains in an experiment of its own, with a rule for the proxy."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", proxy.uri)

    def run(experiment: str, rule: Rule) -> Any:
        monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", experiment)
        with proxy.failing(rule):
            return muralab("train", data=tiny_tree, **QUICK)

    return run


@pytest.fixture
def undisturbed(train: Any, server: Store) -> dict[str, Any]:
    assert train("undisturbed", lambda _: None).code == 0
    return record_of(server, find_runs(server, "undisturbed")[:1])


def is_upload(request: Request, name: str = "") -> bool:
    return request.method == "PUT" and request.path.endswith(name)


def away_for(seconds: float, after_writes: int) -> Rule:
    """A store that loses an answer, and is then away for some seconds, from a write on."""
    seen: list[float] = []

    def rule(request: Request) -> int | str | None:
        if "log-batch" in request.path:
            seen.append(time.monotonic())
        if len(seen) < after_writes:
            return None
        began_s = seen[after_writes - 1]
        if time.monotonic() - began_s < seconds:
            return "lost" if len(seen) == after_writes else 503
        return None

    return rule


def lose_creations() -> Rule:
    """A proxy that loses the answer to the first request of each kind that creates something."""
    lost: set[str] = set()

    def rule(request: Request) -> int | str | None:
        if request.method == "POST" and request.path.endswith("create") and request.path not in lost:
            lost.add(request.path)
            return "lost"
        return None

    return rule


@pytest.mark.parametrize("after_writes", [3, 6])
def test_an_outage_leaves_no_trace(train: Any, server: Store, undisturbed: dict[str, Any], after_writes: int) -> None:
    name = f"away after {after_writes}"
    outcome = train(name, away_for(5.0, after_writes))
    assert outcome.code == 0, outcome
    assert record_of(server, find_runs(server, name)) == undisturbed
    assert "Note: The tracking store answers again" in outcome.out


def test_lost_answers_create_nothing_twice(train: Any, server: Store, undisturbed: dict[str, Any]) -> None:
    assert train("lost", lose_creations()).code == 0
    assert record_of(server, find_runs(server, "lost")) == undisturbed


def test_an_artifact_that_a_proxy_refuses_is_the_only_thing_missing(
    train: Any, server: Store, undisturbed: dict[str, Any]
) -> None:
    outcome = train("refused", lambda request: 413 if is_upload(request, "report.html") else None)
    (run,) = find_runs(server, "refused")
    (expected,) = undisturbed.values()
    (found,) = record_of(server, [run]).values()
    assert (outcome.code, run.status) == (0, "FINISHED")
    assert set(expected["artifacts"]) - set(found["artifacts"]) == {"report.html"}
    assert "could not log report.html: 413" in run.tags["muralab.not_logged"]
    assert "client_max_body_size" in outcome.out
    assert outcome.out.index("study level: auroc") < outcome.out.index("refused 1 items")


def test_a_refused_artifact_is_written_by_sync(train: Any, muralab: Muralab, server: Store) -> None:
    train("synced", lambda request: 413 if is_upload(request, "report.html") else None)
    assert muralab("sync").code == 0
    (run,) = find_runs(server, "synced")
    assert "report.html" in [item.path for item in server.client.list_artifacts(run.run_id)]
    assert run.tags["muralab.not_logged"] == ""


def test_nothing_is_trained_that_could_not_be_logged(train: Any, server: Store) -> None:
    outcome = train("forbidden", lambda request: 403 if is_upload(request) else None)
    assert (outcome.code, "permission to edit the experiment" in outcome.complaint) == (2, True)
    runs: list[RunRecord] = find_runs(server, "forbidden")
    assert [(run.status, "train_loss" in run.metrics) for run in runs] == [("FAILED", False)]

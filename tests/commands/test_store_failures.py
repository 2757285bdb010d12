"""A training whose tracking server fails on the way: what the server holds at the end, and what the user is told."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from muralab.tracking import RunRecord, Store, open_store
from muralab.tracking.tags import Tag
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


_undisturbed: dict[str, Any] = {}


@pytest.fixture
def undisturbed(train: Any, server: Store) -> dict[str, Any]:
    """The record of a training that nothing disturbs; made once."""
    if not _undisturbed:
        assert train("undisturbed", lambda _: None).code == 0
        _undisturbed.update(record_of(server, find_runs(server, "undisturbed")))
    return _undisturbed


def is_upload(request: Request, name: str = "") -> bool:
    return request.method == "PUT" and request.path.endswith(name)


def disturbing(seconds: float, after_writes: int) -> Rule:
    """A proxy that loses the first answer to each kind of creation, and is away for some seconds from a write on."""
    lost: set[str] = set()
    writes: list[float] = []

    def rule(request: Request) -> int | str | None:
        if request.method == "POST" and request.path.endswith("create") and request.path not in lost:
            lost.add(request.path)
            return "lost"
        writes.extend([time.monotonic()] * ("log-batch" in request.path))
        if len(writes) < after_writes or time.monotonic() - writes[after_writes - 1] > seconds:
            return None
        return "lost" if len(writes) == after_writes else 503

    return rule


def test_lost_answers_and_an_outage_leave_no_trace(train: Any, server: Store, undisturbed: dict[str, Any]) -> None:
    outcome = train("disturbed", disturbing(5.0, after_writes=5))
    assert outcome.code == 0, outcome
    assert record_of(server, find_runs(server, "disturbed")) == undisturbed
    assert "Note: The tracking store answers again" in outcome.out


def test_an_artifact_that_a_proxy_refuses_is_all_that_is_missing_until_sync(
    train: Any, muralab: Muralab, server: Store, undisturbed: dict[str, Any]
) -> None:
    outcome = train("refused", lambda request: 413 if is_upload(request, "report.html") else None)
    (found,), (expected,) = record_of(server, find_runs(server, "refused")).values(), undisturbed.values()
    assert (outcome.code, found["status"]) == (0, "FINISHED")
    assert set(expected["artifacts"]) - set(found["artifacts"]) == {"report.html"}
    assert "could not log report.html: 413" in found["tags"][Tag.NOT_LOGGED]
    assert "client_max_body_size" in outcome.out
    assert outcome.out.index("study level: auroc") < outcome.out.index("refused 1 items")
    assert muralab("sync").code == 0
    (run,) = find_runs(server, "refused")
    assert "report.html" in [item.path for item in server.client.list_artifacts(run.run_id)]
    assert run.tags[Tag.NOT_LOGGED] == ""


def test_nothing_is_trained_that_could_not_be_logged(train: Any, server: Store) -> None:
    outcome = train("forbidden", lambda request: 403 if is_upload(request) else None)
    assert (outcome.code, "permission to edit the experiment" in outcome.complaint) == (2, True)
    runs: list[RunRecord] = find_runs(server, "forbidden")
    assert [(run.status, "train_loss" in run.metrics) for run in runs] == [("FAILED", False)]

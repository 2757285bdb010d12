"""A sweep with search=tpe, killed while a trial with chosen values runs and resumed, tries what it would have tried."""

from __future__ import annotations

import json
import os
import signal
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from muralab.tracking import download_artifact
from muralab.trial import TrialSpec
from muralab.tune.adaptive import choose_values, observe
from tests.tune.conftest import RECIPE, Bench, Swept, finish, sweep, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.long]
N_SPREAD = 5


@pytest.fixture(scope="module")
def resumed(bench: Bench) -> Swept:
    """Killed while its seventh trial runs."""
    process = bench.start(*bench.tune(search="tpe", trials=8, epochs="0+2", pruning="off"))
    wait_until(
        lambda: any(_has_chosen(plan, 6) for plan in bench.cache.glob("muralab/sweeps/*/plan.json")), process, 1800
    )
    os.kill(process.pid, signal.SIGKILL)
    output = finish(process, 300)
    assert "the values of the other 3 are chosen when they start" in output
    return sweep(bench, bench.tune(resume="latest"))


def _has_chosen(plan: Path, number: int) -> bool:
    return any(
        spec["name"] == f"{RECIPE}-{number:02d}" and spec["drawn"] for spec in json.loads(plan.read_text())["specs"]
    )


@pytest.fixture
def specs(resumed: Swept, bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[TrialSpec]:
    """Its trials, as the plan that its run keeps has them."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(bench.lab)])
    assert resumed.code == 0, resumed.output
    path = download_artifact(bench.store, resumed.parent.run_id, "plan.json", tmp_path)
    return [TrialSpec(**one) for one in json.loads(path.read_text())["specs"]]


def test_each_choice_is_that_of_an_undisturbed_sweep(resumed: Swept, specs: list[TrialSpec]) -> None:
    """A choice is a function of the trials before it: an undisturbed sweep would have made these."""
    ended = {run.tags["muralab.trial"]: run.metrics["objective"] for run in resumed.trials}
    observed = [observe(spec, ended[spec.name]) for spec in specs]
    for number in range(N_SPREAD, len(specs)):
        assert specs[number].drawn == choose_values(replace(specs[number], drawn={}), observed[:number])
    assert len({str(spec.drawn) for spec in specs}) == len(specs) == 8


def test_runs_show_what_was_chosen(resumed: Swept, specs: list[TrialSpec]) -> None:
    for spec, run in zip(specs, resumed.trials, strict=True):
        assert run.searched.keys() == specs[-1].drawn.keys()
        assert {key: float(run.searched[key]) for key in spec.drawn} == spec.drawn
        chosen = "were chosen from what earlier trials had reached" in run.tags["mlflow.note.content"]
        assert chosen == (int(spec.name[-2:]) >= N_SPREAD)

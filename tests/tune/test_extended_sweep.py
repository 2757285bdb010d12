"""A sweep that has ended gets more trials: other values, and no second evaluation of what was tested."""

from __future__ import annotations

import pytest

from muralab.tracking.tags import Tag
from tests.tune.conftest import RECIPE, Bench, Swept, sweep

pytestmark = [pytest.mark.slow, pytest.mark.long]


@pytest.fixture(scope="module")
def ended(bench: Bench) -> Swept:
    return sweep(bench, bench.tune(trials=1, epochs="1+4", register="winner"))


@pytest.fixture(scope="module")
def extended(bench: Bench, ended: Swept) -> Swept:
    assert ended.code == 0, ended.output
    return sweep(bench, bench.tune(resume=ended.parent.run_id, trials="+2"))


def test_it_ends_in_the_same_run_with_new_values(ended: Swept, extended: Swept) -> None:
    assert extended.code == 0, extended.output
    assert extended.parent.run_id == ended.parent.run_id
    assert (extended.parent.status, extended.parent.tags[Tag.EXTENDED]) == ("FINISHED", "2")
    assert "× 3 trials" in extended.parent.name
    assert [run.tags[Tag.TRIAL] for run in extended.trials] == [f"{RECIPE}-{number:02d}" for number in range(3)]
    values = [
        str({key: run.values[key] for key in ("full.lr", "augment.zoom") if key in run.values})
        for run in extended.trials
    ]
    assert len(set(values)) == 3


def test_each_chosen_trial_is_tested_once_and_all_are_counted(ended: Swept, extended: Swept) -> None:
    tested = [run for run in extended.trials if Tag.TEST_FINGERPRINT in run.tags]
    best = [run for run in extended.trials if run.tags.get(Tag.BEST_OF_RECIPE) == "true"]
    assert len(best) == 1
    assert best[0].metrics["objective"] == max(run.metrics["objective"] for run in extended.trials)
    assert {run.run_id for run in tested} == {ended.trials[0].run_id, best[0].run_id}
    if len(tested) == 2:
        assert "The test set has been evaluated for 2 trials of this sweep" in extended.output


def test_the_first_trial_is_not_trained_or_tested_again(ended: Swept, extended: Swept) -> None:
    before, after = ended.trials[0], extended.trials[0]
    assert before.metrics == after.metrics
    assert before.predictions["test"].equals(after.predictions["test"])


def test_what_an_ended_sweep_cannot_be(bench: Bench, ended: Swept) -> None:
    trial = sweep(bench, bench.tune(resume=ended.trials[0].run_id, trials="+2"))
    assert trial.code == 2
    assert "keeps no plan of a sweep, so it cannot be extended" in trial.output

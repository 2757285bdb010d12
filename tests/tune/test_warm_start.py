"""Which trials of earlier sweeps a search learns from, and what it says about the others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from muralab.config.commands import TuneConfig
from muralab.config.search import Machine, resolve_search
from muralab.errors import SettingsError
from muralab.recipe import resolved_values
from muralab.tracking import RunRecord
from muralab.tracking.tags import RESOLVED, Tag
from muralab.trial import recipes_of
from muralab.tune import warm_start
from muralab.tune.folders import Folders
from muralab.tune.plan import Sweep
from muralab.tune.sampler import draw_specs
from muralab.tune.warm_start import describe_choice, start_warm

TAGS = {Tag.PART: "wrist", Tag.OBJECTIVE: "val_study_auroc", Tag.CONTENT: "c", Tag.SPLIT_FINGERPRINT: "s"}


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Sweep:
    """A search of eight trials of the CNN."""
    monkeypatch.setattr(Sweep, "tags", property(lambda _: TAGS))
    options = TuneConfig(search="tpe", recipes=("cnn",))
    machines = [Machine(cpus=2, gpus=0, memory_bytes=2**34)]
    config = resolve_search(options, ("cnn",), trials=8, search="tpe", machines=machines)
    folders = Folders(cache=tmp_path, sweep=tmp_path)
    specs = tuple(replace(spec, recipe_code="r") for spec in draw_specs(config, folders, {"cnn": ""}))
    dataset: Any = SimpleNamespace(content="c")
    return Sweep(config=config, folders=folders, dataset=dataset, specs=specs, weights="w", inputs=None)  # type: ignore[arg-type]


def earlier(sweep: Sweep, *, tags: dict[str, str] | None = None, **values: str) -> RunRecord:
    """A finished trial like the search's second one."""
    spec = sweep.specs[1]
    changed = {key.replace("__", "."): value for key, value in values.items()}
    resolved = {key: str(value) for key, value in resolved_values(recipes_of(spec)[1]).items()} | changed
    params = {key if key in spec.drawn else f"{RESOLVED}{key}": value for key, value in resolved.items()}
    own = {**TAGS, Tag.RECIPE_CODE: "r", Tag.ENDED: "finished", **(tags or {})}
    return RunRecord(
        run_id="run1", name="cnn-01", status="FINISHED", experiment_id="1", kind="trial", recipe="cnn",
        params=params, metrics={"objective": 0.8}, tags=own,
    )  # fmt: skip


def warm(sweep: Sweep, record: RunRecord, monkeypatch: pytest.MonkeyPatch, n: int = 1, source: Any = True) -> Sweep:
    found = [replace(record, run_id=f"run{number}") for number in range(n)]
    monkeypatch.setattr(warm_start, "find_trials", lambda *_: found)
    monkeypatch.setattr(warm_start, "read_children", lambda *_: found)
    return start_warm(sweep, None, source)  # type: ignore[arg-type]


def test_a_trial_like_those_of_the_search_is_learned_from(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    found = warm(sweep, earlier(sweep), monkeypatch)
    (one,) = found.observed
    assert (one.trial, one.recipe, one.objective) == ("run0", "cnn", 0.8)
    assert {key: one.values[key] for key in sweep.specs[1].drawn} == sweep.specs[1].drawn
    assert found.notes[-1] == "warm_start: trials of earlier sweeps that this search learns from: cnn 1."


def test_the_more_is_known_the_fewer_values_are_spread(sweep: Sweep, monkeypatch: pytest.MonkeyPatch) -> None:
    undrawn = [
        [spec.is_undrawn for spec in warm(sweep, earlier(sweep), monkeypatch, n).specs].index(True) for n in (1, 3, 20)
    ]
    assert undrawn == [4, 2, 1]


@pytest.mark.parametrize(
    ("tags", "values", "reason"),
    [
        ({Tag.CONTENT: "x"}, {}, "1 with other pictures"),
        ({Tag.SPLIT_FINGERPRINT: "x"}, {}, "1 with another split"),
        ({Tag.RECIPE_CODE: "x"}, {}, "1 with another version of the recipe"),
        ({Tag.ENDED: "failed"}, {}, "1 with no result"),
        ({}, {"full__epochs": "3"}, "1 with other values where this search draws none"),
    ],
)
def test_other_trials_are_counted_with_their_reason(
    sweep: Sweep, monkeypatch: pytest.MonkeyPatch, tags: dict[str, str], values: dict[str, str], reason: str
) -> None:
    record = earlier(sweep, tags=tags, **values)
    assert warm(sweep, record, monkeypatch).notes[-1].endswith(f"learns from: none. Not used: {reason}.")
    with pytest.raises(SettingsError, match=f"warm_start=abc: none of its trials fits this search. Not used: {reason}"):
        warm(sweep, record, monkeypatch, source="abc")


def test_the_plan_says_what_is_chosen_while_the_search_runs(sweep: Sweep) -> None:
    (line,) = describe_choice(sweep)
    assert "5 of 8 trials are the recipe itself or evenly spread values; the values of the other 3 are chosen" in line
    assert "warm_start=false" in line
    few = replace(sweep, specs=sweep.specs[:2])
    assert "nothing is learned" in describe_choice(few)[0]

"""Plans on disk, and what a resumed sweep needs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from muralab.config.commands import TrainConfig, TuneConfig
from muralab.errors import SettingsError, StoreError
from muralab.results.changes import Inputs
from muralab.trial import TrialSpec, recipes_of
from muralab.tune import resume
from muralab.tune.adaptive import Observation
from muralab.tune.folders import Folders
from muralab.tune.resume import (
    has_weights,
    note_chosen,
    note_in_plan,
    read_plan,
    resolve_again,
    with_earlier_values,
    write_plan,
)


def trials(*recipes: str, **fields: Any) -> list[TrialSpec]:
    """One trial of each recipe, as the plan of an interrupted sweep holds them."""
    return [TrialSpec(name=f"{r}-00", recipe=r, table="", cache_folder="", folder="", **fields) for r in recipes]


@pytest.mark.parametrize("word", ["study", "all"])
def test_a_resumed_sweep_keeps_its_recipes_cores_and_processor(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "count_cpus", lambda: 8)
    monkeypatch.setattr("muralab.config.search.count_cpus", lambda: 8)
    found = resolve_again(TuneConfig(recipes=(word,)), trials("inception", "cnn", threads=3), "abc")
    assert list(found.recipes) == ["cnn", "inception"]
    assert (found.options.gpus_per_trial, found.resources.cpus_per_trial) == (0, 3)


def test_named_recipes_keep_their_order() -> None:
    options = TuneConfig(recipes=("inception", "cnn"))
    assert list(resolve_again(options, trials("cnn", "inception"), "abc").recipes) == ["inception", "cnn"]


def test_a_resumed_training_has_one_trial() -> None:
    found = resolve_again(TrainConfig(recipe="cnn"), trials("cnn"), "abc")
    assert (list(found.recipes), found.trials) == (["cnn"], 1)


def test_a_missing_gpu_or_recipe_is_reported_before_anything_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resume, "count_gpus", lambda: 0)
    with pytest.raises(SettingsError) as caught:
        resolve_again(TuneConfig(), trials("cnn", "gone_net", gpu=True), "abc")
    heading, recipe, gpu = str(caught.value).splitlines()
    assert heading.startswith("resume=abc: this sweep cannot be resumed here")
    assert "There is no recipe 'gone_net'" in recipe
    assert "train on a GPU, and torch finds none" in gpu


def test_a_trial_of_an_earlier_version_keeps_its_network() -> None:
    (spec,) = trials("cnn_attention", overrides={"image_size": 64})
    _, recipe = recipes_of(with_earlier_values(spec))
    weights = recipe.build(image_size=64, **recipe.model).state_dict()
    assert weights["backbone.0.weight"].shape == (32, 1, 3, 3)
    assert "backbone.12.share" in weights
    assert recipe.image_size == 64


def test_a_trial_of_an_earlier_version_keeps_the_weights_of_the_full_phase() -> None:
    (spec,) = trials("inception")
    assert recipes_of(with_earlier_values(spec))[1].kept_phase == "full"


def test_a_trial_of_this_version_is_resumed_as_planned() -> None:
    (spec,) = trials("cnn_attention", threshold="max-kappa")
    assert with_earlier_values(spec) is spec


@pytest.fixture
def sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """What `write_plan` reads of a sweep; the split is written by a stand-in."""
    folders = Folders(cache=tmp_path, sweep=tmp_path / "sweeps" / "abc")
    folders.sweep.mkdir(parents=True)
    monkeypatch.setattr(resume, "write_table", lambda path, *_: path.touch())
    return SimpleNamespace(
        folders=folders,
        dataset=SimpleNamespace(
            index=pd.DataFrame({"image": ["a"]}),
            identities=lambda index: index.assign(file="0"),
            tables={},
            splits=SimpleNamespace(fingerprint="f"),
        ),
        inputs=Inputs(recipes={"cnn": {"recipes/cnn.py": ""}}, platform="1", platform_code="2"),
        config=SimpleNamespace(options=TuneConfig(epochs=(1, 2), set={"full.lr": "1e-3"})),
        specs=trials("cnn"),
        observed=(Observation(trial="r1", recipe="cnn", values={"full.lr": 1e-3}, objective=0.8),),
        weights="none needed",
        notes=("a note",),
        extended=0,
        kind="tune",
    )


def test_a_plan_is_read_as_it_was_written(sweep: Any) -> None:
    write_plan(sweep)
    plan = read_plan(sweep.folders, "abc")
    assert (plan.fingerprint, plan.weights, plan.notes) == ("f", "none needed", ["a note"])
    assert (plan.inputs, [spec.name for spec in plan.specs]) == (sweep.inputs, ["cnn-00"])
    assert plan.observed == list(sweep.observed)
    assert resume.restore_options(TuneConfig, plan.options) == sweep.config.options


def test_a_plan_is_read_from_where_its_folder_is_now(sweep: Any, tmp_path: Path) -> None:
    sweep.specs = [replace(spec, folder=str(sweep.folders.sweep / "trials" / spec.name)) for spec in sweep.specs]
    write_plan(sweep)
    assert str(tmp_path) not in sweep.folders.plan.read_text()
    moved = tmp_path.rename(tmp_path.with_name(f"{tmp_path.name}-moved"))
    folders = Folders(cache=moved, sweep=moved / "sweeps" / "abc")
    (spec,) = read_plan(folders, "abc").specs
    assert (spec.table, spec.cache_folder) == (str(folders.table), str(moved))
    assert spec.folder == str(folders.sweep / "trials" / "cnn-00")


def test_values_that_were_chosen_for_a_trial_are_kept_in_its_plan(sweep: Any) -> None:
    sweep.specs = [replace(spec, draws=("full.lr",)) for spec in [*trials("cnn"), *trials("inception")]]
    write_plan(sweep)
    assert all(spec.is_undrawn for spec in read_plan(sweep.folders, "abc").specs)
    note_chosen(sweep.folders, "inception-00", {"full.lr": 3e-4})
    assert [spec.drawn for spec in read_plan(sweep.folders, "abc").specs] == [{}, {"full.lr": 3e-4}]


@pytest.mark.parametrize("content", ["", "{}", '{"specs": [], "unknown": 1}', '{"specs": [{"no": 1}]}'])
def test_a_damaged_plan_is_refused(sweep: Any, content: str) -> None:
    sweep.folders.plan.write_text(content)
    with pytest.raises(StoreError, match=r"resume=abc: the plan .* is damaged, or another version wrote it"):
        read_plan(sweep.folders, "abc")


def test_a_split_that_the_system_does_not_read_is_not_called_missing_or_damaged(sweep: Any) -> None:
    write_plan(sweep)
    sweep.folders.table.unlink()
    sweep.folders.table.mkdir()
    with pytest.raises(StoreError, match=r"resume=abc: .*split\.csv cannot be read: Is a directory"):
        read_plan(sweep.folders, "abc")


@pytest.mark.parametrize("run_id", ["abc", "../abc", ""])
def test_a_sweep_that_left_nothing_cannot_be_resumed(tmp_path: Path, run_id: str) -> None:
    with pytest.raises(StoreError, match=f"resume={run_id}: nothing of this sweep is left"):
        read_plan(Folders(cache=tmp_path, sweep=tmp_path / "sweeps" / "abc"), run_id)


def test_a_trial_without_its_selected_weights_is_known(tmp_path: Path) -> None:
    spec = TrialSpec(name="a", recipe="cnn", table="", cache_folder="", folder=str(tmp_path))
    assert not has_weights(spec)
    (tmp_path / resume.best_name("full")).touch()
    assert has_weights(spec)


def test_fewer_trials_at_once_are_noted_in_the_plan_once(sweep: Any) -> None:
    write_plan(sweep)
    for _ in range(2):
        note_in_plan(sweep.folders, "Memory ran out.", 3)
    plan = read_plan(sweep.folders, "abc")
    assert (plan.kind, plan.notes, plan.options["max_concurrent"]) == ("tune", ["a note", "Memory ran out."], 3)

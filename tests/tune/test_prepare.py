"""What a sweep needs before it starts, and the figures of its plan."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from muralab.config.settings import Request, check_request
from muralab.tune.prepare import as_begun, find_weights

from muralab.errors import SettingsError, WeightsError
from muralab.trial import TrialSpec
from muralab.tune import prepare
from muralab.tune.finish import ui_command
from muralab.tune.plan import Estimate, Folders, draw_specs, in_order

SMALL = "tiny_lab.small_net"


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(weights: str, network: str) -> None:
        raise WeightsError(f"The weights of {network} cannot be had.")

    monkeypatch.setattr(prepare, "resolve_weights", refuse)


@pytest.mark.usefixtures("no_hub")
def test_the_demo_goes_on_with_random_weights_and_says_so() -> None:
    files, words, notes = find_weights(check_request(Request()))
    assert set(files.values()) == {""}
    assert words == "random (no ImageNet weights could be had)"
    assert "cannot be had. The demo goes on with random weights; its figures are lower for it." in notes[0]


@pytest.mark.usefixtures("no_hub")
@pytest.mark.parametrize("fields", [{"data": "/tree"}, {"weights": "/w.pth"}, {"data": "/tree", "weights": "/w.pth"}])
def test_real_data_and_weights_that_were_named_do_not(fields: dict[str, str]) -> None:
    with pytest.raises(WeightsError, match="cannot be had"):
        find_weights(check_request(Request(**fields)))


@pytest.mark.usefixtures("no_hub")
def test_recipes_from_scratch_ask_for_no_weights() -> None:
    assert find_weights(check_request(Request(recipes="cnn", data="/tree"))) == ({"cnn": ""}, "none needed", [])


def test_weights_none_is_random_as_asked() -> None:
    files, words, notes = find_weights(check_request(Request(data="/tree", weights="none")))
    assert (set(files.values()), words, notes) == ({""}, "random (as asked)", [])


def test_a_file_of_weights_goes_to_pretrained_recipes_with_its_digest(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "w.pth")
    settings = check_request(Request(recipes="cnn,inception", data="/tree", weights=str(tmp_path / "w.pth")))
    files, words, _ = find_weights(settings)
    assert files == {"cnn": "", "inception": str(tmp_path / "w.pth")}
    assert words.startswith("w.pth ")
    assert len(words.split()[1]) == 16


def test_every_recipes_first_trial_comes_before_any_second_and_long_ones_first(lab: Any, tmp_path: Path) -> None:
    settings = check_request(Request(recipes=f"cnn,{SMALL}", trials="2", data="/tree"))
    specs = draw_specs(settings, Folders(cache=tmp_path, sweep=tmp_path), {"cnn": "", SMALL: ""})
    estimated = Estimate(epoch_s={"cnn": [1.0], SMALL: [5.0]}, wall_s=0, disk_bytes=0)
    assert [spec.name for spec in in_order(specs, estimated)] == [f"{SMALL}-00", "cnn-00", f"{SMALL}-01", "cnn-01"]


# A sweep that goes on


def begun(*recipes: str, **fields: Any) -> list[TrialSpec]:
    """A trial of each recipe, as the plan of an interrupted sweep holds them."""
    return [TrialSpec(name=f"{r}-00", recipe=r, table="", cache_folder="", folder="", **fields) for r in recipes]


def test_a_resumed_sweep_keeps_its_recipes_cores_and_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "count_cpus", lambda: 8)
    found = as_begun(Request(), begun("inception", "cnn", threads=3), "abc")
    assert (found.recipes, found.gpus_per_trial, found.cpus_per_trial) == ("cnn,inception", "0", "3")
    assert as_begun(Request(recipes="inception,cnn"), begun("cnn", "inception"), "abc").recipes == "inception,cnn"


def test_a_gpu_or_a_recipe_that_has_gone_is_said_before_a_resumed_sweep_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(prepare, "count_gpus", lambda: 0)
    with pytest.raises(SettingsError) as caught:
        as_begun(Request(), begun("cnn", "gone_net", gpu=True), "abc")
    heading, recipe, gpu = str(caught.value).splitlines()
    assert heading.startswith("resume=abc: this sweep cannot go on as things are")
    assert "There is no recipe 'gone_net'" in recipe
    assert "train on a GPU, and torch finds none" in gpu


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("http://me:secret@host:5000", "open http://me:***@host:5000"),
        ("postgresql://me:secret@host/runs", '--backend-store-uri "$MLFLOW_TRACKING_URI" --host'),
        ("sqlite:////data/mlflow.db", "--backend-store-uri sqlite:////data/mlflow.db --host"),
    ],
)
def test_a_password_is_not_part_of_the_next_command(uri: str, words: str) -> None:
    assert words in ui_command(uri)
    assert "secret" not in ui_command(uri)

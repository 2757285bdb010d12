"""The pretrained weights of a search."""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import timm
import torch
from torch import nn

from muralab.config.commands import TuneConfig
from muralab.config.parsing import weights as weights_option
from muralab.config.search import SearchConfig, resolve_search
from muralab.errors import SettingsError, WeightsError
from muralab.recipe import Network
from muralab.recipe_loader import load_recipe
from muralab.tune import weights
from muralab.tune.weights import find_weights


def search(*recipes: str, **options: str) -> SearchConfig:
    return resolve_search(TuneConfig(**options), recipes or ("study",))


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: str, network: str, recipe: str) -> None:
        raise WeightsError(f"The weights of {network} are unavailable.")

    monkeypatch.setattr(weights, "resolve_weights", refuse)


@pytest.mark.usefixtures("no_hub")
def test_the_demo_continues_with_random_weights_and_a_note() -> None:
    found = find_weights(search())
    assert set(found.files.values()) == {""}
    assert found.description == "random (no ImageNet weights available)"
    (note,) = found.notes
    assert note.startswith(
        "inception, inception_add_gate: The weights of inception_v3.tf_in1k are unavailable. The demo"
    )


@pytest.mark.usefixtures("no_hub")
@pytest.mark.parametrize("options", [{"data": "/tree"}, {"weights": "/w.pth"}, {"data": "/tree", "weights": "/w.pth"}])
def test_real_data_or_a_named_file_need_their_weights(options: dict[str, str]) -> None:
    with pytest.raises(WeightsError, match="unavailable"):
        find_weights(search(**options))


@pytest.mark.usefixtures("no_hub")
def test_recipes_from_scratch_need_no_weights() -> None:
    found = find_weights(search("cnn", data="/tree"))
    assert (found.files, found.description, found.notes) == ({"cnn": ""}, "none needed", ())


def test_weights_none_is_random() -> None:
    found = find_weights(search(data="/tree", weights="none"))
    assert (set(found.files.values()), found.description) == ({""}, "random (as requested)")


def test_a_file_goes_to_pretrained_recipes_and_is_described_by_its_digest(tmp_path: Path) -> None:
    torch.save({}, tmp_path / "w.pth")
    found = find_weights(search("cnn", "inception", data="/tree", weights=str(tmp_path / "w.pth")))
    assert found.files == {"cnn": "", "inception": str(tmp_path / "w.pth")}
    name, digest = found.description.split()
    assert (name, len(digest)) == ("w.pth", 16)


# A file per recipe


@pytest.fixture
def two(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Two recipes with different backbones, their files, and timm's weights in the hub's cache."""
    import huggingface_hub

    networks = {"wide": nn.Conv2d(3, 8, 1), "narrow": nn.Conv2d(3, 4, 1)}
    small = load_recipe("cnn")
    for name, backbone in networks.items():
        build = partial(build_around, backbone)
        recipe = replace(small, build=build, model={}, search={}, demo={}, study={}, pretrained=f"{name}net.in1k")
        monkeypatch.setitem(sys.modules, f"recipes.{name}", SimpleNamespace(RECIPE=recipe))
        torch.save(backbone.state_dict(), tmp_path / f"{name}.pth")
    monkeypatch.setattr(timm, "get_pretrained_cfg", lambda name: SimpleNamespace(hf_hub_id=name))
    monkeypatch.setattr(
        huggingface_hub, "try_to_load_from_cache", lambda name, _: str(tmp_path / f"{name.partition('net')[0]}.pth")
    )
    return {name: str(tmp_path / f"{name}.pth") for name in networks}


def build_around(backbone: nn.Conv2d, *, image_size: int) -> Network:
    head = nn.Linear(backbone.out_channels, 1)
    return Network(backbone=backbone, pool=nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), head=head)


def files_of(weights: str) -> dict[str, str]:
    return find_weights(search("wide", "narrow", data="/tree", weights=weights)).files


def test_each_recipe_has_its_own_file(two: dict[str, str]) -> None:
    assert files_of(f"wide={two['wide']},narrow={two['narrow']}") == two
    assert files_of(str(Path(two["wide"]).parent)) == two


def test_a_recipe_that_is_not_named_starts_from_timms_weights(two: dict[str, str]) -> None:
    assert files_of(f"narrow={two['narrow']}") == two
    found = find_weights(search("wide", "narrow", data="/tree", weights="narrow=none"))
    assert (found.files["narrow"], found.description.endswith("; random: narrow")) == ("", True)


def test_a_file_that_fits_one_recipe_does_not_stop_the_other(two: dict[str, str]) -> None:
    found = find_weights(search("wide", "narrow", data="/tree", weights=two["narrow"]))
    assert found.files == two
    assert found.notes[0].startswith(
        "narrow.pth does not fit wide: timm's weights are used there. weights=wide=<file>,"
    )


def test_a_file_that_fits_no_recipe_is_refused_with_recipe_and_file(two: dict[str, str], tmp_path: Path) -> None:
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=r"^wide: The weights in .*other.pth do not fit the recipe's backbone"):
        files_of(str(tmp_path / "other.pth"))


def test_all_missing_files_are_listed_with_their_recipes(two: dict[str, str]) -> None:
    listed = r"(?s)1\. wide: weights=/a.pth: there is no.*2\. narrow: weights=/b.pth: there"
    with pytest.raises(WeightsError, match=listed):
        files_of("wide=/a.pth,narrow=/b.pth")


def test_a_name_that_is_not_searched_is_refused(two: dict[str, str]) -> None:
    with pytest.raises(WeightsError, match=r"no recipe 'wde' needs weights here. Did you mean 'wide'\?"):
        files_of("wde=/a.pth")


@pytest.mark.parametrize("text", ["a=b.pth,c", "a=b.pth,a=c.pth", "a=b.pth,"])
def test_a_list_of_files_that_is_incomplete_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match=r"expected recipe=file once per recipe"):
        weights_option("weights", text)


def test_a_path_may_contain_what_looks_like_a_recipe() -> None:
    assert weights_option("weights", "/runs/lr=3/w.pth") == "/runs/lr=3/w.pth"
    assert weights_option("weights", "a=/w.pth,b=none") == "a=/w.pth,b=none"

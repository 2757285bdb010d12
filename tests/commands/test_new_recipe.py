"""`new-recipe` writes a recipe that loads, builds and is in style, or says why a network of timm cannot be one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

import recipes
from muralab.commands.new_recipe import render_recipe
from muralab.errors import RecipeError
from muralab.recipe import HEAD_ONLY, override
from muralab.recipe_loader import load_recipe
from tests.cli.conftest import Muralab

ROOT = Path(__file__).parents[2]
WITHOUT_WEIGHTS = "cs3darknet_s"


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of recipes in front of the shipped one."""
    folder = tmp_path / "recipes"
    folder.mkdir()
    monkeypatch.setattr(recipes, "__path__", [str(folder), *recipes.__path__])
    yield folder
    for name in [name for name in sys.modules if name.startswith("recipes.new_")]:
        del sys.modules[name]


@pytest.mark.parametrize(("backbone", "upper"), [("resnet10t", HEAD_ONLY), (WITHOUT_WEIGHTS, ("*",))])
def test_it_writes_a_recipe_that_trains(muralab: Muralab, folder: Path, backbone: str, upper: tuple[str]) -> None:
    outcome = muralab("new-recipe", name="new_net", backbone=backbone)
    assert outcome.code == 0, outcome.err
    assert "make tune ARGS='-P recipes=new_net'" in outcome.out
    recipe = load_recipe("new_net")
    network = override(recipe, recipe.demo).build(image_size=96, **recipe.model).eval()
    assert network(torch.zeros(2, 96, 96, dtype=torch.uint8)).shape == (2,)
    assert recipe.upper.trains == upper


@pytest.mark.parametrize("check", [("check",), ("format", "--check")])
@pytest.mark.parametrize("backbone", ["resnet10t", WITHOUT_WEIGHTS])
def test_its_style_is_that_of_the_repository(check: tuple[str, ...], backbone: str) -> None:
    command = [sys.executable, "-m", "ruff", *check, "--stdin-filename", "recipes/new_net.py", "-"]
    source = render_recipe("new_net", backbone)
    done = subprocess.run(command, cwd=ROOT, input=source, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_walk_through_shows_what_it_writes() -> None:
    text = (ROOT / "CONTRIBUTING.md").read_text("utf-8")
    assert text.split("```python\n")[1].split("```")[0] == render_recipe("resnet18", "resnet18")


@pytest.mark.parametrize(
    ("backbone", "message"),
    [
        ("resnet1o8", r"timm has no network 'resnet1o8'. Did you mean 'resnet\d+'\?"),
        ("qqq", r"timm has no network 'qqq'. `timm.list_models\(\)` lists all"),
        ("resnet18.a9_in1k", r"timm has no weights 'a9_in1k' of 'resnet18'. Did you mean 'a\d_in1k'"),
        ("vit_tiny_patch16_224", r"takes no squares of 96 px .*convolutional network, such as resnet18"),
        ("gmlp_ti16_224", r"takes no squares of 96 px|not feature maps"),
    ],
)
def test_a_network_that_cannot_be_a_backbone_is_refused(backbone: str, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        render_recipe("new_net", backbone)


@pytest.mark.parametrize("name", ["my-net", "class", "all", "study", "_net", "a.b", ""])
def test_a_name_that_no_module_can_have_is_refused(muralab: Muralab, name: str) -> None:
    assert "cannot be a recipe's name" in muralab("new-recipe", name=name, backbone="resnet10t").err


def test_an_existing_recipe_is_not_overwritten(muralab: Muralab) -> None:
    outcome = muralab("new-recipe", name="cnn", backbone="resnet10t")
    assert (outcome.code, "cnn.py exists" in outcome.err) == (2, True)

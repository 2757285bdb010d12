"""The source of recipes: what belongs to it, when it has changed, and recipes built from what a run kept."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from muralab.errors import RecipeError
from muralab.recipe_loader import load_recipe
from muralab.recipe_source import changed_files, digest_sources, load_kept_recipe, read_sources
from tests.conftest import SMALL_NET

NAME = "own_lab.net"
LAYERS = "WIDTH = 8\n"
NET = SMALL_NET.replace("from muralab", "from .layers import WIDTH\n\nfrom muralab", 1).replace(
    "filters=8)", "filters=WIDTH)"
)


@pytest.fixture
def own_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A package with the recipe `own_lab.net`, which imports `own_lab.layers`."""
    folder = tmp_path / "own_lab"
    folder.mkdir()
    for name, text in (("__init__", '"""A lab."""\n'), ("layers", LAYERS), ("net", NET)):
        (folder / f"{name}.py").write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    yield folder
    for module in [name for name in sys.modules if name.partition(".")[0] == "own_lab"]:
        del sys.modules[module]


def test_a_source_is_the_module_and_what_it_imports_of_the_lab(own_lab: Path) -> None:
    assert read_sources(NAME) == {"own_lab/net.py": NET, "own_lab/layers.py": LAYERS}


def test_recipes_of_the_repository_may_share_layers() -> None:
    assert list(read_sources("inception_add_gate")) == ["recipes/inception_add_gate.py", "recipes/inception.py"]
    assert list(read_sources("cnn")) == ["recipes/cnn.py"]


@pytest.mark.parametrize(
    ("file", "old", "new", "changed"),
    [
        ("net", "lr=1e-2", "lr=1e-3", True),
        ("layers", "WIDTH = 8", "WIDTH = 9", True),
        ("net", '"""A network of one convolution', '"""Measured today: a network of one convolution', False),
        ("layers", "WIDTH = 8", "WIDTH  =  8  # filters", False),
    ],
)
def test_code_counts_and_comments_do_not(own_lab: Path, file: str, old: str, new: str, changed: bool) -> None:
    before, path = read_sources(NAME), own_lab / f"{file}.py"
    path.write_text(path.read_text().replace(old, new, 1))
    now = read_sources(NAME)
    assert now != before
    assert changed_files(before, now) == ([f"own_lab/{file}.py"] if changed else [])
    assert (digest_sources(before) != digest_sources(now)) == changed


def test_an_edit_that_breaks_the_syntax_is_a_change(own_lab: Path) -> None:
    before = read_sources(NAME)
    (own_lab / "net.py").write_text("def build(:\n")
    assert "own_lab/net.py" in changed_files(before, read_sources(NAME))


def test_a_kept_recipe_is_built_beside_the_present_one(own_lab: Path) -> None:
    kept = {**read_sources(NAME), "own_lab/layers.py": "WIDTH = 3\n"}
    present = load_recipe(NAME)
    found = load_kept_recipe(NAME, kept)
    assert (found.build(image_size=36).head.in_features, present.build(image_size=36).head.in_features) == (3, 8)
    assert load_recipe(NAME) is present
    assert importlib.import_module("own_lab.layers").WIDTH == 8


def test_a_kept_recipe_needs_none_in_the_checkout(own_lab: Path) -> None:
    kept = read_sources(NAME)
    assert load_kept_recipe("gone_lab.net", {"gone_lab/net.py": SMALL_NET}).summary == "small network"
    assert load_kept_recipe(NAME, {"own_lab/net.py": kept["own_lab/net.py"]}).summary == "small network"


@pytest.mark.parametrize("text", ["1 / 0\n", "from muralab.recipe import Gone\n", "RECIPE = 3\n", "def (\n"])
def test_a_kept_source_that_does_not_work_is_an_error_and_changes_nothing(own_lab: Path, text: str) -> None:
    present = load_recipe(NAME)
    with pytest.raises(RecipeError, match=r"source of the recipe 'own_lab.net' that the run kept"):
        load_kept_recipe(NAME, {"own_lab/net.py": text})
    assert load_recipe(NAME) is present

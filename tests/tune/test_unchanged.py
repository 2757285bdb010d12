"""Whether an interrupted search continues with the same weights and checkpoints."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from muralab.errors import SettingsError, WeightsError
from muralab.recipe_loader import load_recipe
from muralab.training.checkpoint import with_prefix, write_tensors
from muralab.training.trainer import LAST
from muralab.trial import TrialSpec
from muralab.tune import unchanged
from muralab.tune.unchanged import check_checkpoints, compare_weights, find_weights_again
from muralab.tune.weights import describe_weights


def spec_of(recipe: str = "inception", **fields: Any) -> TrialSpec:
    return TrialSpec(**{"name": "a", "recipe": recipe, "table": "", "cache_folder": "", "folder": "", **fields})


def config_of(weights: str, recipe: str = "inception") -> Any:
    return SimpleNamespace(options=SimpleNamespace(weights=weights), recipes={recipe: load_recipe(recipe)})


def test_weights_with_other_bytes_under_their_name_have_changed(tmp_path: Path) -> None:
    file = tmp_path / "model.safetensors"
    file.write_bytes(b"one")
    planned, specs = describe_weights([file]), [spec_of(weights=str(file)), spec_of()]
    assert compare_weights(specs, planned) == []
    file.write_bytes(b"two")
    assert compare_weights(specs, planned) == [f"The weights {file} have changed."]


def test_downloaded_weights_are_found_where_the_hubs_cache_is_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unchanged, "resolve_weights", lambda weights, name: f"/new/{weights}/{name}")
    (found,) = find_weights_again([spec_of(weights=str(tmp_path / "gone"))], config_of("auto"))
    assert found.weights.startswith("/new/auto/inception_v3")


@pytest.mark.parametrize("given", ["{}", "inception={}"])
def test_a_users_own_file_of_weights_that_is_gone_is_an_error(given: str, tmp_path: Path) -> None:
    file = str(tmp_path / "gone")
    with pytest.raises(WeightsError, match=f"weights={file}: there is no such file"):
        find_weights_again([spec_of(weights=file)], config_of(given.format(file)))


@pytest.mark.parametrize("part", ["", "head"])
@pytest.mark.parametrize(("filters", "fits"), [(2, True), (3, False)])
def test_a_checkpoint_fits_the_network_that_its_recipe_builds(
    tmp_path: Path, part: str, filters: int, fits: bool
) -> None:
    network = load_recipe("cnn").build(image_size=36, filters=2, units=5)
    module = network.get_submodule(part)
    write_tensors(tmp_path / LAST, with_prefix("module", module.state_dict()))
    spec = spec_of(
        "cnn", folder=str(tmp_path), overrides={"image_size": 36, "model.filters": filters, "model.units": 5}
    )
    if fits:
        check_checkpoints([spec], "abc")
    else:
        with pytest.raises(SettingsError, match="resume=abc: the checkpoints of a do not fit"):
            check_checkpoints([spec], "abc")

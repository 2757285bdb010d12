"""The pretrained weights of a search."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from muralab.config.commands import TuneConfig
from muralab.config.search import SearchConfig, resolve_search
from muralab.errors import WeightsError
from muralab.tune import weights
from muralab.tune.weights import find_weights


def search(*recipes: str, **options: str) -> SearchConfig:
    return resolve_search(TuneConfig(**options), recipes or ("study",))


@pytest.fixture
def no_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: str, network: str) -> None:
        raise WeightsError(f"The weights of {network} are unavailable.")

    monkeypatch.setattr(weights, "resolve_weights", refuse)


@pytest.mark.usefixtures("no_hub")
def test_the_demo_continues_with_random_weights_and_a_note() -> None:
    found = find_weights(search())
    assert set(found.files.values()) == {""}
    assert found.description == "random (no ImageNet weights available)"
    assert "unavailable. The demo continues with random weights, which lowers its figures." in found.notes[0]


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

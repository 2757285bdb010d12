"""Options as data: parsing, defaults, and the way to JSON and back."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import pytest

from muralab.cli import COMMANDS
from muralab.config import parsing as p
from muralab.config.commands import CompareConfig, EvaluateConfig, PredictConfig, PromoteConfig, TrainConfig, TuneConfig
from muralab.config.options import CommandOptions, option, options_of, parse_options, restore_options
from muralab.errors import MuraLabError, SettingsError


@dataclass(frozen=True, kw_only=True)
class Sample(CommandOptions):
    """A command with a required and an optional option."""

    name: str = option(None, p.text, "Required.")
    size: int | None = option("auto", p.count_or("auto"), "Optional.")


def test_missing_options_take_their_default() -> None:
    assert parse_options(Sample, {"name": "x"}) == Sample(name="x", size=None)


def test_a_required_option_is_required() -> None:
    with pytest.raises(SettingsError, match="The option name is required"):
        parse_options(Sample, {"size": "3"})


def test_one_error_is_raised_as_it_is() -> None:
    with pytest.raises(SettingsError, match=r"^size=x: expected a whole number from 1 to 99,999\.$"):
        parse_options(Sample, {"name": "x", "size": "x"})


@pytest.mark.parametrize("command", COMMANDS)
def test_every_default_parses_and_every_option_has_help(command: str) -> None:
    for name, spec in options_of(COMMANDS[command]).items():
        assert spec.help.endswith((".", "`."))
        if spec.default is not None:
            spec.parse(name, spec.default)


def test_options_survive_json() -> None:
    config = TuneConfig(recipes=("cnn",), epochs=(2, 3), set={"full.lr": "1e-3"}, trials=4)
    assert restore_options(TuneConfig, json.loads(json.dumps(config.to_dict()))) == config


def test_an_unknown_stored_option_is_refused() -> None:
    with pytest.raises(TypeError):
        restore_options(TuneConfig, TuneConfig().to_dict() | {"unknown": 1})


@pytest.mark.parametrize(("sampler", "search"), [("sobol", "quasi"), ("random", "random")])
def test_options_of_an_earlier_version_are_read_back(sampler: str, search: str) -> None:
    earlier = {key: value for key, value in TuneConfig().to_dict().items() if key != "search"} | {"sampler": sampler}
    assert restore_options(TuneConfig, earlier).search == search


# Parsers


@pytest.mark.parametrize(
    ("text", "seconds"), [("none", None), ("", None), ("900", 900), ("90s", 90), ("1.5m", 90), ("2h", 7200)]
)
def test_durations(text: str, seconds: float | None) -> None:
    assert p.duration("time_budget", text) == seconds


def test_a_seed_of_mlflow_run_may_end_in_point_zero() -> None:
    assert p.seed("seed", "3.0") == 3


@pytest.mark.parametrize("text", ["-1", "one", str(2**32), "1.5", ""])
def test_impossible_seeds(text: str) -> None:
    with pytest.raises(SettingsError, match=f"seed={text}: expected a whole number from 0 to 4,294,967,295"):
        p.seed("seed", text)


def test_paths_are_made_absolute_and_keywords_are_not(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    parse = p.path_or("demo")
    assert (parse("data", "demo"), parse("data", "tree")) == ("demo", str(tmp_path / "tree"))
    with pytest.raises(SettingsError, match="data: the path is empty; expected demo or a path"):
        parse("data", " ")


def test_a_models_uri_stays_and_a_folder_becomes_absolute(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert p.model_uri("model", "models:/a@b") == "models:/a@b"
    assert p.model_uri("model", "folder") == str(tmp_path / "folder")


@pytest.mark.parametrize(("text", "value"), [("auto", None), ("True", True), ("false", False)])
def test_pictures(text: str, value: bool | None) -> None:
    assert p.yes_no_or_auto("pictures", text) is value


@pytest.mark.parametrize(("text", "value"), [("auto", "auto"), ("pack", "pack"), ("0.5", 0.5), ("0", 0.0)])
def test_gpu_shares(text: str, value: float | str) -> None:
    assert p.gpu_share("gpus_per_trial", text) == value


@pytest.mark.parametrize(("text", "value"), [("true", True), ("No", False), ("1", True), ("0", False)])
def test_flags(text: str, value: bool) -> None:
    assert p.flag("dry_run", text) is value


@pytest.mark.parametrize("text", ["1.5", "-0.1", "nan", "x"])
def test_numbers_outside_their_limits(text: str) -> None:
    with pytest.raises(SettingsError, match=f"margin={text}: expected a number from 0 to 1"):
        p.number(0, 1)("margin", text)


def test_a_keyword_in_place_of_a_number() -> None:
    parse = p.number_or("model", 0, 1)
    assert (parse("threshold", "model"), parse("threshold", "0.3")) == (None, 0.3)


def test_run_stands_for_the_trained_runs_seed() -> None:
    assert (p.seed_or_run("seed", "run"), p.seed_or_run("seed", "7")) == (None, 7)
    with pytest.raises(SettingsError, match="seed=x: expected run"):
        p.seed_or_run("seed", "x")


# What does not fit together


BAD = [
    (TrainConfig, {"recipe": "all"}, "recipe=all: a training takes one recipe"),
    (TrainConfig, {"recipe": "cnn,inception"}, "a training takes one recipe"),
    (TrainConfig, {"recipe": "cnn", "gpus_per_trial": "pack"}, "a training is one trial and shares no GPU"),
    (CompareConfig, {"recipes": "cnn"}, "compare needs at least two recipes"),
    (CompareConfig, {"recipes": "cnn,inception", "seed": str(2**32 - 2)}, "the last seed is above 4,294,967,295"),
    (CompareConfig, {"recipes": "cnn,inception", "seeds": "0"}, "from 1 to 99,999; 5 is a good start"),
    (PromoteConfig, {}, "promote needs one of run=<id of a trained run> and version=<number>"),
    (PromoteConfig, {"run": "a", "version": "1"}, "promote needs one of"),
    (PromoteConfig, {"run": "a", "part": "x'y"}, "part=x'y: expected a body part"),
    (EvaluateConfig, {"model": "x", "set": "tests"}, "set=tests is unknown. Did you mean 'test'"),
    (EvaluateConfig, {"model": "x", "protocol": "valid"}, "protocol=valid is unknown"),
    (PredictConfig, {"images": ""}, "images: the path is empty; expected a path"),
    (PredictConfig, {"images": "x", "threshold": "2"}, "threshold=2: expected a number from 0 to 1"),
]


@pytest.mark.parametrize(("command", "texts", "message"), BAD)
def test_options_that_do_not_fit(command: type[CommandOptions], texts: dict[str, str], message: str) -> None:
    with pytest.raises(MuraLabError, match=message):
        parse_options(command, texts)


def test_the_largest_seed_is_possible() -> None:
    assert parse_options(TrainConfig, {"recipe": "cnn", "seed": str(2**32 - 1)}).seed == 2**32 - 1

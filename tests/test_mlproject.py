"""MLproject and conda.yaml: what `mlflow run` reads equals what the command line offers."""

from __future__ import annotations

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from muralab.cli import app

ROOT = Path(__file__).parents[1]
PROJECT = yaml.safe_load((ROOT / "MLproject").read_text(encoding="utf-8"))
ENTRY_POINTS = PROJECT["entry_points"]
COMMANDS = typer.main.get_command(app).commands
NAMES = sorted(set(ENTRY_POINTS) - {"main"})


def command_options(name: str) -> dict[str, str]:
    options = [option for option in COMMANDS[name].params if option.name != "help"]
    return {o.name: "required" if o.required else str(o.default).lower() for o in options}


def readme_table() -> dict[str, str]:
    """Option -> default, from the table of `tune` in docs/options.md."""
    readme = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| (`[^|]+`) \| `([^`|]+)` \|", readme, flags=re.MULTILINE)
    return {name: default for names, default in rows for name in re.findall(r"`(\w+)`", names)}


def test_the_readmes_table_is_that_of_the_command() -> None:
    assert readme_table() == command_options("tune")


def test_main_is_tune() -> None:
    assert ENTRY_POINTS["main"] == ENTRY_POINTS["tune"]


@pytest.mark.parametrize("name", NAMES)
def test_parameters_and_defaults_are_those_of_the_command(name: str) -> None:
    parameters = ENTRY_POINTS[name]["parameters"]
    assert {k: str(v.get("default", "required")).lower() for k, v in parameters.items()} == command_options(name)


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_typed(name: str) -> None:
    kinds = {value["type"] for value in ENTRY_POINTS[name]["parameters"].values()}
    assert kinds <= {"string", "float", "path", "uri"}


@pytest.mark.parametrize("name", NAMES)
def test_every_parameter_is_passed_under_its_own_flag(name: str) -> None:
    flags = re.findall(r"--([a-z-]+) \{(\w+)\}", ENTRY_POINTS[name]["command"])
    assert [flag.replace("-", "_") for flag, _ in flags] == [key for _, key in flags]
    assert {key for _, key in flags} == set(ENTRY_POINTS[name]["parameters"])
    assert re.findall(r"\{(\w+)\}", ENTRY_POINTS[name]["command"]) == [key for _, key in flags]


@pytest.mark.parametrize("name", NAMES)
def test_one_process_is_left_to_signal(name: str) -> None:
    assert f"exec python -m muralab {name} " in ENTRY_POINTS[name]["command"]


@pytest.mark.parametrize("name", NAMES)
def test_the_checkout_is_put_on_the_path(name: str) -> None:
    assert ENTRY_POINTS[name]["command"].startswith('PYTHONPATH="$PWD/platform:$PWD')


@pytest.mark.parametrize("value", ["/a b/MURA-v1.1", "$(touch gone)", "it's; rm -r x", "a&b|c>d", '"'])
def test_values_reach_the_command_whole(value: str) -> None:
    words = shlex.split(_command("tune", {"data": value}))
    assert words[words.index("--data") + 1] == value


@pytest.mark.parametrize("name", ["tune", "train", "compare"])
def test_a_rule_with_a_shell_operator_reaches_the_command_whole(name: str) -> None:
    words = shlex.split(_command(name, {"threshold": "sensitivity>=0.9"}))
    assert words[words.index("--threshold") + 1] == "sensitivity>=0.9"


def _command(name: str, values: dict[str, Any]) -> str:
    from mlflow.projects._project_spec import load_project

    return str(load_project(str(ROOT)).get_entry_point(name).compute_command(values, None))


def test_the_environment_is_that_of_make() -> None:
    environment = yaml.safe_load((ROOT / PROJECT["conda_env"]).read_text(encoding="utf-8"))
    *packages, pip = environment["dependencies"]
    assert "python=3.11" in packages
    assert "pip" in packages
    lines = (ROOT / "requirements.txt").read_text(encoding="utf-8").splitlines()
    assert pip == {"pip": [line for line in lines if line and not line.startswith("#")]}


def test_the_environment_names_one_python() -> None:
    assert not ({"python_env", "docker_env"} & set(PROJECT))

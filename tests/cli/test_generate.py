"""A command's first required option may be given without its name."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from muralab import __version__
from muralab.cli import app
from muralab.cli.generate import name_first, with_dashes
from muralab.errors import MuraLabError, SettingsError
from tests.cli.conftest import Muralab
from tests.processes import environment


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["/x"], ["--folder", "/x"]),
        (["/x", "--out", "o"], ["--folder", "/x", "--out", "o"]),
        (["--out", "o", "/x"], ["--out", "o", "--folder", "/x"]),
        (["--out=o", "/x"], ["--out=o", "--folder", "/x"]),
        (["--folder", "/x"], ["--folder", "/x"]),
        (["--out", "o", "--folder=/x"], ["--out", "o", "--folder=/x"]),
        (["--help"], ["--help"]),
        ([], []),
    ],
)
def test_the_word_without_a_name_is_the_required_option(words, expected):
    assert name_first(words, "folder") == expected


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["part=wrist", "dry_run=true"], ["--part", "wrist", "--dry-run", "true"]),
        (["--set", "full.lr=1", "seed=2"], ["--set", "full.lr=1", "--seed", "2"]),
        (["--columns", "part=a", "data=b=c"], ["--columns", "part=a", "--data", "b=c"]),
        (["--part=wrist", "seed=2"], ["--part=wrist", "--seed", "2"]),
        (["root="], ["--root", ""]),
        (["/a=b", "full.lr=1", "wrist"], ["/a=b", "full.lr=1", "wrist"]),
        (["seed=1", "--", "part=wrist"], ["--seed", "1", "--", "part=wrist"]),
    ],
)
def test_options_may_be_spelled_as_in_the_docs(words, expected):
    assert with_dashes(words) == expected


def test_a_folder_may_look_like_an_option() -> None:
    words = ["site=a/scans", "seed=2", "run=1"]
    assert with_dashes(words, {"folder", "seed"}) == ["site=a/scans", "--seed", "2", "run=1"]


def test_a_mistyped_option_of_this_spelling_suggests_the_right_one() -> None:
    output = CliRunner().invoke(app, ["explore", "prat=hand"]).output
    assert "No such option: --prat" in output
    assert "--part" in output


def test_only_one_word_has_no_name():
    assert name_first(["/x", "/y"], "folder") == ["--folder", "/x", "/y"]


def test_commands_without_a_required_option_take_no_such_word():
    usages = [CliRunner().invoke(app, [name, "--help"]).output for name in ("promote", "demo")]
    assert ["[FOLDER]" in usage for usage in usages] == [False, True]


def test_it_works_on_the_command_line(muralab: Muralab, tmp_path) -> None:
    outcome = muralab("demo")
    assert outcome.code == 2
    assert "Missing option '--folder'" in outcome.err


def test_the_version_is_that_of_the_platform() -> None:
    assert CliRunner().invoke(app, ["--version"]).output.startswith(f"MURA Lab {__version__}")


def test_a_python_without_the_requirements_says_so_in_a_sentence() -> None:
    command, folder = [sys.executable, "-S", "-m", "muralab", "tune"], Path(__file__).parents[2]
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, timeout=60, env=environment(), cwd=folder
    )
    assert done.returncode == 1
    assert done.stderr.startswith(f"muralab: {sys.executable} has no 'typer', so it is not the Python of the")


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--columns", "image:a", "--columns=label:b"], "--columns is given more than once"),
        (["--part", "hand", "--seed=2", "--part", "wrist", "--seed", "4"], "--part, --seed are given more than once"),
    ],
)
def test_an_option_that_is_given_twice_is_refused(words: list[str], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        app(args=["explore", *words])


def test_a_value_that_looks_like_an_option_is_none() -> None:
    with pytest.raises(MuraLabError) as caught:
        app(args=["explore", "--part", "--seed", "--seed", "x"])
    assert str(caught.value).startswith("The demo has no part '--seed'")

"""A cluster's token: used where there is one, never invented, and what is wrong with it is named."""

from __future__ import annotations

from pathlib import Path

import pytest

from muralab.tune.ray_token import explain_no_token, use_token


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def mode(**environment: str) -> str | None:
    """RAY_AUTH_MODE as Ray would see it."""
    use_token(environment)
    return environment.get("RAY_AUTH_MODE")


def test_a_token_is_used_where_there_is_one_and_never_invented(home: Path) -> None:
    assert mode() is None
    assert mode(RAY_AUTH_TOKEN="t") == "token"
    (home / ".ray").mkdir()
    (home / ".ray" / "auth_token").write_text("t")
    assert mode() == "token"
    assert mode(RAY_AUTH_MODE="disabled") == "disabled"
    assert mode(RAY_AUTH_TOKEN_PATH=str(home / "absent")) is None  # Ray would look for no other one


def test_a_token_that_is_refused_is_the_wrong_one() -> None:
    assert explain_no_token({"RAY_AUTH_TOKEN": "t"}).startswith("the cluster refuses this machine's token. Give the")


def test_a_machine_without_a_token_is_told_where_to_put_it() -> None:
    assert "asks for a token, and this machine has none. Give the token that" in explain_no_token({})


@pytest.mark.parametrize("named", [True, False])
def test_an_empty_file_is_named_and_not_sent(home: Path, named: bool) -> None:
    file = home / ("token" if named else ".ray/auth_token")
    file.parent.mkdir(exist_ok=True)
    file.write_text("\n")
    environment = {"RAY_AUTH_TOKEN_PATH": str(file)} if named else {}
    assert f"the cluster asks for a token, and {file} is empty. Give" in explain_no_token(environment)
    assert mode(**environment) is None


def test_a_file_that_does_not_exist_is_named(home: Path) -> None:
    found = explain_no_token({"RAY_AUTH_TOKEN_PATH": str(home / "absent")})
    assert f"asks for a token, and RAY_AUTH_TOKEN_PATH={home}/absent does not exist. Give" in found


def test_a_file_that_cannot_be_read_is_named(home: Path) -> None:
    (home / "folder").mkdir()
    environment = {"RAY_AUTH_TOKEN_PATH": str(home / "folder")}
    assert f"asks for a token, and {home}/folder cannot be read (Is a directory). Give" in explain_no_token(environment)
    assert mode(**environment) is None


def test_a_mode_that_keeps_the_token_back_is_named() -> None:
    found = explain_no_token({"RAY_AUTH_TOKEN": "t", "RAY_AUTH_MODE": "disabled"})
    assert "asks for a token, and RAY_AUTH_MODE=disabled keeps this machine from sending its own. Unset" in found

"""Home folders that are unknown are an error with the fix, not a traceback."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from muralab.config.environment import read_environment
from muralab.config.parsing import path_or
from muralab.errors import SettingsError
from muralab.paths import cache_folder, expand

NOBODY = "~no-such-user-7/data"


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user whom the system does not know, without HOME."""

    def unknown(*_: Any) -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("HOME")
    monkeypatch.setattr(Path, "home", unknown)


def test_an_unknown_users_home_is_named() -> None:
    with pytest.raises(SettingsError, match=f"^data={NOBODY}: the home folder of `~no-such-user-7` is unknown"):
        path_or("demo")("data", NOBODY)


def test_other_paths_are_kept() -> None:
    assert expand("/a/~b") == Path("/a/~b")


@pytest.mark.usefixtures("homeless")
def test_without_a_home_the_cache_has_to_be_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    with pytest.raises(SettingsError, match="Set XDG_CACHE_HOME=<folder>"):
        cache_folder()


@pytest.mark.usefixtures("homeless")
def test_libraries_get_a_home_in_the_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    environment = read_environment()
    assert environment.cache == tmp_path / "muralab"
    import os

    assert os.environ["HOME"] == str(tmp_path / "muralab" / "home")

"""Paths that depend on the user: the home folder, and the cache."""

from __future__ import annotations

import os
from pathlib import Path

from muralab.errors import SettingsError


def expand(path: str | Path) -> Path:
    """A path with a leading `~` replaced by a home folder.

    Raises:
        SettingsError: that home folder is unknown.
    """
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        raise SettingsError(
            f"{path}: the home folder of `{Path(path).parts[0]}` is unknown on this machine. Give the whole path."
        ) from error


def in_checkout() -> bool:
    """Whether the working directory is a checkout of the project, in which `make ui` and the like work."""
    return Path("Makefile").is_file() and Path("MLproject").is_file()


def cache_folder() -> Path:
    """Where everything is kept that is not in MLflow: `$XDG_CACHE_HOME/muralab`, or `~/.cache/muralab`.

    Raises:
        SettingsError: the home folder is unknown.
    """
    given = os.environ.get("XDG_CACHE_HOME", "")
    if Path(given).is_absolute():
        return Path(given) / "muralab"
    try:
        return Path.home() / ".cache" / "muralab"
    except RuntimeError as error:
        raise SettingsError(
            f"HOME is not set, and the user {os.getuid()} has no home folder on this machine, so there is no place for "
            "decoded images and checkpoints. Set XDG_CACHE_HOME=<folder>, an absolute path that you can write to."
        ) from error


def know_the_user(cache: Path) -> None:
    """Give libraries a home folder and a user name where the system knows none, as in a container with another uid."""
    try:
        Path.home()
    except RuntimeError:
        os.environ["HOME"] = str(cache / "home")
    if _is_nameless():
        os.environ.setdefault("USER", str(os.getuid()))


def _is_nameless() -> bool:
    import pwd

    try:
        return not pwd.getpwuid(os.getuid()).pw_name
    except KeyError:
        return True

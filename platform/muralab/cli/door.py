"""The door: what comes in as text or from the environment becomes absolute and typed; below it nothing is relative."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from muralab.tune.prepare import Job


def absolute(text: str, *words: str) -> str:
    """A path made absolute, unless it is one of the words.

    Raises:
        SettingsError: the text is empty, which would name the working directory.
    """
    from muralab.errors import SettingsError

    if not text.strip():
        raise SettingsError(f"A path is empty: expected {', '.join([*words, 'or a path'] if words else ['a path'])}.")
    return text if text in words else str(Path(text).expanduser().absolute())


def none(text: str) -> str | None:
    """`none` and empty text as None."""
    return None if text in ("", "none") else text


def flag(name: str, text: str) -> bool:
    """`true` or `false`; MLproject knows no booleans.

    Raises:
        SettingsError: another word.
    """
    from muralab.errors import SettingsError

    words = {"true": True, "1": True, "yes": True, "false": False, "0": False, "no": False}
    if text.lower() not in words:
        raise SettingsError(f"{name}={text}: expected true or false.")
    return words[text.lower()]


def build_job() -> Job:
    """Where this command runs, from what `mlflow run` put into the environment."""
    from muralab.tracking import absolute_uri
    from muralab.tune.prepare import Job

    given = os.environ.get("XDG_CACHE_HOME", "")
    cache = Path(given) if Path(given).is_absolute() else Path.home() / ".cache"
    # Left in place, the run's id would be taken up by every process that this one starts.
    run_id = os.environ.pop("MLFLOW_RUN_ID", None)
    return Job(
        tracking_uri=absolute_uri(os.environ.get("MLFLOW_TRACKING_URI")),
        cache=cache / "muralab",
        run_id=run_id,
        experiment=os.environ.get("MLFLOW_EXPERIMENT_NAME"),
    )

"""What to type to resume a search."""

from __future__ import annotations

import shlex


def resume_command(kind: str, part: str, run_id: str, storage: str | None = None) -> str:
    """What to type to resume a search; with its storage, on any machine."""
    if kind == "train":
        return f"mlflow run . -e train --env-manager local -P resume={run_id}"
    given = "" if storage is None else f" -P {_in_recipe(f'storage={storage}')}"
    return f"make tune PART={shlex.quote(part)} ARGS={shlex.quote(f'-P resume={run_id}{given}')}"


def _in_recipe(word: str) -> str:
    """A word of ARGS, which make hands to a shell once more: an endpoint in a URI has ? and &."""
    return word if shlex.quote(word) == word else f'"{word}"'

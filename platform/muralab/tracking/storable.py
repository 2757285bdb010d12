"""Texts as every database takes them: SQLite stores what PostgreSQL refuses, and a refused text would be lost whole."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from muralab.tracking.failures import shorten

MAX_RUN_NAME = 250
MAX_DESCRIPTION = 5000
"""Characters of a description of a registered model or of one of its versions."""
MAX_CHARACTERS = {"run_name": MAX_RUN_NAME, "description": MAX_DESCRIPTION}
"""Keyword of MLflow's client -> characters that PostgreSQL's column holds."""
UNSTORABLE = re.compile("[\x00\ud800-\udfff]")
"""NUL, and halves of characters, as in a file name that is not valid UTF-8."""
MARK = "\N{REPLACEMENT CHARACTER}"


def storable(value: Any) -> Any:
    """A text, or the texts of a mapping or list, with a mark for each character that no database takes."""
    if isinstance(value, str):
        return UNSTORABLE.sub(MARK, value)
    if isinstance(value, Mapping):
        return {storable(key): storable(one) for key, one in value.items()}
    if type(value) in (list, tuple):
        return type(value)(storable(one) for one in value)
    return value


def storable_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Keyword arguments of MLflow's client: `storable`, and shortened to the columns' lengths."""
    found = {key: storable(value) for key, value in options.items()}
    for key in MAX_CHARACTERS.keys() & found.keys():
        if isinstance(found[key], str):
            found[key] = shorten(found[key], MAX_CHARACTERS[key])
    return found

"""The text of a parameter -> its value, or the words that refuse it."""

from __future__ import annotations

import math
import re

from muralab.errors import SettingsError, nearest
from muralab.evaluation.operating_point import check_rule
from muralab.recipe import Value

LARGEST_COUNT = 99_999
LARGEST_SEED = 2**32 - 1
"""What every generator of random numbers takes."""
PACK = "pack"
"""As many trials a GPU as its memory holds."""
EPOCHS_FORM = re.compile(r"(\d+)\+(\d+)")
TIME_FORM = re.compile(r"(\d+(?:\.\d+)?)([smh]?)")
LONGEST_S = 366 * 86_400.0
SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}


def read_sizes(image_size: str, batch_size: str) -> dict[str, Value]:
    """Overrides of all recipes' image_size and batch_size; `recipe` is none."""
    sizes = {"image_size": image_size, "batch_size": batch_size}
    return {key: read_count(key, text, 0) for key, text in sizes.items() if text != "recipe"}


def read_epochs(text: str) -> dict[str, Value]:
    """`2+3` as overrides of both phases; `recipe` is none."""
    if text == "recipe":
        return {}
    match = EPOCHS_FORM.fullmatch(text.strip())
    if not match:
        raise SettingsError(f"epochs={text}: expected `recipe`, or upper+full such as 2+3.")
    return {"upper.epochs": int(match[1]), "full.epochs": int(match[2])}


def read_overrides(text: str) -> dict[str, Value]:
    """`full.lr=3e-5,augment.zoom=0.1` as a dict; empty text or `none` is no override.

    Raises:
        SettingsError: a part is not key=value.
    """
    changes: dict[str, Value] = {}
    for part in text.split(",") if text not in ("", "none") else []:
        key, equals, value = (word.strip() for word in part.partition("="))
        if not (key and equals and value):
            raise SettingsError(f"set={text}: '{part}' is not key=value; expected e.g. full.lr=3e-5,augment.zoom=0.1.")
        if key in changes:
            raise SettingsError(f"set={text}: '{key}' is given twice.")
        changes[key] = value
    return changes


def read_count(key: str, text: str, default: int) -> int:
    """A whole number; `auto` is the default."""
    if text == "auto":
        return default
    if not text.strip().isdecimal() or not 1 <= int(text) <= LARGEST_COUNT:
        raise SettingsError(f"{key}={text}: expected a whole number from 1 to {LARGEST_COUNT:,}.")
    return int(text)


def read_time(text: str) -> float | None:
    """Seconds; `none` is None."""
    if text in ("none", ""):
        return None
    match = TIME_FORM.fullmatch(text.strip())
    seconds = float(match[1]) * SECONDS[match[2]] if match else 0.0
    if not 1 <= seconds <= LONGEST_S:
        raise SettingsError(
            f"time_budget={text}: expected seconds, minutes or hours such as 900, 30m or 2h, from a second to a year; "
            "or none."
        )
    return seconds


def check_word(key: str, word: str, known: tuple[str, ...]) -> None:
    """Raise SettingsError, with the nearest known word, for one that is not known."""
    if word not in known:
        raise SettingsError(f"{key}={word} is unknown. {nearest(word, known)}")


def check_threshold(rule: str) -> None:
    """Raise SettingsError for what is no rule of the operating threshold."""
    try:
        check_rule(rule)
    except SettingsError as error:
        raise SettingsError(f"threshold={rule}: {error}") from error


def read_gpus(text: str, gpus: int) -> float:
    """GPUs of a trial, of so many that there are; `auto` is one, if there is one; `pack` too, until it is measured."""
    if text == "auto" or (text == PACK and gpus):
        return 1.0 if gpus else 0.0
    if text == PACK:
        raise SettingsError(f"gpus_per_trial={PACK}: this machine has no GPU that torch can use. Give auto or 0.")
    try:
        wanted = float(text)
    except ValueError:
        wanted = -1.0
    if not 0 <= wanted < math.inf or (wanted > 1 and wanted != int(wanted)):
        raise SettingsError(f"gpus_per_trial={text}: expected auto, pack, 0, a fraction such as 0.5, or 1.")
    if wanted > gpus:
        raise SettingsError(f"gpus_per_trial={text}: this machine has {gpus} that torch can use.")
    if wanted > 1:
        raise SettingsError(f"gpus_per_trial={text}: a trial trains on one GPU; give 1 or a fraction.")
    return wanted

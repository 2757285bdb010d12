"""Parsers of options: text -> value, or a SettingsError that says what was expected.

Every parser takes the option's name and its text. What is slow to import is imported when it is needed.
"""

from __future__ import annotations

import csv
import math
import re
from collections.abc import Callable, Sequence
from pathlib import Path

from muralab.errors import SettingsError, nearest
from muralab.paths import expand

Value = float | int | bool | str
STUDY = "study"
"""In `set`: every recipe's values of the wrist study; in `recipes`: its four architectures."""
LARGEST_COUNT = 99_999
LARGEST_SEED = 2**32 - 1
"""The largest seed that every random generator takes."""
PACK = "pack"
"""As many trials per GPU as its memory holds."""
LOCAL = "local"
"""A Ray of our own on this machine."""
ADDRESS_FORM = re.compile(r"(\[[0-9a-fA-F:]+\]|[\w.-]+):\d{1,5}")
FOLDS_FORM = re.compile(r"(?:(\d+)/)?(\d+)(?:\.0)?")
MOST_FOLDS = 50
EPOCHS_FORM = re.compile(r"(\d+)\+(\d+)")
WEIGHTS_FORM = re.compile(r"([A-Za-z_][\w.]*)=(.+)")
"""A recipe and what it starts from."""
TIME_FORM = re.compile(r"(\d+(?:\.\d+)?)([smh]?)")
LONGEST_S = 366 * 86_400.0
SECONDS = {"": 1, "s": 1, "m": 60, "h": 3600}
FLAGS = {"true": True, "1": True, "yes": True, "on": True, "false": False, "0": False, "no": False, "off": False}


def text(name: str, text: str) -> str:
    """Text as it is."""
    return text


def optional_text(name: str, text: str) -> str | None:
    """Text; `none` or empty text is None."""
    return None if text in ("", "none") else text


def path_or(*keywords: str) -> Callable[[str, str], str]:
    """A parser of a path, made absolute, or one of some keywords."""

    def parse(name: str, text: str) -> str:
        if not text.strip():  # it would name the working directory
            expected = f"{', '.join(keywords)} or a path" if keywords else "a path"
            raise SettingsError(f"{name}: the path is empty; expected {expected}.")
        return text if text in keywords else str(_absolute(name, text))

    return parse


def data_or(*keywords: str) -> Callable[[str, str], str]:
    """A parser of a data set: a URI as it is, a path, made absolute, or one of some keywords."""
    from muralab.storage_uri import is_uri

    parse_path = path_or(*keywords)

    def parse(name: str, text: str) -> str:
        return _uri(name, text) if is_uri(text) else parse_path(name, text)

    return parse


def _uri(name: str, text: str) -> str:
    """A URI without what makes no difference: blanks around it, capitals in its scheme, a slash at its end."""
    from muralab.storage_uri import check_uri

    check_uri(text.strip(), name)
    scheme, _, rest = text.strip().partition("://")
    return f"{scheme.lower()}://{rest.rstrip('/')}"


def _absolute(name: str, text: str) -> Path:
    try:
        return expand(text).absolute()
    except SettingsError as error:
        raise SettingsError(f"{name}={error}") from error


def weights(name: str, text: str) -> str:
    """`auto`, `none`, a path, or `inception=path,densenet169=path` with what each recipe starts from."""
    parse = path_or("auto", "none")
    parts = [part.strip() for part in text.split(",")]
    matches = [WEIGHTS_FORM.fullmatch(part) for part in parts]
    if not matches[0]:
        return parse(name, text)
    pairs = [(match[1], parse(f"{name} of {match[1]}", match[2])) for match in matches if match]
    if len(dict(pairs)) < len(parts):
        raise SettingsError(
            f"{name}={text}: expected recipe=file once per recipe, such as inception=a.pth,densenet169=b.pth."
        )
    return ",".join(f"{recipe}={path}" for recipe, path in pairs)


def weights_by_recipe(text: str) -> dict[str, str]:
    """Recipe -> what it starts from, of the option `weights`; empty where one value is for all."""
    matches = [WEIGHTS_FORM.fullmatch(part) for part in text.split(",")]
    return {match[1]: match[2] for match in matches if match} if all(matches) else {}


def optional_path_text(name: str, text: str) -> str | None:
    """An absolute path as text, which JSON holds; `none` or empty text is None."""
    return None if text in ("", "none") else path_or()(name, text)


def unless_auto(text: str) -> Path | None:
    """The path that an option of `path_or("auto")` names; None for `auto`."""
    return None if text == "auto" else Path(text)


def optional_path(name: str, text: str) -> Path | None:
    """An absolute path; `none` or empty text is None."""
    return None if text in ("", "none") else required_path(name, text)


def required_path(name: str, text: str) -> Path:
    """An absolute path."""
    return Path(path_or()(name, text))


def model_uri(name: str, text: str) -> str:
    """A model's URI as it is, or a folder, made absolute."""
    return text if ":/" in text else path_or()(name, text)


def storage_uri(name: str, text: str) -> str | None:
    """A URI as it is, or a folder, made absolute; `none` is None."""
    from muralab.storage_uri import is_uri

    if text in ("", "none"):
        return None
    return _uri(name, text) if is_uri(text) else path_or()(name, text)


def ray_address(name: str, text: str) -> str:
    """`local`, `auto`, or host:port."""
    if text in (LOCAL, "auto") or ADDRESS_FORM.fullmatch(text):
        return text
    hint = " Ray Client is not meant for searches: start the command on a node." if text.startswith("ray://") else ""
    raise SettingsError(f"{name}={text}: expected local, auto, or host:port of the cluster's head.{hint}")


def flag(name: str, text: str) -> bool:
    """`true` or `false`, also `on` or `off`."""
    if text.lower() not in FLAGS:
        raise SettingsError(f"{name}={text}: expected true or false (or on, off).")
    return FLAGS[text.lower()]


def flag_or_text(name: str, text: str) -> bool | str:
    """`true` or `false`, also `on` or `off`, or any other text."""
    return FLAGS.get(text.lower(), text)


def yes_no_or_auto(name: str, text: str) -> bool | None:
    """`true`, `false`, or `auto` as None."""
    return {"auto": None, "true": True, "false": False}[choice(lambda: ("auto", "true", "false"))(name, text.lower())]


def choice(known: Callable[[], Sequence[str]]) -> Callable[[str, str], str]:
    """A parser of one of some words, which are looked up when they are needed."""

    def parse(name: str, text: str) -> str:
        if text not in known():
            raise SettingsError(f"{name}={text} is unknown. {nearest(text, known())}")
        return text

    return parse


def protocols() -> Sequence[str]:
    """The known split protocols."""
    from muralab.data.splits import PROTOCOLS

    return PROTOCOLS


def precisions() -> Sequence[str]:
    """What training may compute in."""
    from muralab.training.device import PRECISIONS

    return PRECISIONS


def objectives() -> Sequence[str]:
    """The validation metrics that may select."""
    from muralab.experiment import OBJECTIVES

    return OBJECTIVES


def threshold_rule(name: str, text: str) -> str:
    """A rule of the operating threshold."""
    from muralab.evaluation.operating_point import check_rule

    try:
        check_rule(text)
    except SettingsError as error:
        raise SettingsError(f"{name}={text}: {error}") from error
    return text


def names(name: str, text: str) -> tuple[str, ...]:
    """Comma-separated names, each once."""
    return tuple(dict.fromkeys(part.strip() for part in text.split(",") if part.strip()))


def whole(low: int, high: int, *, hint: str = "") -> Callable[[str, str], int]:
    """A parser of a whole number within limits."""

    def parse(name: str, text: str) -> int:
        digits = text.strip().removesuffix(".0")  # `mlflow run` writes whole numbers of type float so
        if not digits.isdecimal() or not low <= int(digits) <= high:
            raise SettingsError(f"{name}={text}: expected a whole number from {low:,} to {high:,}{hint}.")
        return int(digits)

    return parse


def count_or(keyword: str) -> Callable[[str, str], int | None]:
    """A parser of a whole number from 1, or of a keyword as None."""
    parse_count = whole(1, LARGEST_COUNT)
    return lambda name, text: None if text == keyword else parse_count(name, text)


def trials(name: str, text: str) -> int | str | None:
    """A whole number from 1; so many more, such as `+8`, as text; `auto` as None."""
    number = count_or("auto")(name, text.removeprefix("+"))
    return f"+{number}" if text.startswith("+") and number is not None else number


def seed_or_run(name: str, text: str) -> int | None:
    """A seed; `run` (that of the trained run) is None."""
    if text == "run":
        return None
    try:
        return seed(name, text)
    except SettingsError:
        raise SettingsError(
            f"{name}={text}: expected run (the trained run's), or a whole number from 0 to {LARGEST_SEED}."
        ) from None


def number(low: float, high: float) -> Callable[[str, str], float]:
    """A parser of a number within limits."""

    def parse(name: str, text: str) -> float:
        try:
            value = float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:
            raise SettingsError(f"{name}={text}: expected a number from {low:g} to {high:g}.")
        return value

    return parse


def number_or(keyword: str, low: float, high: float) -> Callable[[str, str], float | None]:
    """A parser of a number within limits, or of a keyword as None."""
    parse_number = number(low, high)
    return lambda name, text: None if text == keyword else parse_number(name, text)


def part_or_header(name: str, text: str) -> str | None:
    """A body part, or `header` (only what headers say) as None."""
    if text == "header":
        return None
    if not re.fullmatch(r"[\w .-]+", text):
        raise SettingsError(f"{name}={text}: expected header, or a body part such as wrist.")
    return text.lower()


def images_or_auto(name: str, text: str) -> int | None:
    """A number of pictures, or `auto` as None."""
    return None if text == "auto" else whole(20, LARGEST_COUNT)(name, text)


def prevalence(name: str, text: str) -> float | None:
    """A share of abnormal studies, or `validation` (that of the validation studies) as None."""
    if text == "validation":
        return None
    try:
        share = float(text)
    except ValueError:
        share = math.nan
    if not 0 < share < 1:
        raise SettingsError(f"{name}={text}: expected validation, or a share above 0 and below 1 such as 0.1.")
    return share


seed = whole(0, LARGEST_SEED)


def epochs(name: str, text: str) -> tuple[int, int] | None:
    """`2+3` as epochs of the upper and of the full phase; `recipe` is None."""
    if text == "recipe":
        return None
    match = EPOCHS_FORM.fullmatch(text.strip())
    if not match:
        raise SettingsError(f"{name}={text}: expected `recipe`, or upper+full such as 2+3.")
    return int(match[1]), int(match[2])


def overrides(name: str, text: str) -> dict[str, Value]:
    """`full.lr=3e-5,augment.zoom=0.1` as key -> text of the value; empty text or `none` means no override.

    The word `study` among them stands for the recipe's values of the wrist study: `STUDY` -> True.
    """
    changes: dict[str, Value] = {}
    for part in text.split(",") if text not in ("", "none") else []:
        if part.strip() == STUDY:
            changes[STUDY] = True
            continue
        key, equals, value = (word.strip() for word in part.partition("="))
        if not (key and equals and value) or key == STUDY:
            raise SettingsError(
                f"{name}={text}: '{part}' is not of the form key=value; expected e.g. full.lr=3e-5,augment.zoom=0.1, "
                "or the word study."
            )
        if key in changes:
            raise SettingsError(f"{name}={text}: '{key}' is given twice.")
        changes[key] = value
    return changes


def duration(name: str, text: str) -> float | None:
    """`900`, `30m` or `2h` as seconds; `none` is None."""
    if text in ("none", ""):
        return None
    match = TIME_FORM.fullmatch(text.strip())
    seconds = float(match[1]) * SECONDS[match[2]] if match else 0.0
    if not 1 <= seconds <= LONGEST_S:
        raise SettingsError(
            f"{name}={text}: expected seconds, minutes or hours such as 900, 30m or 2h, from 1 s to a year; or none."
        )
    return seconds


def gpu_share(name: str, text: str) -> float | str:
    """GPUs per trial: 0, a fraction, or 1; `auto` and `pack` stay text."""
    if text in ("auto", PACK):
        return text
    try:
        wanted = float(text)
    except ValueError:
        wanted = -1.0
    if not 0 <= wanted < math.inf or (wanted > 1 and wanted != int(wanted)):
        raise SettingsError(f"{name}={text}: expected auto, pack, 0, a fraction such as 0.5, or 1.")
    return wanted


def columns(name: str, text: str) -> dict[str, str]:
    """`image:path,label:fracture` as the manifest's column -> its name in the file; `none` renames nothing."""
    from muralab.data.manifest import MANIFEST_COLUMNS

    mapped: dict[str, str] = {}
    for pair in next(csv.reader([text], skipinitialspace=True), []) if text not in ("", "none") else []:
        column, colon, own = (word.strip() for word in pair.partition(":"))
        if not (column and colon and own):
            raise SettingsError(
                f"{name}={text}: '{pair}' is not of the form column:name; expected e.g. image:path,label:fracture."
            )
        if column not in MANIFEST_COLUMNS:
            known = ", ".join(MANIFEST_COLUMNS)
            raise SettingsError(f"{name}={text}: a manifest has no '{column}' to map. It has: {known}.")
        if column in mapped:
            raise SettingsError(f"{name}={text}: '{column}' is given twice.")
        mapped[column] = own
    return mapped


def fraction(name: str, text: str) -> float | None:
    """A share of the patients from 0.01 to 0.9; `auto` is None."""
    return None if text == "auto" else number(0.01, 0.9)(name, text)


def folds(name: str, text: str) -> tuple[int, int] | None:
    """`5` (each fold in turn) as (0, 5), `2/5` (one of them) as (2, 5); `none` is None."""
    if text in ("none", ""):
        return None
    match = FOLDS_FORM.fullmatch(text.strip())
    number, n_folds = (int(match[1] or 0), int(match[2])) if match else (0, 0)
    if not 2 <= n_folds <= MOST_FOLDS or number > n_folds or (match and match[1] == "0"):
        raise SettingsError(
            f"{name}={text}: expected a number of folds from 2 to {MOST_FOLDS} such as 5, or one of them such as 2/5."
        )
    return number, n_folds

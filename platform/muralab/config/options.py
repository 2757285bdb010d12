"""Options as data: one dataclass per command, whose fields carry default, help and parser.

The command line is generated from these dataclasses; MLproject and the README's table are tested against them. A new
option is one field, and its line in MLproject.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from muralab.config.parsing import flag
from muralab.errors import MuraLabError, SettingsError, numbered

T = TypeVar("T")
Parser = Callable[[str, str], Any]
"""(name of the option, text) -> value; raises SettingsError."""


@dataclass(frozen=True, kw_only=True)
class Option:
    """What a field of a command's dataclass says about itself."""

    help: str
    default: str | None
    """As text; None for a required option."""
    parse: Parser

    @property
    def is_flag(self) -> bool:
        """Whether the option alone, without a value, stands for `true`."""
        return self.parse is flag


def option(default: str | None, parse: Parser, help: str) -> Any:
    """A field of a command's dataclass.

    Args:
        default: as a user would write it; None makes the option required.
        parse: turns text into the field's value.
        help: one sentence, for the command line and the docs.
    """
    metadata = {"option": Option(help=help, default=default, parse=parse)}
    if default is None:
        return field(metadata=metadata)
    return field(default_factory=lambda: parse("default", default), metadata=metadata)


class Problems:
    """User errors, collected to be raised as one numbered list."""

    def __init__(self) -> None:
        self.found: list[MuraLabError] = []

    def attempt(self, function: Callable[..., T], *arguments: Any) -> T | None:
        """A function's result; None where it raised a user error, which is kept."""
        try:
            return function(*arguments)
        except MuraLabError as error:
            self.found.append(error)
            return None

    def raise_all(self) -> None:
        """Raise what was collected: one error as it is, several as a numbered list of the first one's type."""
        texts = list(dict.fromkeys(str(error) for error in self.found))
        if texts:
            heading = f"{len(texts)} parameters are not usable:"
            raise type(self.found[0])(texts[0] if len(texts) == 1 else numbered(heading, texts))


@dataclass(frozen=True, kw_only=True)
class CommandOptions:
    """The base of every command's options. A subclass's docstring is the command's help."""

    def check(self, problems: Problems) -> None:
        """Collect what is wrong with options that parse one by one but do not fit together."""

    @classmethod
    def require_inputs(cls, texts: Mapping[str, str]) -> None:
        """Refuse inputs that are not on this machine, before other options are parsed: that imports every recipe.

        Args:
            texts: as in `parse_options`. What cannot be parsed is left to it.

        Raises:
            MuraLabError: names what is missing.
        """

    def to_dict(self) -> dict[str, Any]:
        """Plain values that JSON holds."""
        return dataclasses.asdict(self)


C = TypeVar("C", bound=CommandOptions)


def options_of(command: type[CommandOptions]) -> dict[str, Option]:
    """Every option of a command, by name, in the order of its fields."""
    return {one.name: one.metadata["option"] for one in dataclasses.fields(command)}


def parse_options(command: type[C], texts: Mapping[str, str]) -> C:
    """Parse and check a command's options.

    Args:
        command: its dataclass.
        texts: option -> text; options that are missing take their default.

    Raises:
        MuraLabError: everything that is wrong, as one numbered list.
    """
    problems, values = Problems(), {}
    for name, spec in options_of(command).items():
        n_problems = len(problems.found)
        value = problems.attempt(_parse_option, name, spec, texts.get(name, spec.default))
        if len(problems.found) == n_problems:
            values[name] = value
    required = {name for name, spec in options_of(command).items() if spec.default is None}
    config = command(**values) if required <= set(values) else None
    if config is not None:
        config.check(problems)
    problems.raise_all()
    assert config is not None  # a missing option is a problem
    return config


def _parse_option(name: str, spec: Option, text: str | None) -> Any:
    if text is None:
        raise SettingsError(f"The option {name} is required.")
    return spec.parse(name, text)


RENAMED: Mapping[str, tuple[str, Mapping[str, str]]] = {"sampler": ("search", {"sobol": "quasi"})}
"""Option of earlier versions -> its name now, and those of its values that are called otherwise now."""


def restore_options(command: type[C], values: Mapping[str, Any]) -> C:
    """The options that `to_dict` gave, also that of an earlier version, read back from JSON.

    Raises:
        TypeError: a value is missing or unknown.
    """
    restored: dict[str, Any] = {}
    for key, value in values.items():
        name, names = RENAMED.get(key, (key, {}))
        restored[name] = tuple(value) if isinstance(value, list) else names.get(value, value) if names else value
    return command(**restored)

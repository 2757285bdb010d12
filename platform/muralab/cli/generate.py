"""Commands of the command line, generated from the dataclasses that hold their options."""

from __future__ import annotations

import importlib
import inspect
import re
from collections import Counter
from collections.abc import Callable, Collection, Sequence
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from muralab.config.options import CommandOptions, Option, options_of, parse_options
from muralab.errors import SettingsError


def build_command(name: str, command: type[CommandOptions]) -> Callable[..., None]:
    """A function for typer whose parameters are a command's options, all of them text.

    It parses them, reads the environment, makes a temporary folder for everything, and calls
    `run(config, environment)` of its module in `muralab.commands`.

    Args:
        name: of the command and, with _ for -, of its module.
        command: the dataclass of its options; its docstring becomes the help.
    """

    def call(**texts: str) -> None:
        from muralab.config.environment import read_environment
        from muralab.scratch import scratch_folder

        command.require_inputs(texts)
        config = parse_options(command, texts)
        environment = read_environment()
        with scratch_folder():
            importlib.import_module(f"muralab.commands.{name.replace('-', '_')}").run(config, environment)

    parameters = [_parameter(key, spec) for key, spec in options_of(command).items()]
    call.__name__, call.__doc__ = name, inspect.getdoc(command)
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return call


def command_class(command: type[CommandOptions]) -> type[TyperCommand]:
    """A command that takes each option once, and the first required one also without its name: `manifest /export`."""
    name = next((key for key, spec in options_of(command).items() if spec.default is None), None)

    class Generated(TyperCommand):
        def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
            words = with_dashes(args, None if name is None else options_of(command))
            if name is not None:
                words = name_first(words, name)
            _, _, given = self.make_parser(ctx).parse_args(args=list(words))
            refuse_repeated([option.opts[0] for option in given])
            return super().parse_args(ctx, words)

        def collect_usage_pieces(self, ctx: Any) -> list[str]:
            pieces = super().collect_usage_pieces(ctx)
            return pieces if name is None else [f"[{name.upper()}]", *pieces]

    return Generated


def with_dashes(words: Sequence[str], known: Collection[str] | None = None) -> list[str]:
    """Accept options as MLproject, the docs and the messages spell them: `part=wrist` for `--part wrist`.

    Args:
        words: the command line after the command.
        known: the options that are taken so; None: all, so that a mistyped one gets its error message.

    >>> with_dashes(["part=wrist", "--set", "full.lr=1e-4", "test_fraction=0.2"])
    ['--part', 'wrist', '--set', 'full.lr=1e-4', '--test-fraction', '0.2']
    """
    dashed: list[str] = []
    follows = False  # the value of the option before it
    for place, word in enumerate(words):
        if word == "--":
            return [*dashed, *words[place:]]
        spelled = None if follows else re.fullmatch(r"([a-z][a-z_-]*)=(.*)", word, re.DOTALL)
        if spelled and (known is None or spelled[1].replace("-", "_") in known):
            dashed += [f"--{spelled[1].replace('_', '-')}", spelled[2]]
        else:
            dashed.append(word)
        follows = _takes_next(word) and not follows
    return dashed


def _takes_next(word: str) -> bool:
    """Whether the word after this one is its value."""
    return word.startswith("--") and "=" not in word and word != "--help"


def refuse_repeated(options: Sequence[str]) -> None:
    """Refuse an option that is given twice, of which all but the last value would be ignored.

    Args:
        options: the name of each, as often as it was given.

    Raises:
        SettingsError: names each of them.
    """
    repeated = [name for name, count in Counter(options).items() if count > 1]
    if repeated:
        verb = "are" if len(repeated) > 1 else "is"
        raise SettingsError(
            f"{', '.join(repeated)} {verb} given more than once. Give each option once; values are comma-separated, as "
            "in --columns image:file,label:fracture."
        )


def name_first(words: Sequence[str], option: str) -> list[str]:
    """Put an option's name in front of the one word that has none.

    Args:
        words: the command line after the command; every option takes a value.
        option: which option such a word is the value of.

    >>> name_first(["--out", "m.csv", "/export"], "folder")
    ['--out', 'm.csv', '--folder', '/export']
    """
    flag = f"--{option.replace('_', '-')}"
    if any(word == flag or word.startswith(f"{flag}=") for word in words):
        return list(words)
    named: list[str] = []
    follows = False  # the value of the option before it
    is_missing = True
    for word in words:
        if is_missing and not follows and not word.startswith("-"):
            named.append(flag)
            is_missing = False
        named.append(word)
        follows = not follows and _takes_next(word)
    return named


def _parameter(name: str, spec: Option) -> inspect.Parameter:
    declaration: Any = Annotated[str, typer.Option(help=spec.help)]
    default = inspect.Parameter.empty if spec.default is None else spec.default
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=declaration)

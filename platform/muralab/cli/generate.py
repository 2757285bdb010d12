"""Commands of the command line, generated from the dataclasses that hold their options."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Annotated, Any

import typer

from muralab.config.options import CommandOptions, Option, options_of, parse_options


def build_command(name: str, command: type[CommandOptions]) -> Callable[..., None]:
    """A function for typer whose parameters are a command's options, all of them text.

    It parses them, reads the environment, and calls `run(config, environment)` of `muralab.commands.<name>`.

    Args:
        name: of the command and of its module.
        command: the dataclass of its options; its docstring becomes the help.
    """

    def call(**texts: str) -> None:
        from muralab.config.environment import read_environment

        config = parse_options(command, texts)
        importlib.import_module(f"muralab.commands.{name}").run(config, read_environment())

    parameters = [_parameter(key, spec) for key, spec in options_of(command).items()]
    call.__name__, call.__doc__ = name, inspect.getdoc(command)
    call.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    call.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    return call


def _parameter(name: str, spec: Option) -> inspect.Parameter:
    declaration: Any = Annotated[str, typer.Option(help=spec.help)]
    default = inspect.Parameter.empty if spec.default is None else spec.default
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=declaration)

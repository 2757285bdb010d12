"""The command line, generated from `muralab.config.commands`: the entry points of MLproject, `app` and `sync`.

Exit codes: 0 done; 2 a user error, printed as one paragraph; 3 done, but trials failed and can be resumed; 129, 130 or
143 interrupted; 1 a bug, with its traceback.
"""

from __future__ import annotations

import atexit
import os
import sys
from collections.abc import Sequence
from typing import Annotated

import typer

from muralab.cli.generate import build_command, command_class
from muralab.config import commands
from muralab.config.options import options_of
from muralab.redaction import install_redaction, redact

COMMANDS = {
    "tune": commands.TuneConfig,
    "train": commands.TrainConfig,
    "evaluate": commands.EvaluateConfig,
    "explore": commands.ExploreConfig,
    "predict": commands.PredictConfig,
    "promote": commands.PromoteConfig,
    "report": commands.ReportConfig,
    "compare": commands.CompareConfig,
    "manifest": commands.ManifestConfig,
    "demo": commands.DemoConfig,
    "new-recipe": commands.NewRecipeConfig,
    "doctor": commands.DoctorConfig,
    "app": commands.AppConfig,
    "sync": commands.SyncConfig,
}
USER_ERROR, TRIALS_FAILED, INTERRUPTED = 2, 3, 130

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Find, compare, track and serve classifiers of abnormal bone radiographs. Not a medical device.",
)


def _print_version(wanted: bool) -> None:
    if wanted:
        from muralab.tracking.platform_version import platform_version

        typer.echo(f"MURA Lab {platform_version()}")
        raise typer.Exit


_VERSION = typer.Option("--version", is_eager=True, callback=_print_version, help="Show the version and exit.")


@app.callback()
def _before_any_command(version: Annotated[bool, _VERSION] = False) -> None:
    """Options that need no command."""


for _name, _options in COMMANDS.items():
    app.command(_name, cls=command_class(_options))(build_command(_name, _options))


def main() -> None:
    """Run a command and exit with its code."""
    from muralab.ending import exit_code, handle_signals, print_last_lines
    from muralab.streams import secure_streams

    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when MLflow is imported, here or in a worker
    secure_streams()
    handle_signals()
    install_redaction()
    atexit.register(print_last_lines)  # after the traceback of a bug
    code = _run()
    interrupted = exit_code()
    print_last_lines()
    sys.exit(code if interrupted is None else interrupted)


def _run() -> int | str | None:
    """Run a command; returns its exit code after printing a user error. A bug is raised."""
    from muralab.disk import disk_problem
    from muralab.errors import MuraLabError, TrialsFailedError

    given = os.environ.get("MLFLOW_RUN_ID")  # a command takes it out of the environment
    try:
        app(args=expand_flags(sys.argv[1:]))
    except TrialsFailedError as error:
        return _complain(str(error), TRIALS_FAILED)
    except MuraLabError as error:
        return _refuse(str(error), given)
    except SystemExit as leaving:
        return leaving.code
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        problem = disk_problem(error)
        if problem is None:
            raise
        return _refuse(problem, given)
    return 0


def _refuse(text: str, given: str | None) -> int:
    """Print an error message; the run that `mlflow run` gave to a command that logged nothing says so."""
    code = _complain(text, USER_ERROR)
    if given:
        from muralab.tracking.projects import close_refused

        close_refused(os.environ.get("MLFLOW_TRACKING_URI"), given, text)
    return code


def _complain(text: str, code: int) -> int:
    sys.stdout.flush()
    print(f"\nmuralab: {redact(text)}", file=sys.stderr)
    return code


def expand_flags(words: Sequence[str]) -> list[str]:
    """A command line where a flag without a value, such as `--fix`, has the value true."""
    if not words or words[0] not in COMMANDS:
        return list(words)
    flags = {f"--{name.replace('_', '-')}" for name, one in options_of(COMMANDS[words[0]]).items() if one.is_flag}
    following = [*words[1:], "--"]
    expanded = []
    for word, after in zip(words, following, strict=True):
        has_no_value = word in flags and (after.startswith("--") or "=" in after)
        expanded += [word, "true"] if has_no_value else [word]
    return expanded

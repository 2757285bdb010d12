"""The command line: one command per entry point of MLproject, generated from `muralab.config.commands`.

Exit codes: 0 done; 2 a user error, printed as one paragraph; 3 done, but trials failed and can be resumed; 129, 130 or
143 interrupted; 1 a bug, with its traceback.
"""

from __future__ import annotations

import atexit
import sys
from collections.abc import Sequence

import typer

from muralab.cli.generate import build_command, command_class
from muralab.config import commands
from muralab.config.options import options_of

COMMANDS = {
    "tune": commands.TuneConfig,
    "train": commands.TrainConfig,
    "evaluate": commands.EvaluateConfig,
    "explore": commands.ExploreConfig,
    "predict": commands.PredictConfig,
    "promote": commands.PromoteConfig,
    "report": commands.ReportConfig,
    "compare": commands.CompareConfig,
    "demo": commands.DemoConfig,
    "doctor": commands.DoctorConfig,
    "app": commands.AppConfig,
}
USER_ERROR, TRIALS_FAILED, INTERRUPTED = 2, 3, 130

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Find, compare, track and serve classifiers of abnormal bone radiographs. Not a medical device.",
)
for _name, _options in COMMANDS.items():
    app.command(_name, cls=command_class(_options))(build_command(_name, _options))


def main() -> None:
    """Run a command and exit with its code."""
    from muralab.ending import exit_code, handle_signals, print_last_lines
    from muralab.streams import secure_streams

    secure_streams()
    handle_signals()
    atexit.register(print_last_lines)  # after the traceback of a bug
    code = _run()
    interrupted = exit_code()
    print_last_lines()
    sys.exit(code if interrupted is None else interrupted)


def _run() -> int | str | None:
    """Run a command; returns its exit code after printing a user error. A bug is raised."""
    from muralab.disk import disk_problem
    from muralab.errors import MuraLabError, TrialsFailedError

    try:
        app(args=expand_flags(sys.argv[1:]))
    except TrialsFailedError as error:
        return _complain(str(error), TRIALS_FAILED)
    except MuraLabError as error:
        return _complain(str(error), USER_ERROR)
    except SystemExit as leaving:
        return leaving.code
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        problem = disk_problem(error)
        if problem is None:
            raise
        return _complain(problem, USER_ERROR)
    return 0


def _complain(text: str, code: int) -> int:
    sys.stdout.flush()
    print(f"\nmuralab: {text}", file=sys.stderr)
    return code


def expand_flags(words: Sequence[str]) -> list[str]:
    """A command line where a flag without a value, such as `--fix`, has the value true."""
    if not words or words[0] not in COMMANDS:
        return list(words)
    flags = {f"--{name.replace('_', '-')}" for name, one in options_of(COMMANDS[words[0]]).items() if one.is_flag}
    following = [*words[1:], "--"]
    expanded = []
    for word, after in zip(words, following, strict=True):
        expanded += [word, "true"] if word in flags and after.startswith("--") else [word]
    return expanded

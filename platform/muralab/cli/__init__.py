"""The command line: one command per entry point of MLproject, one module a command, everything absolute at the door.

Exit codes: 0 done; 2 a mistake that the user can mend, told in one paragraph; 129, 130 or 143 interrupted; 1 a bug,
with its traceback.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from typing import Any, NoReturn

import typer

from muralab.cli.app import app as serve_app
from muralab.cli.compare import compare
from muralab.cli.explore import explore
from muralab.cli.predict import predict
from muralab.cli.promote import promote
from muralab.cli.report import report
from muralab.cli.train import evaluate, train
from muralab.cli.tune import tune

app = typer.Typer(
    add_completion=False,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="Find, compare, track and serve classifiers of abnormal bone radiographs. Not a medical device.",
)
for command in (tune, train, evaluate, explore, predict, promote, report, compare):
    app.command()(command)
app.command("app")(serve_app)


@app.callback()
def _commands() -> None:
    """Without this, typer would take the only command for the program itself."""


FULL = (errno.ENOSPC, errno.EDQUOT)
ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_INTERRUPTED: list[int] = []
"""The signal that ended this process, if one did."""
_TERMINALS: list[int] = []
"""Which of the standard streams were a terminal at the start."""


def _interrupt(number: int, _: Any) -> None:
    # `mlflow run` answers Ctrl-C with a SIGTERM of its own; the second signal must not break the closing off.
    for one in ENDING:
        signal.signal(one, signal.SIG_IGN)
    for stream in _TERMINALS:
        if not os.isatty(stream):  # it was hung up, and every word that is printed from here on would be an error
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    _INTERRUPTED.append(number)
    raise KeyboardInterrupt


def _answer_signals() -> None:
    """An end from outside is one like Ctrl-C; under `nohup` a lost terminal is none."""
    _TERMINALS[:] = [stream for stream in (1, 2) if os.isatty(stream)]
    for one in ENDING:
        if one != signal.SIGHUP or signal.getsignal(one) != signal.SIG_IGN:
            signal.signal(one, _interrupt)


def _refuse(text: str) -> NoReturn:
    sys.stdout.flush()
    print(f"\nmuralab: {text}", file=sys.stderr)
    sys.exit(2)


def main() -> None:
    """Run a command and exit with its code."""
    from muralab.errors import MuraLabError

    _answer_signals()
    try:
        app()
    except MuraLabError as error:
        _refuse(str(error))
    except OSError as error:
        if error.errno not in FULL:
            raise
        _refuse(f"The disk is full{f' at {error.filename}' if error.filename else ''}. Free some space, and go on.")
    except SystemExit as leaving:
        sys.exit(128 + _INTERRUPTED[0] if _INTERRUPTED else leaving.code)

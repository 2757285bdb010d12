"""The command line, generated from `muralab.config.commands`: the entry points of MLproject, `app` and `sync`.

Exit codes: 0 done; 2 a user error, printed as one paragraph; 129, 130 or 143 interrupted; 1 a bug, with its traceback.
"""

from __future__ import annotations

import errno
import os
import sys
from typing import NoReturn

import typer

from muralab.cli.generate import build_command, command_class
from muralab.cli.signals import exit_code, handle_signals
from muralab.config import commands
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
    "app": commands.AppConfig,
    "sync": commands.SyncConfig,
}
FULL = (errno.ENOSPC, errno.EDQUOT)

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
    from muralab.errors import MuraLabError

    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")  # read when MLflow is imported, here or in a worker
    handle_signals()
    given = os.environ.get("MLFLOW_RUN_ID")
    install_redaction()
    try:
        app()
    except MuraLabError as error:
        _refuse(str(error), given)
    except OSError as error:
        if error.errno not in FULL:
            raise
        _refuse(f"The disk is full{f' at {error.filename}' if error.filename else ''}. Free some space and try again.")
    except SystemExit as leaving:
        interrupted = exit_code()
        sys.exit(leaving.code if interrupted is None else interrupted)


def _refuse(text: str, given: str | None = None) -> NoReturn:
    """Print an error message and exit; the run that `mlflow run` gave to a command that logged nothing says so."""
    sys.stdout.flush()
    print(f"\nmuralab: {redact(text)}", file=sys.stderr)
    if given:
        from muralab.tracking.projects import close_refused

        close_refused(os.environ.get("MLFLOW_TRACKING_URI"), given, text)
    sys.exit(2)

"""The fixtures of commands: those of the command line and of files to predict."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import pytest

from muralab.commands import train as train_command
from muralab.experiment import run_trial
from tests.app.conftest import model_folder  # noqa: F401
from tests.cli.conftest import closed_port, muralab, no_hub, prepared, store, tree  # noqa: F401
from tests.predict.conftest import ask, engine, onnx_file, refusal, store_uri  # noqa: F401


def interrupt_after(n_epochs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Ctrl-C in the middle of an epoch."""

    def run(spec: Any) -> Generator[Any]:
        for result in run_trial(spec):
            yield result
            if result.global_epoch == n_epochs:
                raise KeyboardInterrupt

    monkeypatch.setattr(train_command, "run_trial", run)

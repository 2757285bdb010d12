"""Keep other libraries' output off the terminal, so that a sweep's table stays readable."""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator

_LOGGERS = ("torch.onnx", "torch.export", "torch._dynamo", "torch.fx", "onnxscript", "onnx_ir", "mlflow")
_PROGRESS_BAR = "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR"


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Drop what exporters and MLflow print, warn and log below ERROR; exceptions propagate."""
    levels = {name: logging.getLogger(name).level for name in _LOGGERS}
    progress_bar = os.environ.get(_PROGRESS_BAR)
    os.environ[_PROGRESS_BAR] = "false"
    try:
        for name in _LOGGERS:
            logging.getLogger(name).setLevel(logging.ERROR)
        logging.getLogger().addFilter(_is_error)  # only for what is logged by no logger of its own
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.getLogger().removeFilter(_is_error)
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
        os.environ.pop(_PROGRESS_BAR)
        if progress_bar is not None:
            os.environ[_PROGRESS_BAR] = progress_bar


def _is_error(record: logging.LogRecord) -> bool:
    return record.levelno >= logging.ERROR

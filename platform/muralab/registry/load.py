"""A registered model, loaded with the code that it was registered with."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from muralab.errors import StoreError
from muralab.tracking import open_store

_OWN = ("muralab.serving", "muralab.data", "muralab.errors")
"""Packages that a model carries its own copy of."""


def load_registered(model: str, tracking_uri: str) -> tuple[Any, Path]:
    """Load a model as `mlflow models serve` does: its own preprocessing and answers, whatever this checkout's are.

    From here on, imports of the packages that the model carries give the model's copies, in the whole process; what
    was imported before keeps what it has. So a command calls this last, once.

    Args:
        model: a URI such as models:/mura-wrist@champion, or a folder.
        tracking_uri: of the store that knows it.

    Returns:
        MLflow's `PyFuncModel`, and the folder that it lies in.

    Raises:
        StoreError: there is no such model, or it does not load.
    """
    if ":/" in model:
        open_store(tracking_uri)
    import mlflow.pyfunc

    mlflow.set_tracking_uri(tracking_uri)
    mlflow.set_registry_uri(tracking_uri)
    try:
        folder = mlflow.artifacts.download_artifacts(model) if ":/" in model else model
        _prefer(Path(folder) / "code" / "muralab")
        return mlflow.pyfunc.load_model(folder), Path(folder)
    except Exception as error:  # whatever a store, a file or an old model may raise
        raise _no_model(model, tracking_uri, error) from error


def _prefer(code: Path) -> None:
    """Let the imports to come find a model's copies."""
    import muralab

    if code.is_dir():
        muralab.__path__.insert(0, str(code))
        for name in [name for name in sys.modules if name.startswith(_OWN)]:
            del sys.modules[name]
        importlib.invalidate_caches()


def _no_model(model: str, uri: str, error: Exception) -> StoreError:
    reason = " ".join(str(error).split())[:300].rstrip(".")
    return StoreError(
        f"The model {model} cannot be loaded ({reason or type(error).__name__}). The store is {uri}: `make tune` "
        "registers mura-<part> there; MLFLOW_TRACKING_URI names another store."
    )

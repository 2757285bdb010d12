"""Load a registered model with the code that it was registered with."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from muralab.errors import StoreError
from muralab.redaction import redact
from muralab.tracking import open_store
from muralab.tracking.failures import reason_of
from muralab.tracking.outage import outage_of, retried

PATIENCE_S = 60.0
"""How long a download is tried again."""
_BUNDLED = ("muralab.serving", "muralab.data", "muralab.errors", "muralab.processor")
"""Packages and modules that a model ships its own copy of."""


def load_registered(model: str, tracking_uri: str, registry_uri: str = "") -> tuple[Any, Path]:
    """Load a model as `mlflow models serve` does, with its own preprocessing whatever this checkout's is.

    From then on the whole process imports the model's copies of the packages that it ships; modules that were imported
    before keep the objects they hold. So call this once, after all other imports of a command.

    Args:
        model: a URI such as models:/mura-wrist@champion, or a folder.
        tracking_uri: of the store that holds it.
        registry_uri: of the model registry; empty: the store's own.

    Returns:
        MLflow's `PyFuncModel`, and the model's folder.

    Raises:
        StoreError: there is no such model, or it does not load.
    """
    if ":/" in model:
        open_store(tracking_uri, registry_uri=registry_uri)
    import mlflow.pyfunc

    mlflow.set_tracking_uri(tracking_uri)
    mlflow.set_registry_uri(registry_uri)  # empty: that of the tracking store
    try:
        folder = _download(model, registry_uri or tracking_uri) if ":/" in model else model
        _prefer_code(Path(folder) / "code" / "muralab")
        return mlflow.pyfunc.load_model(folder), Path(folder)
    except Exception as error:  # of any type: a store, a file or an old model's code may fail
        raise _load_error(model, registry_uri or tracking_uri, error) from error


def _prefer_code(code: Path) -> None:
    """Make later imports find a model's copies first.

    The copies may have another layout than this checkout: a model of an older commit has `muralab.data.pixels`.
    """
    import muralab

    if code.is_dir():
        muralab.__path__.insert(0, str(code))
        for name in [name for name in sys.modules if name.startswith(_BUNDLED)]:
            del sys.modules[name]
        importlib.invalidate_caches()


def _load_error(model: str, uri: str, error: Exception) -> StoreError:
    reason = reason_of(error).rstrip(".")
    return StoreError(
        f"The model {model} cannot be loaded ({reason or type(error).__name__}). The store is {redact(uri)}: "
        "`make tune` registers mura-<part> there; MLFLOW_TRACKING_URI (and MLFLOW_REGISTRY_URI) name another one."
    )


def _download(model: str, uri: str) -> str:
    import mlflow.artifacts

    outage = outage_of(uri)
    return retried(lambda: str(mlflow.artifacts.download_artifacts(model)), outage=outage, patience_s=PATIENCE_S)

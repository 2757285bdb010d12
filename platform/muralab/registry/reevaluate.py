"""A registered model on another test set, through its own ONNX file, so that its recipe need not exist any more.

Shapes: N test images, S side of the model's own input in px.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from muralab.data.cache import open_cache
from muralab.data.local_files import find_files, missing_files
from muralab.errors import DataError, StoreError
from muralab.evaluation.calibration import Calibration
from muralab.registry.register import CALIBRATION
from muralab.registry.silence import silenced
from muralab.serving.config import ServingConfig, read_config
from muralab.tracking import Store
from muralab.tracking.failures import is_temporary, reason_of, store_error
from muralab.tracking.outage import outage_of, retried

BATCH_SIZE = 32


def evaluate_registered(
    store: Store,
    name: str,
    version: str,
    test: pd.DataFrame,
    root: Path,
    cache: Path,
    *,
    manifest: Path | None = None,
    columns: Mapping[str, str] | None = None,
) -> tuple[pd.DataFrame, Calibration]:
    """Predictions of a registered version on the images of a table, and the version's own calibration.

    Args:
        store: holds the model.
        name: of the registered model.
        version: of it.
        test: one row per image, with image, study, patient, part and label.
        root: the folder that image names start from.
        cache: folder of decoded images.
        manifest: that names the images; None: the root is a MURA tree.
        columns: of the manifest, where they have other names.

    Returns:
        The table with the model's `logit`, and the calibration that was fitted on the model's validation studies.

    Raises:
        DataError: images are missing or unreadable.
        StoreError: the model's files cannot be read, or its ONNX file cannot be run.
    """
    table = find_files(test, root, store.keys, manifest=manifest, columns=columns)
    missing = missing_files(table)
    if missing:
        raise DataError(
            f"{len(missing)} of the {len(table)} test images are missing below {root} on this machine, such as "
            f"{missing[0]}. Promote the model where the data set is."
        )
    with tempfile.TemporaryDirectory() as folder:
        onnx, config = _download(store, name, version, Path(folder))
        logits = _predict(onnx, config, table, cache)
    return test.assign(logit=logits), _calibration(config)


def _download(store: Store, name: str, version: str, folder: Path) -> tuple[Path, ServingConfig]:
    from mlflow.artifacts import download_artifacts

    try:
        with silenced():
            source = store.client.get_model_version_download_uri(name, version)
            bundle = retried(
                lambda: Path(download_artifacts(source, dst_path=str(folder), tracking_uri=store.uri)) / "artifacts",
                outage=outage_of(store.uri),
                patience_s=store.patience_s,
            )
        return bundle / "model.onnx", read_config(bundle / "config.json")
    except Exception as error:
        if is_temporary(error):
            raise store_error(store, f"read the files of {name} version {version}", error) from error
        raise StoreError(f"The files of {name} version {version} cannot be read ({reason_of(error)}).") from error


def _predict(onnx: Path, config: ServingConfig, table: pd.DataFrame, folder: Path) -> np.ndarray:
    """Logits, float32 [N]."""
    import onnxruntime

    cache = open_cache(table, size=config.image_size, folder=folder / "pixels", value_range=config.value_range).coded(
        table
    )
    if cache.unreadable:
        image, reason = next(iter(cache.unreadable.items()))
        raise DataError(f"{len(cache.unreadable)} of the test images are unreadable, such as {image}: {reason}.")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    rows = cache.rows(table)
    try:
        session = onnxruntime.InferenceSession(str(onnx), options, providers=["CPUExecutionProvider"])
        parts = [
            session.run(["logits"], {"images": np.ascontiguousarray(cache.images[rows[first : first + BATCH_SIZE]])})[0]
            for first in range(0, len(rows), BATCH_SIZE)
        ]
    except Exception as error:  # onnxruntime's own types, for a corrupt file or one with other inputs or outputs
        raise StoreError(f"The registered model.onnx cannot be run ({error}).") from error
    return np.concatenate(parts)


def _calibration(config: ServingConfig) -> Calibration:
    stored = {name: getattr(config, name) for name in CALIBRATION}
    return Calibration(**{**stored, "rule": config.rule or "max-kappa"})

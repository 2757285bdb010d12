"""The folder that MLflow serves: ONNX file, configuration and serving code, and a check that it is self-contained.

Shapes: N verification images, S side of the network's input in px.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pandas as pd

import muralab
from muralab.registry.export import PROBABILITY_TOLERANCE
from muralab.serving.config import ServingConfig, write_config
from muralab.serving.familiarity import Familiarity, write_familiarity

_CODE = ("__init__.py", "errors.py", "processor.py", "serving", "data/__init__.py", "data/body_parts.py", "data/images")
_REQUIREMENTS = (
    ("imagecodecs",),
    ("mlflow",),
    ("numpy",),
    ("onnxruntime", "onnxruntime-gpu"),
    ("opencv-python-headless", "opencv-python"),
    ("pandas",),
    ("pillow",),
    ("pydicom",),
)
_CHECK_IMAGES = 4
_CHECK_TIMEOUT_S = 300
_CHECK = """
import json, sys
import mlflow.pyfunc
model = mlflow.pyfunc.load_model(sys.argv[1])
import muralab.serving
answer = model.predict(json.load(open(sys.argv[2], encoding="utf-8")))
heavy = sorted({"torch", "ray", "timm", "albumentations"} & set(sys.modules))
print("ANSWER" + json.dumps([list(answer["probability"]), muralab.serving.__file__, heavy]))
"""


def write_bundle(
    folder: Path,
    onnx: Path,
    config: ServingConfig,
    *,
    fast: Path | None = None,
    familiarity: Familiarity | None = None,
    model: Any = None,
    example: list[bytes] | None = None,
) -> None:
    """Write the model's folder in MLflow's pyfunc form.

    Args:
        folder: must not exist yet.
        onnx: the exported network.
        fast: the same with 8-bit integers; None: the exact engine serves.
        config: preprocessing and calibration.
        familiarity: of its training images; None: the model does not warn about unlike images.
        model: MLflow's `Model` that the folder belongs to; None for one that is not logged.
        example: encoded images of one study, for the input example.
    """
    import mlflow.pyfunc

    with tempfile.TemporaryDirectory() as temporary:
        code = _copy_code(Path(temporary) / "muralab")
        stored, network = Path(temporary) / "config.json", Path(temporary) / "model.onnx"
        write_config(config, stored)
        shutil.copyfile(onnx, network)
        artifacts = {"onnx": str(network), "config": str(stored)}
        if fast is not None:
            artifacts["fast"] = str(shutil.copyfile(fast, Path(temporary) / "fast.onnx"))
        if familiarity is not None:
            artifacts["familiarity"] = str(Path(temporary) / "familiarity.npz")
            write_familiarity(familiarity, Path(artifacts["familiarity"]))
        mlflow.pyfunc.save_model(
            folder,
            python_model=str(code / "serving" / "served_model.py"),
            code_paths=[str(code)],
            artifacts=artifacts,
            signature=build_signature(),
            input_example=None if example is None else _example_table(example),
            pip_requirements=read_requirements(),
            mlflow_model=model,
        )


def build_signature() -> Any:
    """Inputs, outputs and parameters of the served model, as MLflow's signature."""
    from mlflow.models import ModelSignature
    from mlflow.types.schema import Array, ColSpec, DataType, ParamSchema, ParamSpec, Schema

    numbers = [ColSpec("double", name) for name in ("probability", "study_probability")]
    flags = [ColSpec("boolean", name) for name in ("abnormal", "uncertain")]
    prevalence = ColSpec("double", "prevalence", required=False)
    rest = [ColSpec("double", "threshold"), prevalence, ColSpec("string", "model_version")]
    notes = [ColSpec(Array(DataType.string), "warnings")]
    extra = [ColSpec("string", name, required=False) for name in ("heatmap", "error")]
    return ModelSignature(
        inputs=Schema([ColSpec("string", "image"), ColSpec("string", "study", required=False)]),
        outputs=Schema([*numbers, *flags, *rest, *notes, *extra]),
        params=ParamSchema(
            [
                ParamSpec("threshold", DataType.double, None),
                ParamSpec("prevalence", DataType.double, None),
                ParamSpec("explain", DataType.boolean, False),
                ParamSpec("policy", DataType.string, "refuse"),
            ]
        ),
    )


def read_requirements() -> list[str]:
    """The packages that serving needs, pinned to the installed versions: no torch, no ray."""
    return [f"{names[0]}=={_installed(names)}" for names in _REQUIREMENTS]


def check_bundle(folder: Path, images: np.ndarray, probabilities: np.ndarray) -> None:
    """Serve a few images from the folder in a separate process, and compare the answers with those of its network.

    The process imports the bundle's code instead of the checkout's, and may not read any pickle.

    Args:
        folder: as written by `write_bundle`.
        images: uint8 [N, S, S].
        probabilities: float [N], calibrated, computed on the same images: in torch, or by the fast engine.

    Raises:
        RuntimeError: the bundle does not load on its own, loads torch, or its answers differ.
    """
    served, source, heavy = _serve_in_subprocess(folder, images[:_CHECK_IMAGES])
    if heavy or not Path(source).resolve().is_relative_to(folder.resolve()):
        raise RuntimeError(f"The served model is not self-contained: it imported {', '.join(heavy) or source}.")
    worst = float(np.abs(np.asarray(served) - probabilities[: len(served)]).max())
    if not worst <= PROBABILITY_TOLERANCE:
        raise RuntimeError(f"The served model differs from its network by {worst:.2g} in probability.")


def _serve_in_subprocess(folder: Path, images: np.ndarray) -> tuple[list[float], str, list[str]]:
    """Probabilities [N] from the bundle, the file of its serving code, and the forbidden packages that it imported."""
    with tempfile.TemporaryDirectory() as temporary:
        request = Path(temporary) / "request.json"
        rows = [{"image": _base64(_png(image))} for image in images]
        request.write_text(json.dumps(rows), encoding="utf-8")
        environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
        environment["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
        done = subprocess.run(
            [sys.executable, "-c", _CHECK, str(folder), str(request)],
            capture_output=True,
            text=True,
            cwd=temporary,
            env=environment,
            timeout=_CHECK_TIMEOUT_S,
            check=False,
        )
    found = done.stdout.partition("ANSWER")[2]
    if done.returncode or not found:
        raise RuntimeError(f"The served model does not load on its own:\n{done.stderr[-2000:]}")
    probabilities, source, heavy = json.loads(found.splitlines()[0])
    return probabilities, source, heavy


def _copy_code(target: Path) -> Path:
    """Copy the serving part of the package only, so that a bundle ships nothing that needs torch."""
    source = Path(muralab.__file__).parent
    for name in _CODE:
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        if (source / name).is_dir():
            shutil.copytree(source / name, target / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copyfile(source / name, target / name)
    return target


def _example_table(images: list[bytes]) -> pd.DataFrame:
    return pd.DataFrame({"image": [_base64(image) for image in images], "study": "study1"})


def _installed(names: tuple[str, ...]) -> str:
    for name in names:
        try:
            return version(name).partition("+")[0]
        except PackageNotFoundError:
            continue
    raise RuntimeError(f"The package {names[0]} is not installed, so its version cannot be pinned.")


def _png(image: np.ndarray) -> bytes:
    return bytes(cv2.imencode(".png", image)[1].tobytes())


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")

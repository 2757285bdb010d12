"""Is the served model equivalent to the trained one, self-contained and small?

    python -m bench.served            (about a minute; MLFLOW_TRACKING_URI names the store, ./mlflow.db without)

Equivalent: the registered demo model against the logits that its own training process logged, on every test image and
study, as PNG and as DICOM of the same pixels. Heat maps: the exported graph against torch's Grad-CAM. Small: installed
size of what serving requires, over that of what training requires. Self-contained: a model loads and answers in a
process where every connection raises and pickle is not allowed. A difference that is not finite, or a package that is
not installed, ends the benchmark with a traceback.
"""

from __future__ import annotations

import base64
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from bench.common import Options, Row, run
from bench.payloads import encode, encode_dicom, grey_images
from bench.servers import ROOT
from bench.serving_models import build_network
from muralab.evaluation.predictions import level_rows  # here: a loaded model's own code replaces what it imports
from muralab.serving.config import ServingConfig, read_config

MODEL = "models:/mura-wrist@champion"

_SELF_CONTAINED = """
import socket, sys
def refuse(*_): raise RuntimeError("the model used the network")
socket.socket.connect = socket.socket.connect_ex = refuse
socket.getaddrinfo = refuse
import mlflow.pyfunc, numpy, pandas
model = mlflow.pyfunc.load_model(sys.argv[1])
print(len(model.predict(pandas.read_csv(sys.argv[2]))), "torch" in sys.modules)
"""


def measure(options: Options) -> list[Row]:
    """Measure all of it."""
    del options
    others = [measure_heat_map(), measure_self_contained(), measure_size()]
    return [*measure_equivalence(), *others]  # measured last: from then on the model's own code is imported


def measure_equivalence() -> list[Row]:
    """Largest difference in probability over the test images and studies of the registered demo model."""
    from muralab.data.images.decode import decode
    from muralab.demo.dataset import default_folder, write_demo
    from muralab.registry.load import load_registered
    from muralab.tracking import absolute_uri, open_store, read_run

    store = open_store(absolute_uri(os.environ.get("MLFLOW_TRACKING_URI")))
    name, _, alias = MODEL.removeprefix("models:/").partition("@")
    version = store.client.get_model_version_by_alias(name, alias)
    predictions = read_run(store, version.run_id).predictions["test"]
    root = write_demo(default_folder())
    files = [(root / image).read_bytes() for image in predictions["image"]]
    wrapped = [encode_dicom(decode(data)) for data in files]
    model, folder = load_registered(f"models:/{name}/{version.version}", store.uri)
    trained = _evaluate(predictions, read_config(folder / "artifacts" / "config.json"))
    rows = []
    for kind, contents in (("PNG", files), ("DICOM", wrapped)):
        served = _serve(model, predictions["study"], contents)
        for level, column in (("images", "probability"), ("studies", "study_probability")):
            worst = _finite((served[column] - trained[column]).abs().max(skipna=False))
            rows.append(
                Row(
                    what=f"served against evaluated, {level}, {kind}",
                    ours=f"{worst:.1e}",
                    theirs="limit 1e-4",
                    ratio=worst / 1e-4,
                    at_most=1.0,
                    note=f"largest difference in probability, {len(files)} test images, {name}/{version.version}.",
                )
            )
    return rows


def _evaluate(predictions: pd.DataFrame, config: ServingConfig) -> pd.DataFrame:
    """What the platform evaluates: probability and study_probability of each image, in the order of the table."""
    images = level_rows(predictions, level="image", scaling=config.image_scaling)
    studies = level_rows(predictions, level="study", scaling=config.study_scaling)
    by_study = studies.set_index("study")["probability"]
    return pd.DataFrame(
        {
            "probability": images["probability"].to_numpy(),
            "study_probability": by_study.loc[predictions["study"]].to_numpy(),
        }
    )


def _serve(model: Any, studies: pd.Series, contents: list[bytes]) -> pd.DataFrame:
    """What the model answers, in the same order; one request per study."""
    table = pd.DataFrame({"image": [base64.b64encode(data).decode("ascii") for data in contents]})
    table["study"] = studies.astype(str).to_numpy()
    answers = []
    for _, views in table.groupby("study", sort=False):
        answer = model.predict(views.reset_index(drop=True))
        answers.append(answer[["probability", "study_probability"]].astype(float).set_index(views.index))
    return pd.concat(answers).sort_index()


def _finite(number: float) -> float:
    if not np.isfinite(number):
        raise RuntimeError(f"A difference is {number}: one side did not answer with a finite number.")
    return float(number)


def measure_heat_map() -> Row:
    """The exported Grad-CAM against torch's, as a share of each map's peak."""
    import onnxruntime
    import torch

    from muralab.evaluation.gradcam import gradcam
    from muralab.registry.export import HEAT_TOLERANCE, export_onnx

    images, network = grey_images(8, 160), build_network()
    with tempfile.TemporaryDirectory() as folder:
        export_onnx(network, 160, Path(folder) / "m.onnx", verify_images=images[:2])
        session = onnxruntime.InferenceSession(Path(folder) / "m.onnx", providers=["CPUExecutionProvider"])
        served = session.run(["heatmap"], {"images": images})[0]
    expected = gradcam(network, torch.from_numpy(images)).numpy()
    peaks = np.maximum(expected.max(axis=(1, 2), keepdims=True), 1e-6)
    worst = _finite(np.abs((served - expected) / peaks).max())
    return Row(
        what="heat map, onnxruntime against torch",
        ours=f"{worst:.1e}",
        theirs=f"limit {HEAT_TOLERANCE:g}",
        ratio=worst / HEAT_TOLERANCE,
        at_most=1.0,
        note="largest difference as a share of the map's peak; the shipped recipe with random weights, 8 images.",
    )


def measure_self_contained() -> Row:
    """Whether a model answers without network, pickle and torch."""
    from muralab.registry.bundle import write_bundle
    from muralab.registry.export import export_onnx
    from muralab.registry.silence import silenced
    from muralab.serving.config import ServingConfig

    environment = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    environment["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    with tempfile.TemporaryDirectory() as folder:
        onnx, request = Path(folder) / "m.onnx", Path(folder) / "r.csv"
        export_onnx(build_network(), 96, onnx, verify_images=grey_images(2, 96))
        with silenced():
            write_bundle(Path(folder) / "model", onnx, ServingConfig(image_size=96))
        pd.DataFrame({"image": [base64.b64encode(encode(grey_images(1, 96)[0])).decode()]}).to_csv(request, index=False)
        command = [sys.executable, "-c", _SELF_CONTAINED, str(Path(folder) / "model"), str(request)]
        done = subprocess.run(command, env=environment, cwd=folder, capture_output=True, text=True, check=False)
    answers = done.stdout.split() == ["1", "False"]
    return Row(
        what="answers without network, pickle, torch",
        ours="yes" if answers else f"no: {done.stderr[-200:]}",
        theirs="yes",
        ratio=float(answers),
        at_least=1.0,
    )


def measure_size() -> Row:
    """Installed size of both environments, including indirect requirements."""
    from muralab.registry.bundle import read_requirements

    training = [line.split("#")[0].strip() for line in (ROOT / "requirements.txt").read_text().splitlines()]
    ours, theirs = (installed_bytes(closure(names)) for names in (read_requirements(), [t for t in training if t]))
    return Row(
        what="installed size, serving over training",
        ours=f"{ours / 2**20:,.0f} MiB",
        theirs=f"{theirs / 2**20:,.0f} MiB",
        ratio=ours / theirs,
        at_most=0.2,
    )


def closure(requirements: Iterable[str]) -> set[str]:
    """Names of the installed distributions that the requirements need, directly or indirectly."""
    from packaging.requirements import Requirement

    found: set[str] = set()
    waiting = [Requirement(text) for text in requirements]
    while waiting:
        wanted = waiting.pop()
        key = re.sub(r"[-_.]+", "-", wanted.name).lower()
        marks = " ".join(sorted(wanted.extras))
        if f"{key} {marks}" in found:
            continue
        try:
            needs = distribution(key).requires or []
        except PackageNotFoundError:
            raise RuntimeError(f"{wanted} is required but not installed, so its size is unknown.") from None
        found |= {key, f"{key} {marks}"}
        extras = [*wanted.extras, ""]
        waiting += [
            need
            for need in map(Requirement, needs)
            if need.marker is None or any(need.marker.evaluate({"extra": extra}) for extra in extras)
        ]
    return {name for name in found if " " not in name}


def installed_bytes(names: Iterable[str]) -> int:
    """Total size of all files of the distributions."""
    files = {file.locate() for name in names for file in distribution(name).files or []}
    return sum(Path(file).stat().st_size for file in files if Path(file).is_file())


if __name__ == "__main__":
    run(measure, __doc__)

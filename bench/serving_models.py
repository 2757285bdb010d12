"""Model folders that the serving benches compare: the served one, the same on torch in eager mode, a trivial one."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

if TYPE_CHECKING:
    from muralab.training.network import Network

ROOT = Path(__file__).parents[1]
SIZE = 299
RECIPE = "inception_add_gate"
ANSWER_S = 120.0

_TRIVIAL = """
import mlflow
class Trivial(mlflow.pyfunc.PythonModel):
    def predict(self, context, model_input, params=None):
        return [0.5] * len(model_input)
mlflow.models.set_model(Trivial())
"""

_EAGER = f"""
from mlflow.models import set_model
from muralab.serving.classifier import StudyClassifier

class Session:
    def __init__(self, path):
        import torch
        from safetensors.torch import load_file
        from muralab.recipe_loader import load_recipe
        recipe = load_recipe("{RECIPE}")
        self.network = recipe.build(image_size={SIZE}, **recipe.model)
        self.network.load_state_dict(load_file(path))
        self.network.eval()

    def run(self, wanted, feed):
        import torch
        with torch.inference_mode():
            return [self.network(torch.from_numpy(feed["images"])).numpy()]

class Eager(StudyClassifier):
    def load_context(self, context):
        super().load_context(context)
        self._session = Session(context.artifacts["weights"])

set_model(Eager())
"""


def build_network() -> Network:
    """The shipped recipe with random weights, its BatchNorm statistics set so that activations stay in range."""
    import torch

    from muralab.recipe_loader import load_recipe

    torch.manual_seed(0)
    recipe = load_recipe(RECIPE)
    network: Network = recipe.build(image_size=SIZE, **recipe.model)
    norms = [module for module in network.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.inference_mode():
        network.train()(torch.from_numpy(pictures(8)))
    return network.eval()


def pictures(n_images: int, size: int = SIZE) -> np.ndarray:
    """Soft shapes with grain, uint8 [N, S, S]."""
    import cv2

    rng = np.random.default_rng(0)
    coarse = [rng.random((9, 9), np.float32) for _ in range(n_images)]
    soft = [cv2.resize(picture, (size, size), interpolation=cv2.INTER_CUBIC) for picture in coarse]
    return np.clip(np.stack(soft) * 200 + rng.normal(0, 1.5, (n_images, size, size)), 0, 255).astype(np.uint8)


def png(picture: np.ndarray) -> bytes:
    """A picture as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "PNG")
    return buffer.getvalue()


def payload(files: list[bytes], **params: Any) -> bytes:
    """A request's body: one study."""
    rows = [{"image": base64.b64encode(data).decode("ascii"), "study": "s"} for data in files]
    return json.dumps({"dataframe_records": rows, "params": params}).encode()


def write_models(folder: Path) -> dict[str, Path]:
    """Write the folders `served`, `eager` and `trivial`."""
    import mlflow.pyfunc
    from safetensors.torch import save_file

    from muralab.registry.bundle import build_signature, write_bundle
    from muralab.registry.export import export_onnx
    from muralab.registry.silence import silenced
    from muralab.serving.config import ServingConfig, write_config

    folder.mkdir(parents=True, exist_ok=True)
    network, onnx, config = build_network(), folder / "model.onnx", ServingConfig(image_size=SIZE)
    export_onnx(network, SIZE, onnx, verify_images=pictures(2))
    write_config(config, folder / "config.json")
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, folder / "w.safetensors")
    (folder / "eager.py").write_text(_EAGER, encoding="utf-8")
    (folder / "trivial.py").write_text(_TRIVIAL, encoding="utf-8")
    artifacts = {"onnx": onnx, "config": folder / "config.json", "weights": folder / "w.safetensors"}
    models = {name: folder / name for name in ("served", "eager", "trivial")}
    with silenced():
        write_bundle(models["served"], onnx, config)
        mlflow.pyfunc.save_model(
            models["eager"],
            python_model=str(folder / "eager.py"),
            code_paths=[str(ROOT / "platform" / "muralab"), str(ROOT / "recipes")],
            artifacts={name: str(path) for name, path in artifacts.items()},
            signature=build_signature(),
            pip_requirements=[],
        )
        mlflow.pyfunc.save_model(
            models["trivial"],
            python_model=str(folder / "trivial.py"),
            signature=build_signature(),
            pip_requirements=[],
        )
    return models


@dataclass(frozen=True)
class Server:
    """A server that answers."""

    url: str
    ready_s: float
    """From its start to its first answer."""
    group: int
    """Of its processes."""

    def cpu_s(self) -> float:
        """Processor time that its processes have taken."""
        return sum(int(fields[11]) + int(fields[12]) for fields in self._stats()) / os.sysconf("SC_CLK_TCK")

    def memory_mib(self) -> float:
        """Resident memory of its processes."""
        return sum(int(fields[21]) for fields in self._stats()) * os.sysconf("SC_PAGE_SIZE") / 2**20

    def _stats(self) -> Iterator[list[str]]:
        """A line of Linux's process table a process, from the third field on."""
        for file in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):
                fields = file.read_text().rpartition(")")[2].split()
                if int(fields[2]) == self.group:
                    yield fields


def serve(model: Path | str, body: bytes, log: Path) -> contextlib.AbstractContextManager[Server]:
    """`mlflow models serve` on loopback; ends with the block."""
    return _serve(["mlflow", "models", "serve", "-m", str(model), "--env-manager", "local"], {}, body, log)


def serve_app(model: Path | str, body: bytes, log: Path) -> contextlib.AbstractContextManager[Server]:
    """`muralab app` on loopback; ends with the block."""
    sources = os.pathsep.join((str(ROOT / "platform"), str(ROOT)))
    return _serve(["muralab", "app", "--model", str(model)], {"PYTHONPATH": sources}, body, log)


@contextlib.contextmanager
def _serve(command: list[str], extra: dict[str, str], body: bytes, log: Path) -> Iterator[Server]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    environment = {key: value for key, value in os.environ.items() if key not in ("PYTHONPATH", "OMP_NUM_THREADS")}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"  # MLflow calls uvicorn
    environment["MLFLOW_ALLOW_PICKLE_DESERIALIZATION"] = "false"
    started = time.perf_counter()
    with log.open("w") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", *command, "--host", "127.0.0.1", "--port", str(port)],
            env=environment | extra, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
    try:
        _wait(f"http://127.0.0.1:{port}", body, process, log)
        yield Server(f"http://127.0.0.1:{port}/invocations", time.perf_counter() - started, process.pid)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=30)


def post(session: Any, url: str, body: bytes) -> dict[str, Any]:
    """A request's answer."""
    response = session.post(url, data=body, headers={"Content-Type": "application/json"}, timeout=ANSWER_S)
    if response.status_code != 200:
        raise RuntimeError(f"{url} answered {response.status_code}: {response.text[:300]}")
    answer: dict[str, Any] = response.json()
    return answer


def _wait(address: str, body: bytes, process: subprocess.Popen[bytes], log: Path) -> None:
    import requests

    end = time.perf_counter() + ANSWER_S
    while time.perf_counter() < end:
        if process.poll() is not None:
            raise RuntimeError(f"The server ended:\n{log.read_text()[-2000:]}")
        with contextlib.suppress(requests.ConnectionError):
            requests.get(f"{address}/ping", timeout=5)
            post(requests, f"{address}/invocations", body)
            return
        time.sleep(0.02)
    raise RuntimeError(f"No answer within {ANSWER_S:g} s:\n{log.read_text()[-2000:]}")

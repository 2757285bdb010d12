"""Models for measurements of serving: the served one, the same on torch in eager mode, and a trivial one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from bench.payloads import grey_images
from bench.servers import ROOT

if TYPE_CHECKING:
    from muralab.training.network import Network

SIZE = 299
RECIPE = "inception_add_gate"

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
        network.train()(torch.from_numpy(grey_images(8, SIZE)))
    return network.eval()


def write_models(folder: Path) -> dict[str, Path]:
    """Write the folders `served` (exact engine), `fast` (with the fast one), `eager` and `trivial`."""
    import mlflow.pyfunc
    from safetensors.torch import save_file

    from muralab.registry.bundle import build_signature, write_bundle
    from muralab.registry.export import export_onnx
    from muralab.registry.fast_engine import build_fast_engine
    from muralab.registry.silence import silenced
    from muralab.serving.config import ServingConfig, write_config

    folder.mkdir(parents=True, exist_ok=True)
    network, onnx, config = build_network(), folder / "model.onnx", ServingConfig(image_size=SIZE)
    export_onnx(network, SIZE, onnx, verify_images=grey_images(2, SIZE))
    write_config(config, folder / "config.json")
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, folder / "w.safetensors")
    (folder / "eager.py").write_text(_EAGER, encoding="utf-8")
    (folder / "trivial.py").write_text(_TRIVIAL, encoding="utf-8")
    artifacts = {"onnx": onnx, "config": folder / "config.json", "weights": folder / "w.safetensors"}
    models = {name: folder / name for name in ("served", "fast", "eager", "trivial")}
    with silenced():
        build_fast_engine(onnx, folder / "fast.onnx", grey_images(16, SIZE))
        write_bundle(models["served"], onnx, config)
        write_bundle(models["fast"], onnx, config, fast=folder / "fast.onnx")
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

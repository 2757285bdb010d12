"""A bundle imports only its own code and the packages that it lists as requirements."""

from __future__ import annotations

import ast
import sys
from pathlib import Path

import pytest

from muralab.registry.bundle import write_bundle
from muralab.serving.config import ServingConfig

PACKAGES = {"numpy", "pandas", "cv2", "PIL", "pydicom", "imagecodecs", "mlflow", "onnxruntime", "yaml"}
"""Allowed beside the standard library; yaml comes with MLflow."""
OWN = ("muralab.serving", "muralab.data.images", "muralab.data.body_parts", "muralab.errors", "muralab.processor")


@pytest.fixture(scope="module")
def code(tmp_path_factory, onnx_file) -> Path:
    """The code that a registered model ships."""
    folder = tmp_path_factory.mktemp("imports") / "model"
    write_bundle(folder, onnx_file, ServingConfig(image_size=32))
    return folder / "code" / "muralab"


def imports(file: Path) -> set[str]:
    """Modules imported anywhere in a file, inside functions too."""
    nodes = [*ast.walk(ast.parse(file.read_text(encoding="utf-8")))]
    plain = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    return plain | {"." * node.level + (node.module or "") for node in nodes if isinstance(node, ast.ImportFrom)}


def is_allowed(module: str) -> bool:
    return module.partition(".")[0] in PACKAGES | sys.stdlib_module_names or module.startswith(OWN)


def test_a_bundle_imports_only_what_it_may(code):
    found = {file.relative_to(code).as_posix(): sorted(imports(file)) for file in code.rglob("*.py")}
    assert {"serving/classifier.py", "data/images/decode.py", "errors.py"} <= found.keys()
    assert [(file, module) for file, modules in found.items() for module in modules if not is_allowed(module)] == []


def test_a_bundle_ships_every_module_that_it_imports(code):
    modules = {module for file in code.rglob("*.py") for module in imports(file) if module.startswith("muralab")}
    paths = [code.joinpath(*module.split(".")[1:]) for module in modules]
    assert [path for path in paths if not path.with_suffix(".py").exists() and not path.is_dir()] == []


@pytest.mark.parametrize("module", ["torch", "sklearn.metrics", "muralab.data.mura", "muralab", ".config"])
def test_other_modules_are_not_allowed(module):
    assert not is_allowed(module)

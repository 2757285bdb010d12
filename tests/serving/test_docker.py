"""The Docker build context of `mlflow models generate-dockerfile` holds what serving needs, and no more."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from muralab.registry.bundle import read_requirements, write_bundle
from muralab.serving.config import ServingConfig

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def folder(tmp_path_factory, onnx_file) -> Path:
    root = tmp_path_factory.mktemp("docker")
    write_bundle(root / "model", onnx_file, ServingConfig(image_size=32))
    command = [sys.executable, "-m", "mlflow", "models", "generate-dockerfile", "-m", "model", "-d", "out"]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True, check=False, timeout=600)
    assert done.returncode == 0, done.stderr
    return root / "out"


@pytest.fixture(scope="module")
def model(folder) -> Path:
    """The folder that the image copies."""
    copied = re.search(r"^COPY (\S+) /opt/ml/model$", (folder / "Dockerfile").read_text(), re.MULTILINE)
    return folder / copied[1]


def test_the_image_has_the_models_python_and_serves(folder):
    lines = (folder / "Dockerfile").read_text().splitlines()
    assert lines[1] == f"FROM python:{platform.python_version()}-slim"
    assert lines[-1].startswith("ENTRYPOINT")
    assert "_serve('local')" in lines[-1]


def test_the_image_installs_what_serving_needs_and_no_torch(model):
    asked = (model / "requirements.txt").read_text().split()
    assert asked == read_requirements()
    assert {line.partition("==")[0] for line in asked} >= {"mlflow", "onnxruntime", "pydicom", "pillow"}
    assert not {"torch", "timm", "ray"} & {line.partition("==")[0] for line in asked}


def test_the_image_holds_the_code_and_the_network(model):
    names = {path.relative_to(model).as_posix() for path in model.rglob("*") if path.is_file()}
    code = {
        f"code/muralab/{name}"
        for name in ("serving/classifier.py", "data/images/decode.py", "data/images/dicom.py", "errors.py")
    }
    assert names >= {"MLmodel", "artifacts/model.onnx", "artifacts/config.json", *code}
    assert [name for name in names if name.endswith((".pkl", ".pyc", ".pth"))] == []


def test_its_environment_names_the_python_that_was_tested(model):
    environment = yaml.safe_load((model / "python_env.yaml").read_text())
    assert environment["python"] == platform.python_version()
    assert environment["dependencies"] == ["-r requirements.txt"]

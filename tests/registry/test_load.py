"""A registered model runs with the code that it ships, whatever the checkout's modules are called."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

MODEL = """
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel
from muralab.data.pixels import ANSWER

class Model(PythonModel):
    def predict(self, context, model_input, params=None):
        return ANSWER

set_model(Model())
"""
SAVE = """
import sys, mlflow.pyfunc
mlflow.pyfunc.save_model(
    sys.argv[2], python_model=f"{sys.argv[1]}/serving/served_model.py", code_paths=[sys.argv[1]], pip_requirements=[]
)
"""
LOAD = """
import sys
import muralab.data.images.decode, muralab.serving.config
from muralab.registry.load import load_registered
model, _ = load_registered(sys.argv[1], "sqlite://")
print(model.predict([]), muralab.errors.__file__)
"""


@pytest.fixture
def old_model(tmp_path):
    """A model of an older commit, whose code has `muralab.data.pixels` and no `muralab.data.images`."""
    code = tmp_path / "muralab"
    files = {"data/pixels.py": "ANSWER = 'own code'", "serving/served_model.py": MODEL, "errors.py": ""}
    for name in ("__init__.py", "data/__init__.py", "serving/__init__.py"):
        files[name] = ""
    for name, text in files.items():
        (code / name).parent.mkdir(parents=True, exist_ok=True)
        (code / name).write_text(text)
    subprocess.run([sys.executable, "-c", SAVE, code, tmp_path / "model"], check=True, cwd=tmp_path, env={})
    return tmp_path / "model"


@pytest.mark.slow
def test_a_model_of_an_older_layout_loads_with_its_own_code(old_model):
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "platform")}
    command = [sys.executable, "-c", LOAD, old_model]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.startswith("own code"), done.stderr

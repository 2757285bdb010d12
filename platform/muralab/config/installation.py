"""Installed packages that do not fit together, or not with this machine or the tracking server."""

from __future__ import annotations

import shutil
import subprocess
import sys
from contextlib import suppress
from importlib import metadata

PACKAGES = ("torch", "torchvision", "timm", "mlflow", "ray", "onnxruntime", "numpy")
PYTHONS = ((3, 11), (3, 12), (3, 13))


def installed_versions() -> dict[str, str]:
    """Python's and the main packages' versions."""
    versions = {"python": ".".join(map(str, sys.version_info[:3]))}
    for name in PACKAGES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = "missing"
    return versions


def check_installation(tracking_uri: str) -> list[str]:
    """A sentence with the fix for everything that does not fit together."""
    found = [_check_python(), *_check_missing(), _check_torchvision(), _check_cuda(), _check_server(tracking_uri)]
    return [text for text in found if text]


def _check_python() -> str:
    if sys.version_info[:2] in PYTHONS:
        return ""
    return f"Python {sys.version_info[0]}.{sys.version_info[1]} is not supported. Use 3.11, 3.12 or 3.13."


def _check_missing() -> list[str]:
    missing = [name for name, version in installed_versions().items() if version == "missing"]
    return [f"{name} is not installed: pip install -r requirements.txt" for name in missing]


def _check_torchvision() -> str:
    try:
        import torch
        import torchvision

        torchvision.ops.nms(torch.zeros(1, 4), torch.zeros(1), 0.5)
    except Exception as error:
        return (
            f"torchvision does not fit torch ({type(error).__name__}: {str(error).splitlines()[0]}). Install both from "
            "requirements.txt, and from the same index."
        )
    return ""


def _check_cuda() -> str:
    import torch

    driver = _driver()
    if not driver or torch.cuda.is_available():
        return ""
    if torch.version.cuda is None:
        return f"There is a GPU (driver {driver}), but this torch {torch.__version__} is built without CUDA."
    return (
        f"torch {torch.__version__} cannot use the GPU: CUDA {torch.version.cuda} needs a newer driver than {driver}."
    )


def _driver() -> str:
    """The version of the GPU's driver; empty without a GPU."""
    if shutil.which("nvidia-smi") is None:
        return ""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    with suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=True)
        return done.stdout.strip().splitlines()[0] if done.stdout.strip() else ""
    return ""


def _check_server(tracking_uri: str) -> str:
    """Whether the tracking server is of the same major version as the client."""
    if not tracking_uri.startswith("http"):
        return ""
    import requests

    try:
        server = requests.get(f"{tracking_uri}/version", timeout=5).text.strip()
    except requests.RequestException:
        return ""  # the store's own line says that it does not answer
    client = metadata.version("mlflow")
    if not server[:1].isdigit() or server.split(".")[0] == client.split(".")[0]:
        return ""
    return f"The tracking server has MLflow {server}, and this client {client}. Use the same major version."

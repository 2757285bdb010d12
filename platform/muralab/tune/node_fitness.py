"""Whether a node can train as the command's machine does: its packages, its build of torch, its disks, the storage.

Runs on every node before the first trial, and on a node that joins, so nothing heavy is imported.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import tempfile
from collections.abc import Mapping
from pathlib import Path

from muralab.disk import free_bytes
from muralab.errors import MuraLabError
from muralab.paths import cache_folder
from muralab.storage import Storage

LEAST_DISK_BYTES = 256 * 2**20
"""Free where a node keeps decoded images and checkpoints; how many they take is not known before the data are read."""
PACKAGES = ("torch", "torchvision", "timm", "numpy", "albumentations", "opencv-python-headless", "safetensors")
"""What decides the result of a training; each node must have the same versions."""
GPU_BUILD = re.compile(r"^(cuda|hip|rocm|xpu)\b[^=]*= *['\"]", re.MULTILINE)
"""In torch/version.py, where a build for CPUs has None."""


def node_problems(
    packages: Mapping[str, str], storage: str, *, witness: str = "", needs_gpu: bool = False
) -> list[str]:
    """What keeps this node from training as the command's machine does.

    Args:
        packages: see `other_versions`.
        storage: URI that must be readable and writable.
        witness: see `Storage.check`.
        needs_gpu: whether trials use this node's GPUs.
    """
    problems = own_problems(packages, needs_gpu=needs_gpu)
    try:
        Storage(storage).check(witness)
    except MuraLabError as error:
        problems.append(str(error).rstrip("."))
    return problems


def own_problems(packages: Mapping[str, str], *, needs_gpu: bool) -> list[str]:
    """The same without the storage: packages and disks."""
    problems = other_versions(packages)
    if needs_gpu and is_cpu_build():
        problems.append(
            "it has GPUs, and its torch is a build for CPUs: install one for its GPUs, or give gpus_per_trial=0"
        )
    return problems + [
        f"{free_bytes(place) / 2**20:.0f} MiB of disk are free at {place}: free some, or start the node with "
        f"{variable}=<a folder on another disk>"
        for variable, place in (("XDG_CACHE_HOME", cache_folder()), ("TMPDIR", Path(tempfile.gettempdir())))
        if free_bytes(place) < LEAST_DISK_BYTES
    ]


def is_cpu_build() -> bool:
    """Whether torch states that it was built without support for any GPU."""
    spec = importlib.util.find_spec("torch")
    version = Path(spec.origin).with_name("version.py") if spec is not None and spec.origin else None
    if version is None or not version.is_file():
        return False
    return GPU_BUILD.search(version.read_text(encoding="utf-8")) is None


def other_versions(packages: Mapping[str, str]) -> list[str]:
    """The packages that differ here, with both versions.

    Args:
        packages: name -> version on the command's machine.
    """
    return [
        f"{name} {here or 'is missing'} (the command has {wanted or 'none'})"
        for name, wanted in packages.items()
        if _public(here := installed_version(name)) != _public(wanted)
    ]


def own_versions() -> dict[str, str]:
    """The versions here of everything that nodes must have as well."""
    return {name: installed_version(name) for name in PACKAGES}


def installed_version(package: str) -> str:
    """The version of an installed package, read without importing it; empty where there is none."""
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _public(version: str) -> str:
    """Without the local part: builds for several versions of CUDA compute the same."""
    return version.partition("+")[0]

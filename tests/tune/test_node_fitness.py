"""Whether a node can train: each reason has its sentence."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from muralab.storage import Storage
from muralab.tune import node_fitness
from muralab.tune.node_fitness import is_cpu_build, node_problems, own_versions


def test_versions_are_compared_without_their_builds(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(node_fitness, "installed_version", {"torch": "2.15.0+cpu", "timm": ""}.__getitem__)
    found = node_problems({"torch": "2.15.0+cu128", "timm": "1.0.31"}, str(tmp_path / "absent"))
    assert found[0] == "timm is missing (the command has 1.0.31)"
    assert found[1].startswith(f"storage={tmp_path}/absent: there is no folder")
    assert len(found) == 2


def test_this_machine_fits_itself(tmp_path: Path) -> None:
    assert node_problems(own_versions(), str(tmp_path)) == []
    assert own_versions()["torch"]


def test_a_folder_that_is_not_shared_is_named(tmp_path: Path) -> None:
    for name in ("command", "node"):
        (tmp_path / name).mkdir()
    with Storage(str(tmp_path / "command")).witness() as witness:
        assert node_problems({}, str(tmp_path / "command"), witness=witness) == []
        found = node_problems({}, str(tmp_path / "node"), witness=witness)
    assert found == [f"storage={tmp_path}/node: this folder is another one here: is it mounted?"]
    assert [list((tmp_path / name).iterdir()) for name in ("command", "node")] == [[], []]


@pytest.mark.parametrize(
    ("version", "is_cpu"),
    [
        ("cuda: Optional[str] = '13.2'\nhip: Optional[str] = None\n", False),
        ("cuda = None\nhip = '6.4.1'\n", False),
        ("__version__ = '2.15.0+cpu'\ncuda: Optional[str] = None\nhip: Optional[str] = None\n", True),
    ],
)
def test_a_build_of_torch_without_gpus_is_recognised_without_importing_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, version: str, is_cpu: bool
) -> None:
    (tmp_path / "torch").mkdir()
    (tmp_path / "torch" / "__init__.py").write_text("raise RuntimeError('imported')")
    (tmp_path / "torch" / "version.py").write_text(version)
    monkeypatch.delitem(sys.modules, "torch", raising=False)
    monkeypatch.syspath_prepend(tmp_path)
    assert is_cpu_build() is is_cpu
    found = node_problems({}, str(tmp_path), needs_gpu=True)
    remedy = "install one for its GPUs, or give gpus_per_trial=0"
    assert found == [f"it has GPUs, and its torch is a build for CPUs: {remedy}"] * is_cpu
    assert node_problems({}, str(tmp_path)) == []

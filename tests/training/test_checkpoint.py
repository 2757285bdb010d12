"""Checkpoints: round trips, atomic writes, damaged files."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from muralab.errors import DiskError, WeightsError
from muralab.training.checkpoint import read_newest, read_tensors, with_prefix, without_prefix, write_tensors

PLATFORM = Path(__file__).parents[2] / "platform"


def test_tensors_and_state_are_read_back(tmp_path: Path) -> None:
    tensors = {"a": torch.randn(2, 3), "n": torch.tensor(7), "half": torch.randn(2).bfloat16()}
    write_tensors(tmp_path / "deep" / "x.safetensors", tensors, {"history": [{"loss": 0.1}], "text": "\u00e9"})
    read, state = read_tensors(tmp_path / "deep" / "x.safetensors")
    assert all(torch.equal(read[key], value) for key, value in tensors.items())
    assert state == {"history": [{"loss": 0.1}], "text": "\u00e9"}


def test_tensors_that_share_memory_can_be_written(tmp_path: Path) -> None:
    whole = torch.arange(6.0).reshape(2, 3)
    write_tensors(tmp_path / "x", {"whole": whole, "column": whole[:, 1], "turned": whole.T})
    read, _ = read_tensors(tmp_path / "x")
    assert torch.equal(read["turned"], whole.T)
    assert torch.equal(read["column"], torch.tensor([1.0, 4.0]))


def test_nan_and_infinity_are_kept_in_the_state(tmp_path: Path) -> None:
    write_tensors(tmp_path / "x", {"a": torch.zeros(1)}, {"score": float("nan"), "low": float("-inf")})
    state = read_tensors(tmp_path / "x")[1]
    assert state["score"] != state["score"]
    assert state["low"] == float("-inf")


def test_a_failed_write_keeps_the_old_file_and_leaves_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_tensors(tmp_path / "x", {"a": torch.ones(1)})

    def full_disk(tensors: object, path: Path, **_: object) -> None:
        path.write_bytes(b"half")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.torch.save_file", full_disk)
    with pytest.raises(DiskError, match=r"^The disk is full at .*x\. Free some space"):
        write_tensors(tmp_path / "x", {"a": torch.zeros(1)})
    assert [path.name for path in tmp_path.iterdir()] == ["x"]
    assert read_tensors(tmp_path / "x")[0]["a"] == 1


@pytest.mark.slow
def test_a_process_killed_while_writing_keeps_the_old_file(tmp_path: Path) -> None:
    write_tensors(tmp_path / "x", {"a": torch.ones(1)}, {"epoch": 1})
    code = (
        "import os, signal, safetensors.torch as s, torch\n"
        "from muralab.training.checkpoint import write_tensors\n"
        "from pathlib import Path\n"
        "def save(tensors, path, **_):\n    Path(path).write_bytes(b'half'); os.kill(os.getpid(), signal.SIGKILL)\n"
        f"s.save_file = save; write_tensors(Path({str(tmp_path / 'x')!r}), {{'a': torch.zeros(1)}})"
    )
    done = subprocess.run([sys.executable, "-c", code], env=os.environ | {"PYTHONPATH": str(PLATFORM)}, check=False)
    assert done.returncode == -signal.SIGKILL
    assert read_tensors(tmp_path / "x")[1] == {"epoch": 1}
    write_tensors(tmp_path / "x", {"a": torch.ones(1)}, {"epoch": 2})
    assert [path.name for path in tmp_path.iterdir()] == ["x"]  # the partial file is gone


@pytest.mark.parametrize("content", [b"", b"half", b"\x08\x00\x00\x00\x00\x00\x00\x00notjson!"])
def test_a_damaged_file_is_reported_with_its_path(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(WeightsError, match=r"checkpoint .*x cannot be read .*Delete it to start over"):
        read_tensors(tmp_path / "x")


def test_a_prefix_does_not_match_longer_names() -> None:
    tensors = with_prefix("ema", {"a": torch.ones(1)}) | with_prefix("emails", {"b": torch.zeros(1)})
    assert set(without_prefix("ema", tensors)) == {"a"}


def test_every_flipped_byte_is_recognised(tmp_path: Path) -> None:
    path = tmp_path / "x"
    tensors = {"a": torch.ones(4), "b": torch.tensor(3), "c": torch.zeros(2, 3, dtype=torch.bfloat16)}
    write_tensors(path, tensors, {"epoch": 1})
    content = path.read_bytes()
    for position in range(len(content)):
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        try:
            read, state = read_tensors(path)
        except WeightsError:
            continue
        assert state == {"epoch": 1}  # a byte that only pads the header
        assert all(torch.equal(read[name], value) for name, value in tensors.items())


def test_a_file_of_an_earlier_version_has_no_checksum(tmp_path: Path) -> None:
    save_file({"a": torch.ones(1)}, tmp_path / "x", metadata={"muralab": '{"epoch": 2}'})
    assert read_tensors(tmp_path / "x")[1] == {"epoch": 2}


def test_the_file_before_is_kept(tmp_path: Path) -> None:
    last, previous = tmp_path / "last", tmp_path / "previous"
    for epoch in (1, 2, 3):
        write_tensors(last, {"a": torch.ones(1)}, {"epoch": epoch}, previous=previous)
    assert [read_tensors(path)[1]["epoch"] for path in (last, previous)] == [3, 2]
    last.write_bytes(b"half")
    assert read_newest([last, previous])[1] == {"epoch": 2}
    assert not last.exists()  # or the next write would keep it
    assert sorted(path.name for path in tmp_path.iterdir()) == ["previous"]


def test_without_a_usable_file_there_is_nothing_to_resume_from(tmp_path: Path) -> None:
    (tmp_path / "last").write_bytes(b"half")
    assert read_newest([tmp_path / "last", tmp_path / "previous"]) == ({}, {})


def test_a_file_that_cannot_be_read_is_not_taken_for_damaged(tmp_path: Path) -> None:
    (tmp_path / "last").mkdir()
    with pytest.raises(WeightsError, match="cannot be read"):
        read_newest([tmp_path / "last"])
    assert (tmp_path / "last").exists()

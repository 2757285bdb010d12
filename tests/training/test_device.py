"""bfloat16, memory errors and memory release; errors of a GPU are simulated."""

from __future__ import annotations

import pytest
import torch

from muralab.errors import MemoryExceededError
from muralab.training.device import (
    cpu_gains_from_bfloat16,
    gains_from_bfloat16,
    memory_errors,
    release_memory,
    resolve_precision,
)


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be reported later"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
        RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    ],
)
def test_every_out_of_memory_error_gets_the_same_advice(error: RuntimeError) -> None:
    message = r"smaller batch_size or image_size, or a larger gpus_per_trial"
    with pytest.raises(MemoryExceededError, match=message), memory_errors():
        raise error


@pytest.mark.parametrize("text", ["mat1 and mat2 shapes cannot be multiplied", "a worker ran out of memory"])
def test_other_errors_are_not_converted(text: str) -> None:
    with pytest.raises(RuntimeError, match=text), memory_errors():
        raise RuntimeError(text)


@pytest.mark.parametrize("native", [True, False])
def test_a_gpu_trains_in_bfloat16_only_with_hardware_support(monkeypatch, native: bool) -> None:
    def supported(*, including_emulation: bool = True) -> bool:
        return native or including_emulation

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert resolve_precision("auto", "cuda") == ("bfloat16" if native else "float32")


@pytest.mark.parametrize(
    ("flags", "vendor", "gains"),
    [
        ({"avx512f", "avx512_bf16", "amx_bf16"}, "GenuineIntel", True),
        ({"avx512f", "avx512_bf16"}, "AuthenticAMD", True),
        ({"avx512f", "avx512_bf16"}, "GenuineIntel", False),
        ({"avx2"}, "AuthenticAMD", False),
        (set(), "", False),
    ],
)
def test_a_processor_gains_from_bfloat16_by_its_instructions(flags: set[str], vendor: str, gains: bool) -> None:
    assert cpu_gains_from_bfloat16(flags, vendor) is gains


def test_auto_takes_what_this_processor_gains_from() -> None:
    assert resolve_precision("auto", "cpu") == ("bfloat16" if gains_from_bfloat16("cpu") else "float32")


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_precision_that_was_asked_for_is_kept(precision: str) -> None:
    assert resolve_precision(precision, "cpu") == precision


def test_memory_is_released_on_a_gpu_only(monkeypatch) -> None:
    calls = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: calls.append(1))
    release_memory("cpu")
    release_memory("cuda")
    assert calls == [1]

"""bfloat16, memory errors and memory release; errors of a GPU are simulated."""

from __future__ import annotations

import pytest
import torch

from muralab.errors import MemoryExceededError
from muralab.training.device import memory_errors, release_memory, uses_bfloat16


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


@pytest.mark.parametrize(
    ("device", "native", "used"), [("cuda", True, True), ("cuda", False, False), ("cpu", True, False)]
)
def test_bfloat16_is_used_only_with_hardware_support(monkeypatch, device: str, native: bool, used: bool) -> None:
    def supported(*, including_emulation: bool = True) -> bool:
        return native or including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert uses_bfloat16(device) is used


def test_memory_is_released_on_a_gpu_only(monkeypatch) -> None:
    calls = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: calls.append(1))
    release_memory("cpu")
    release_memory("cuda")
    assert calls == [1]

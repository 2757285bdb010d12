"""What depends on the device: its number format, its memory, and what to say where that is exceeded."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from muralab.errors import MemoryExceededError, SettingsError

_EXCEEDED = ("out of memory", "alloc_failed")
"""What CUDA, cuBLAS and cuDNN say; only the first raises `OutOfMemoryError`."""


def uses_bfloat16(device: str) -> bool:
    """Whether networks compute in bfloat16 there: on a GPU that does so in hardware; emulated, it is slow."""
    return device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def release_memory(device: str) -> None:
    """Give a GPU's memory that nothing holds any more back to the processes beside this one."""
    if device == "cuda":
        gc.collect()  # a network and its gradients refer to each other
        torch.cuda.empty_cache()


@contextmanager
def memory_errors() -> Iterator[None]:
    """Say what to change where the GPU's memory is exceeded: MemoryExceededError."""
    try:
        yield
    except RuntimeError as error:
        first = str(error).partition("\n")[0]
        if not isinstance(error, torch.cuda.OutOfMemoryError) and not _is_of_memory(first):
            raise
        raise MemoryExceededError(
            f"The GPU's memory does not hold this trial ({first}). Give a smaller batch_size or image_size, or a "
            "larger gpus_per_trial where trials share the GPU."
        ) from error


@contextmanager
def compile_errors() -> Iterator[None]:
    """Say what to change where a network cannot be compiled: SettingsError."""
    try:
        yield
    except torch._dynamo.exc.TorchDynamoException as error:
        first = str(error).strip().partition("\n")[0]
        raise SettingsError(
            f"compile=true: this network cannot be compiled on this machine ({first}). "
            "It needs a C++ compiler (g++) and, on a GPU, Triton. Leave compile=false."
        ) from error


def _is_of_memory(text: str) -> bool:
    lower = text.lower()
    return any(word in lower for word in _EXCEEDED) and any(word in lower for word in ("cuda", "cublas", "cudnn"))

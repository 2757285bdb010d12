"""What depends on the device: bfloat16, memory, and errors of memory and compilation."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from muralab.errors import MemoryExceededError, SettingsError

OUT_OF_MEMORY = ("out of memory", "alloc_failed")
"""Substrings of the errors of CUDA, cuBLAS and cuDNN; only CUDA's own is an `OutOfMemoryError`."""


def uses_bfloat16(device: str) -> bool:
    """Whether to compute in bfloat16: only on a GPU with hardware support, since emulation is slow."""
    return device == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def release_memory(device: str) -> None:
    """Return unused GPU memory to other processes."""
    if device == "cuda":
        gc.collect()  # a network and its gradients form reference cycles
        torch.cuda.empty_cache()


@contextmanager
def memory_errors() -> Iterator[None]:
    """Convert out-of-memory errors of the GPU to MemoryExceededError, with advice."""
    try:
        yield
    except RuntimeError as error:
        first = str(error).partition("\n")[0]
        if not isinstance(error, torch.cuda.OutOfMemoryError) and not _is_out_of_memory(first):
            raise
        raise MemoryExceededError(
            f"This trial needs more memory than the GPU has ({first}). Use a smaller batch_size or image_size, or a "
            "larger gpus_per_trial if trials share the GPU."
        ) from error


@contextmanager
def compile_errors() -> Iterator[None]:
    """Convert errors of torch.compile to SettingsError, with advice."""
    try:
        yield
    except torch._dynamo.exc.TorchDynamoException as error:
        first = str(error).strip().partition("\n")[0]
        raise SettingsError(
            f"compile=true: this network cannot be compiled on this machine ({first}). "
            "Compiling needs a C++ compiler (g++) and, on a GPU, Triton. Use compile=false."
        ) from error


def _is_out_of_memory(text: str) -> bool:
    lower = text.lower()
    return any(part in lower for part in OUT_OF_MEMORY) and any(part in lower for part in ("cuda", "cublas", "cudnn"))

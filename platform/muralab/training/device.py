"""What depends on the device: bfloat16, memory, and errors of memory and compilation."""

from __future__ import annotations

import gc
from collections.abc import Iterator, Set
from contextlib import contextmanager

import torch

from muralab.errors import MemoryExceededError, SettingsError
from muralab.processor import cpu_flags, cpu_vendor

PRECISIONS = ("auto", "float32", "bfloat16")
"""What training may compute in; `auto` is resolved by `resolve_precision`."""
OUT_OF_MEMORY = ("out of memory", "alloc_failed")
"""Substrings of the errors of CUDA, cuBLAS and cuDNN; only CUDA's own is an `OutOfMemoryError`."""


def gains_from_bfloat16(device: str) -> bool:
    """Whether a device (`cpu` or `cuda`) computes faster in bfloat16 than in float32."""
    if device == "cuda":
        return torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False)
    return cpu_gains_from_bfloat16(cpu_flags(), cpu_vendor())


def resolve_precision(wanted: str, device: str) -> str:
    """`float32` or `bfloat16`: what `auto` stands for on a device, or what was wanted."""
    if wanted != "auto":
        return wanted
    return "bfloat16" if gains_from_bfloat16(device) else "float32"


def cpu_gains_from_bfloat16(flags: Set[str], vendor: str) -> bool:
    """Whether a processor computes faster in bfloat16, by its instructions rather than by a measurement.

    A measurement would decide differently on a busy machine, and two runs of one seed would differ. AMX does; so does
    AVX512-BF16 on AMD. Intel's AVX512-BF16 without AMX executes half as many instructions per cycle as in float32, and
    gains nothing (docs/benchmarks.md).

    Args:
        flags: of the processor, as Linux names them.
        vendor: of the processor, as Linux names it.
    """
    return "amx_bf16" in flags or ("avx512_bf16" in flags and vendor == "AuthenticAMD")


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
        if not is_out_of_memory(error):
            raise
        first = str(error).partition("\n")[0]
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


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error says that the GPU's memory is full."""
    if isinstance(error, torch.cuda.OutOfMemoryError):
        return True
    lower = str(error).partition("\n")[0].lower()
    return any(part in lower for part in OUT_OF_MEMORY) and any(part in lower for part in ("cuda", "cublas", "cudnn"))

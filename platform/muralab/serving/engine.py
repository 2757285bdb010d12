"""The engine that runs the network: exact (float32), or fast (8-bit integers) where model and processor have it.

Both are ONNX files with the same input and outputs, and both run in onnxruntime on the CPU.
"""

from __future__ import annotations

import logging
from collections.abc import Set
from pathlib import Path
from typing import Any

from muralab.processor import count_cpus, cpu_flags

EXACT, FAST = "exact", "fast"
"""Names of the engines, in options and tags."""

INT8_INSTRUCTIONS = ("avx512_vnni", "avx_vnni")
"""Either of them multiplies 8-bit integers and adds in 32 bits; older instructions add in 16, which overflow."""

logger = logging.getLogger("muralab.serving")


def open_session(path: str | Path) -> Any:
    """Open a network as it is served, on the CPU."""
    import onnxruntime  # the command line reads the names below without it

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = count_cpus()  # its own count is that of the host, whatever a container may use
    # Threads that spin while waiting double the CPU time of an image and halve the throughput with many clients.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def open_engine(exact: str | Path, fast: str | Path | None) -> Any:
    """Open a model's fast engine, or else its exact one; log why where it has a fast one that cannot be used.

    Args:
        exact: the network in float32.
        fast: the same with 8-bit integers; None: the model was registered without.
    """
    if fast is None:
        return open_session(exact)
    problem = missing_instructions(cpu_flags())
    if not problem:
        try:
            return open_session(fast)
        except Exception as error:  # onnxruntime's own types, such as for an operator that its build lacks
            problem = f"{Path(fast).name} cannot be opened ({type(error).__name__})"
    logger.warning("Engine: exact (float32) in place of the fast one: %s.", problem)
    return open_session(exact)


def missing_instructions(flags: Set[str]) -> str:
    """Why a processor cannot run the fast engine, from its instruction sets as Linux names them; empty where it can."""
    if not flags.isdisjoint(INT8_INSTRUCTIONS):
        return ""
    return f"this processor has neither {' nor '.join(INT8_INSTRUCTIONS)}" if flags else "its instructions are unknown"

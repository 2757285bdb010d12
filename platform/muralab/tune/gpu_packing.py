"""How many trials share a GPU: as many as its memory holds, measured, or as many as the user says, if they fit."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from muralab.config.parsing import PACK, read_count
from muralab.config.resources import free_gpu_memory, free_memory
from muralab.config.settings import read_resources, slots_in
from muralab.errors import MemoryExceededError
from muralab.tune.preflight import Pace
from muralab.tune.prepare import Sweep

FILLED = 0.9
"""Of a GPU's free memory; the rest is for what fragments it, and for kernels that were not measured."""
GIB = 2**30


def share_gpus(sweep: Sweep, paces: Mapping[str, Pace]) -> None:
    """Settle how many trials of a sweep share a GPU; its resources and trials are changed.

    Args:
        sweep: prepared.
        paces: recipe -> what it costs on this machine.

    Raises:
        MemoryExceededError: more of them share one than its memory holds.
    """
    request, resources = sweep.settings.request, sweep.settings.resources
    if not resources.gpus_per_trial:
        return
    largest = max(paces, key=lambda name: paces[name].gpu_bytes)
    each, free = paces[largest].gpu_bytes, free_gpu_memory()
    fitting = int(FILLED * free / each)
    wanted = min(len(sweep.specs), read_count("max_concurrent", request.max_concurrent, len(sweep.specs)))
    if request.gpus_per_trial == PACK:
        # No more than there are cores, trials, and memory beside the GPU for: a share that stands empty helps nobody.
        processes = min(resources.cpus, slots_in(free_memory()), wanted)
        number = max(1, min(fitting, math.ceil(processes / resources.gpus)))
        request = replace(request, gpus_per_trial=share_of(number))
        sweep.settings = replace(sweep.settings, request=request, resources=read_resources(request))
        threads = sweep.settings.resources.cpus_per_trial
        sweep.specs = [replace(spec, threads=threads) for spec in sweep.specs]
    elif (sharing := min(int(1 / resources.gpus_per_trial + 1e-9), resources.max_concurrent)) > max(1, fitting):
        raise MemoryExceededError(
            f"gpus_per_trial={request.gpus_per_trial}: {sharing} trials would share a GPU with {free / GIB:.1f} GiB "
            f"free, and one of '{largest}' takes {each / GIB:.1f} GiB (measured). {max(1, fitting)} fit: give "
            f"gpus_per_trial={share_of(max(1, fitting))} or {PACK}, or a smaller batch_size or image_size."
        )


def share_of(number: int) -> str:
    """The fraction of a GPU that so many trials have each, rounded down to Ray's four digits."""
    return f"{int(10_000 / number) / 10_000:g}"

"""How many trials share a GPU: as many as its memory holds, measured, or as many as the user set, if they fit."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from muralab.config.parsing import PACK
from muralab.config.resources import Resources, free_gpu_memory
from muralab.config.search import Machine, divide_resources, measure_machine
from muralab.errors import MemoryExceededError
from muralab.tune.plan import Sweep
from muralab.tune.preflight import Pace

FILLED = 0.9
"""Usable share of a GPU's free memory; the rest is for fragmentation and for kernels that were not measured."""
GIB = 2**30


def pack_gpus(
    sweep: Sweep, paces: Mapping[str, Pace], *, machines: Sequence[Machine] = (), free_bytes: int | None = None
) -> Sweep:
    """The sweep with its resources and its trials' threads settled for GPUs that trials share.

    Args:
        sweep: as planned.
        paces: recipe -> its cost on this machine.
        machines: what may be used; empty: this machine, or the nodes of the sweep's cluster.
        free_bytes: free memory of the fullest GPU; None: looked up.

    Raises:
        MemoryExceededError: more trials share a GPU than its memory holds.
    """
    resources, wanted = sweep.config.resources, sweep.config.options.gpus_per_trial
    if not resources.gpus_per_trial:
        return sweep
    largest = max(paces, key=lambda name: paces[name].gpu_bytes)
    each = paces[largest].gpu_bytes
    free = free_gpu_memory() if free_bytes is None else free_bytes
    fitting = max(1, int(FILLED * free / each))
    if wanted == PACK:
        return _packed(sweep, fitting, machines or sweep.config.nodes or (measure_machine(),))
    sharing = min(int(1 / resources.gpus_per_trial + 1e-9), resources.max_concurrent)
    if sharing > fitting:
        raise MemoryExceededError(
            f"gpus_per_trial={wanted:g}: {sharing} trials would share a GPU with {free / GIB:.1f} GiB free, and one of "
            f"'{largest}' takes {each / GIB:.1f} GiB (measured). {fitting} fit: give "
            f"gpus_per_trial={share_of(fitting):g} or {PACK}, or a smaller batch_size or image_size."
        )
    return sweep


def _packed(sweep: Sweep, fitting: int, machines: Sequence[Machine]) -> Sweep:
    """As many trials per GPU as memory, cores and the number of trials allow: an empty share helps nobody."""
    config = sweep.config
    resources, at_most = config.resources, config.max_concurrent or len(sweep.specs)
    with_gpus = [machine for machine in machines if machine.gpus]
    in_memory = sum(machine.slots_in_memory for machine in with_gpus)
    cores = sum(machine.cpus for machine in with_gpus)
    processes = min(cores, in_memory, at_most, len(sweep.specs))
    number = max(1, min(fitting, math.ceil(processes / resources.gpus)))
    options = replace(config.options, gpus_per_trial=share_of(number))
    divided: Resources = divide_resources(options, config.max_concurrent, machines)
    specs = tuple(replace(spec, threads=divided.cpus_per_trial) for spec in sweep.specs)
    return replace(sweep, config=replace(config, options=options, resources=divided), specs=specs)


def share_of(number: int) -> float:
    """The fraction of a GPU that each of some trials gets, rounded down to Ray's four digits."""
    return int(10_000 / number) / 10_000

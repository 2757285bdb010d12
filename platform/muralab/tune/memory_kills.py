"""How often the kernel has killed a process because memory ran out, to tell such a death from any other."""

from __future__ import annotations

import contextlib
import traceback
from pathlib import Path

from muralab.processor import control_groups

VMSTAT = Path("/proc/vmstat")


def count_memory_kills() -> int:
    """Kills in the control group of this process and below it; of the whole machine where there is no group."""
    for folder in control_groups("memory"):
        for name in ("memory.events", "memory.oom_control"):
            with contextlib.suppress(OSError, ValueError):
                return _read(folder / name)
    with contextlib.suppress(OSError, ValueError):
        return _read(VMSTAT)
    return 0


def _read(path: Path) -> int:
    for line in path.read_text().splitlines():
        key, _, value = line.partition(" ")
        if key == "oom_kill":
            return int(value)
    raise ValueError(f"{path} counts no kills")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether Ray's memory monitor killed a worker: Tune does not know this error and gives up."""
    from ray.exceptions import OutOfMemoryError

    one: BaseException | None = error
    while one is not None:
        if isinstance(one, OutOfMemoryError):
            return True
        one = one.__cause__ or one.__context__
    return "ray.exceptions.OutOfMemoryError" in "".join(traceback.format_exception(error))

"""The load of this machine as MLflow's own monitors measure it, under the names that its pages know."""

from __future__ import annotations

import contextlib
from typing import Any


class SystemLoad:
    """Processor, memory, disk and, where `nvidia-ml-py` is installed, GPUs; call `read` now and then."""

    def __init__(self) -> None:
        self._monitors: list[Any] | None = None

    def read(self) -> dict[str, float]:
        """Metric -> value, such as `system/cpu_utilization_percentage`; empty where nothing can be measured."""
        with contextlib.suppress(Exception):  # a search never fails for what is only shown
            if self._monitors is None:
                self._monitors = _build_monitors()
            return {name: value for monitor in self._monitors for name, value in _measure(monitor).items()}
        return {}


def _build_monitors() -> list[Any]:
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor

    monitors: list[Any] = [CPUMonitor(), DiskMonitor()]
    with contextlib.suppress(Exception):  # no NVIDIA driver, or its library is not installed
        from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor

        monitors.append(GPUMonitor())
    return monitors


def _measure(monitor: Any) -> dict[str, float]:
    monitor.collect_metrics()
    found = {f"system/{name}": float(value) for name, value in monitor.aggregate_metrics().items()}
    monitor.clear_metrics()
    return found

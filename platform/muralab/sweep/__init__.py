"""The main job: plan, search, final test, report, registry."""

from __future__ import annotations

from muralab.sweep.prepare import Job
from muralab.sweep.run import run_sweep
from muralab.sweep.settings import Request

__all__ = ["Job", "Request", "run_sweep"]

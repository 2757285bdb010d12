"""MLflow runs: the one place of the platform that writes them, and what reads them back.

The driver opens a `Store`, starts or adopts a run, and hands everything else to a `RunWriter`, which writes from a
thread of its own so that training never waits for the store. Reading gives `RunRecord`s, plain tables and dicts.
"""

from __future__ import annotations

from muralab.tracking.artifacts import download_artifact
from muralab.tracking.process import process_tags
from muralab.tracking.records import (
    RunRecord,
    find_runs,
    read_children,
    read_run,
    trial_run,
)
from muralab.tracking.runs import (
    adopt_run,
    close_dead_runs,
    experiment_id_of,
    experiment_of,
    start_run,
)
from muralab.tracking.store import Store, absolute_uri, open_store
from muralab.tracking.writer import RunWriter

__all__ = [
    "RunRecord",
    "RunWriter",
    "Store",
    "absolute_uri",
    "adopt_run",
    "close_dead_runs",
    "download_artifact",
    "experiment_id_of",
    "experiment_of",
    "find_runs",
    "open_store",
    "process_tags",
    "read_children",
    "read_run",
    "start_run",
    "trial_run",
]

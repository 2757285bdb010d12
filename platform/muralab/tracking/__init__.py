"""MLflow runs: the only code of the platform that writes them, and the code that reads them.

The driver opens a `Store`, starts or adopts a run, and passes everything else to a `RunWriter`, which writes from its
own thread so that training never waits for the store. Reading returns `RunRecord`s, plain tables and dicts.
"""

from __future__ import annotations

from muralab.tracking.address import absolute_uri
from muralab.tracking.artifacts import (
    LoggedData,
    download_artifact,
    fingerprint_test_set,
    key_of_run,
    local_artifact,
    locate_files,
    read_datasets,
    read_predictions,
)
from muralab.tracking.opening import open_store
from muralab.tracking.process import is_alive, process_tags
from muralab.tracking.records import (
    RunRecord,
    find_evaluations,
    find_records,
    find_trials,
    read_children,
    read_run,
    with_histories,
)
from muralab.tracking.runs import (
    adopt_run,
    claim_run,
    close_dead_runs,
    experiment_id_of,
    experiment_of,
    find_dead_runs,
    start_run,
)
from muralab.tracking.splits import (
    SPLIT_TABLE,
    TrainedSplit,
    names_of_run,
    read_split_table,
    read_tags,
    read_trained_split,
    rebuild_split,
)
from muralab.tracking.store import Store
from muralab.tracking.system_load import SystemLoad
from muralab.tracking.writer import RunWriter

__all__ = [
    "SPLIT_TABLE",
    "LoggedData",
    "RunRecord",
    "RunWriter",
    "Store",
    "SystemLoad",
    "TrainedSplit",
    "absolute_uri",
    "adopt_run",
    "claim_run",
    "close_dead_runs",
    "download_artifact",
    "experiment_id_of",
    "experiment_of",
    "find_dead_runs",
    "find_evaluations",
    "find_records",
    "find_trials",
    "fingerprint_test_set",
    "is_alive",
    "key_of_run",
    "local_artifact",
    "locate_files",
    "names_of_run",
    "open_store",
    "process_tags",
    "read_children",
    "read_datasets",
    "read_predictions",
    "read_run",
    "read_split_table",
    "read_tags",
    "read_trained_split",
    "rebuild_split",
    "start_run",
    "with_histories",
]

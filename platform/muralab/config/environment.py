"""Where a command runs: everything that it would otherwise take from its environment, absolute."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from muralab.paths import cache_folder, know_the_user


@dataclass(frozen=True, kw_only=True)
class Environment:
    """The tracking store, the cache, and the run that `mlflow run` has made, if it has."""

    tracking_uri: str
    registry_uri: str = ""
    """Of the model registry; empty: the tracking store's own."""
    cache: Path
    """Folder of decoded images, features, checkpoints and plans."""
    run_id: str | None = None
    """The run that `mlflow run` has created for this command."""
    experiment: str | None = None
    """Where a run is created; None: `mura-<part>`."""
    experiment_id: str | None = None
    """Likewise, by its id; `experiment` goes first."""

    @property
    def journals(self) -> Path:
        """Folder of what could not be written to a store yet."""
        return self.cache / "journals"


def read_environment() -> Environment:
    """The environment of this process; the run's id is taken out of it.

    Raises:
        StoreError: the tracking URI names a database in memory.
        SettingsError: there is no folder for the cache.
    """
    from muralab.tracking import absolute_uri

    cache = cache_folder()
    know_the_user(cache)
    registry = os.environ.get("MLFLOW_REGISTRY_URI", "").strip()
    return Environment(
        tracking_uri=absolute_uri(os.environ.get("MLFLOW_TRACKING_URI")),
        registry_uri=absolute_uri(registry) if registry else "",
        cache=cache,
        run_id=os.environ.pop("MLFLOW_RUN_ID", None),  # else every process started from here would resume that run
        experiment=os.environ.get("MLFLOW_EXPERIMENT_NAME"),
        experiment_id=os.environ.get("MLFLOW_EXPERIMENT_ID"),
    )

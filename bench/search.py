"""Searches for benchmarks: trials of a recipe on a small tree, and a listener that records their epochs."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.data import build_index, write_tree
from muralab.config.resources import Resources
from muralab.data.splits import split_index
from muralab.recipe import Value
from muralab.trial import TrialSpec, write_table
from muralab.tune.executor import run_trials

CONCURRENT = 2


@dataclass
class Recorder:
    """A listener that records every epoch with its time of arrival."""

    epochs: dict[str, list[tuple[float, Mapping[str, Any]]]] = field(default_factory=dict)

    def trial_chosen(self, name: str, values: Mapping[str, Value]) -> None:
        """Do nothing: the epochs count."""

    def trial_started(self, name: str) -> None:
        """Start recording a trial."""
        self.epochs.setdefault(name, [])

    def trial_placed(self, name: str, node: str) -> None:
        """Not of interest: there is one machine."""

    def trial_epoch(self, name: str, epoch: Mapping[str, Any]) -> None:
        """Record an epoch."""
        self.epochs[name].append((time.time(), epoch))

    def trial_ended(self, name: str, how: str, reason: str, *, diverged: bool = False) -> None:  # noqa: ARG002
        """Raise if the trial failed: the benchmark would be meaningless."""
        if how == "failed":
            raise RuntimeError(f"{name} failed: {reason}")

    def adapted(self, note: str, max_concurrent: int | None = None) -> None:
        """Raise: the time of a search that was started again means nothing."""
        raise RuntimeError(f"{note} {max_concurrent}")

    def tick(self) -> None:
        """Do nothing: there is no display."""

    def interrupted(self) -> None:
        """Do nothing: there is no run to close."""

    @property
    def first_step_s(self) -> float:
        """Time of the first training step."""
        firsts = [trial[0] for trial in self._trials]
        return float(min(arrived - epoch["metrics"]["epoch_seconds"] for arrived, epoch in firsts))

    @property
    def last_end_s(self) -> float:
        """Time of the end of the last epoch."""
        return max(trial[-1][0] for trial in self._trials)

    @property
    def training_s(self) -> float:
        """Total duration of all epochs of all trials."""
        return float(sum(epoch["metrics"]["epoch_seconds"] for trial in self._trials for _, epoch in trial))

    @property
    def _trials(self) -> list[list[tuple[float, Mapping[str, Any]]]]:
        return [trial for trial in self.epochs.values() if trial]


def write_small_split(folder: Path, n_images: int) -> Path:
    """Write and split a tree of noise; return the path of the table that trials read."""
    root = folder / "MURA-v1.1"
    index = build_index(root, n_images) if root.exists() else write_tree(root, n_images)
    table = folder / "split.csv"
    write_table(table, index, dict(split_index(index, seed=0).items()))
    return table


def build_specs(
    recipe: str, n_trials: int, table: Path, folder: Path, overrides: Mapping[str, Value]
) -> list[TrialSpec]:
    """Trials that differ only in their names."""
    return [
        TrialSpec(
            name=f"{recipe.rpartition('.')[2]}-{number:03d}",
            recipe=recipe,
            overrides=overrides,
            table=str(table),
            cache_folder=str(folder / "cache"),
            folder=str(folder / "trials" / f"{number:03d}"),
        )
        for number in range(n_trials)
    ]


def search(specs: Sequence[TrialSpec], folder: Path) -> Recorder:
    """Run the trials, two at a time on two cores."""
    recorder = Recorder()
    resources = Resources(cpus=CONCURRENT, gpus=0, cpus_per_trial=1, gpus_per_trial=0, max_concurrent=CONCURRENT)
    run_trials(specs, resources=resources, listener=recorder, folder=folder / "ray")
    return recorder

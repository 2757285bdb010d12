"""Searches for benches: trials of a recipe on a small tree, and a listener that writes down what it is told."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bench.data import index_of, write_tree
from muralab.config.resources import Resources
from muralab.data.splits import split_index
from muralab.recipe import Value
from muralab.trial import TrialSpec, write_table
from muralab.tune.executor import run_trials

CONCURRENT = 2


@dataclass
class Diary:
    """A listener: arrival of every epoch, on the wall clock, and what it held."""

    epochs: dict[str, list[tuple[float, Mapping[str, Any]]]] = field(default_factory=dict)
    endings: dict[str, str] = field(default_factory=dict)
    ended_s: dict[str, float] = field(default_factory=dict)

    def trial_started(self, name: str) -> None:
        """Opens its page."""
        self.epochs.setdefault(name, [])

    def trial_epoch(self, name: str, epoch: Mapping[str, Any]) -> None:
        """Written down."""
        self.epochs[name].append((time.time(), epoch))

    def trial_ended(self, name: str, how: str, reason: str) -> None:
        """Written down; a failure ends the bench."""
        if how == "failed":
            raise RuntimeError(reason)
        self.endings[name], self.ended_s[name] = how, time.time()

    def tick(self) -> None:
        """Nothing to redraw."""

    def interrupted(self) -> None:
        """Nothing to close."""

    @property
    def first_step_s(self) -> float:
        """When the first training step began, on the wall clock."""
        firsts = [page[0] for page in self._pages]
        return float(min(arrived - epoch["metrics"]["epoch_seconds"] for arrived, epoch in firsts))

    @property
    def last_end_s(self) -> float:
        """When the last trial's last epoch was over."""
        return max(page[-1][0] for page in self._pages)

    @property
    def training_s(self) -> float:
        """Seconds of all epochs of all trials."""
        return float(sum(epoch["metrics"]["epoch_seconds"] for page in self._pages for _, epoch in page))

    @property
    def n_epochs(self) -> int:
        """Epochs that were trained."""
        return sum(len(page) for page in self._pages)

    @property
    def best(self) -> float:
        """The best objective of any full phase."""
        return float(max(e["objective"] for page in self._pages for _, e in page if e["phase"] == "full"))

    @property
    def _pages(self) -> list[list[tuple[float, Mapping[str, Any]]]]:
        return [page for page in self.epochs.values() if page]


def write_small_split(folder: Path, n_images: int) -> Path:
    """A tree of noise, split; returns the table that trials read."""
    root = folder / "MURA-v1.1"
    index = index_of(root, n_images) if root.exists() else write_tree(root, n_images)
    table = folder / "split.csv"
    write_table(table, index, dict(split_index(index, seed=0).items()))
    return table


def build_specs(
    recipe: str, n_trials: int, table: Path, folder: Path, overrides: Mapping[str, Value]
) -> list[TrialSpec]:
    """Trials that differ in nothing but their names."""
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


def search(specs: Sequence[TrialSpec], folder: Path, *, prune: bool = True) -> Diary:
    """Run them two at a time on two cores."""
    diary = Diary()
    resources = Resources(cpus=CONCURRENT, gpus=0, cpus_per_trial=1, gpus_per_trial=0, max_concurrent=CONCURRENT)
    run_trials(specs, resources=resources, listener=diary, folder=folder / "ray", prune=prune)
    return diary

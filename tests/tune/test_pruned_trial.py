"""A trial that is far behind, in Ray: it ends early and well, or goes on where nothing is pruned."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from muralab.config.resources import Resources
from muralab.tune.executor import run_trials
from muralab.tune.stopping import MIN_PEERS
from tests.conftest import BuildSpec
from tests.tune.conftest import RECIPE

N_EPOCHS = 4


class Listener:
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.epochs: list[int] = []
        self.ended: list[tuple[str, str]] = []

    def trial_chosen(self, name: str, values: Mapping[str, Any]) -> None:
        """Not of interest."""

    def trial_started(self, name: str) -> None:
        """Not of interest."""

    def trial_placed(self, name: str, node: str) -> None:
        """Not of interest."""

    def trial_epoch(self, name: str, epoch: Mapping[str, Any]) -> None:
        self.epochs.append(epoch["global_epoch"])

    def trial_ended(self, name: str, how: str, reason: str, *, diverged: bool = False) -> None:
        self.ended.append((how, reason))

    def adapted(self, note: str, max_concurrent: int | None = None) -> None:
        raise AssertionError(note)

    def tick(self) -> None:
        """Not of interest."""

    def interrupted(self) -> None:
        """Not of interest."""


@pytest.fixture
def on_workers_path(lab: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Worker processes find the recipe outside the repository."""
    monkeypatch.setenv("PYTHONPATH", f"{lab}{os.pathsep}{os.environ.get('PYTHONPATH', '')}")


@pytest.mark.slow
@pytest.mark.parametrize(("prune", "how", "n_epochs"), [(True, "pruned", N_EPOCHS // 2), (False, "finished", N_EPOCHS)])
def test_it_ends_early_or_goes_on(
    build_spec: BuildSpec, on_workers_path: None, tmp_path: Path, prune: bool, how: str, n_epochs: int
) -> None:
    spec = build_spec(overrides={"upper.epochs": 0, "full.epochs": N_EPOCHS})
    far_ahead = {f"old{number}": (RECIPE, [2.0] * N_EPOCHS) for number in range(MIN_PEERS)}
    listener = Listener()
    resources = Resources(cpus=1, gpus=0, cpus_per_trial=1, gpus_per_trial=0, max_concurrent=1)
    run_trials([spec], resources=resources, listener=listener, folder=tmp_path / "ray", past=far_ahead, prune=prune)
    assert listener.ended == [(how, "")]
    assert listener.epochs == list(range(1, n_epochs + 1))

"""The undisturbed record, and a folder for each disturbed sweep."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.sweeps import Sweep, end_everything, record, remove


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, easy_tree: Path) -> dict[str, Any]:
    """The record of a sweep that nothing disturbs."""
    sweep = Sweep(tmp_path_factory.mktemp("calm"), easy_tree)
    sweep.start()
    assert sweep.wait() == 0, sweep.output + sweep.err.read_text()
    return record(sweep)


@pytest.fixture
def build_sweep(tmp_path: Path, easy_tree: Path) -> Iterator[Callable[[], Sweep]]:
    """A function that prepares a sweep; its processes are ended, and its files removed if the test succeeds."""
    sweeps: list[Sweep] = []

    def build() -> Sweep:
        sweeps.append(Sweep(tmp_path / f"sweep-{len(sweeps)}", easy_tree))
        return sweeps[-1]

    yield build
    for sweep in sweeps:
        end_everything(sweep)
    for sweep in sweeps:
        remove(sweep)

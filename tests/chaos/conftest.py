"""The undisturbed record, and a folder for each disturbed sweep."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.chaos.sweeps import Sweep, end_everything, record, remove
from tests.fixtures.disks import small_disk_at

SMALL_DISK_BYTES = 300 * 2**20


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, easy_tree: Path) -> dict[str, Any]:
    """The record of a sweep that nothing disturbs."""
    sweep = Sweep(tmp_path_factory.mktemp("calm"), easy_tree)
    sweep.start()
    assert sweep.wait() == 0, sweep.output + sweep.err.read_text()
    found = record(sweep)
    assert found["versions"], f"nothing is exported and registered: {sweep.output}"
    return found


@pytest.fixture
def build_sweep(tmp_path: Path, easy_tree: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Sweep]]:
    """A function that prepares a sweep; its processes are ended, and its files removed unless the test fails."""
    sweeps: list[Sweep] = []

    def build(*, small_disk: bool = False) -> Sweep:
        folder = tmp_path / f"sweep-{len(sweeps)}"
        if small_disk:
            disks.enter_context(small_disk_at(folder / "cache", SMALL_DISK_BYTES))
        sweeps.append(Sweep(folder, easy_tree))
        return sweeps[-1]

    failed = request.session.testsfailed
    with contextlib.ExitStack() as disks:
        yield build
        for sweep in sweeps:
            end_everything(sweep)
    if request.session.testsfailed == failed:
        for sweep in sweeps:
            remove(sweep)

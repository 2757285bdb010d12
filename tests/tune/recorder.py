"""A writer of runs that only remembers what it was asked to write."""

from __future__ import annotations

from typing import Any


class Recorder:
    """Stands for a RunWriter."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def start_run(self, *, name: str, **_: Any) -> str:
        self.calls.append(("start", name))
        return name

    def run_id(self, run: str) -> str:
        return run

    def last_step(self, *_: Any) -> int:
        return 0

    def __getattr__(self, method: str) -> Any:
        return lambda *arguments, **_: self.calls.append((method, *arguments))

    def all(self, method: str) -> list[tuple[Any, ...]]:
        """The arguments of every call of a method."""
        return [call[1:] for call in self.calls if call[0] == method]

"""Finds trials whose process lives but makes no step any more: a deadlock, a dead disk, a stopped process."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from muralab.heartbeat import HEARTBEAT, read_heartbeat
from muralab.trial import TrialSpec

EPOCHS_WITHOUT_STEP = 10.0
"""A trial hangs that makes no step for this many of its usual epochs."""
LEAST_S = 300.0
"""But not before this."""
LOOK_EVERY_S = 5.0


@dataclass
class _Watched:
    file: Path
    usual_s: float
    seen: tuple[int, float] | None = None
    """The last sign of life, see `read_heartbeat`."""
    seen_s: float = 0.0
    """When it was first seen, on the monotonic clock: a machine that was suspended has no hanging trials."""
    is_live: bool = False
    """Whether a sign of this process was seen; the file may be that of an earlier one."""


class Watchdog:
    """Watches the heartbeats of running trials."""

    def __init__(
        self, specs: Sequence[TrialSpec], usual_s: Mapping[str, float], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Watch nothing yet.

        Args:
            specs: the trials.
            usual_s: trial -> estimated seconds of its longest epoch.
            clock: seconds that pass.
        """
        self._files = {spec.name: Path(spec.folder) / HEARTBEAT for spec in specs}
        self._usual_s, self._clock = dict(usual_s), clock
        self._watched: dict[str, _Watched] = {}
        self._reasons: dict[str, str] = {}
        self._looked_s = -LOOK_EVERY_S

    def started(self, name: str) -> None:
        """A trial runs from now on; a sign of life of an earlier process does not count."""
        file = self._files[name]
        self._watched[name] = _Watched(file, self._usual_s.get(name, 0.0), read_heartbeat(file), self._clock())

    def epoch(self, name: str, seconds: float) -> None:
        """An epoch of a trial took some seconds."""
        self._usual_s[name] = max(self._usual_s.get(name, 0.0), seconds)
        if name in self._watched:
            self._watched[name].usual_s = self._usual_s[name]

    def stopped(self, name: str) -> None:
        """A trial runs no more."""
        self._watched.pop(name, None)

    def reason(self, name: str) -> str:
        """Why a trial's process was ended by this watchdog; empty if it was not."""
        return self._reasons.get(name, "")

    def hanging(self) -> list[int]:
        """The processes of trials that hang; each is returned once."""
        now = self._clock()
        if now - self._looked_s < LOOK_EVERY_S:
            return []
        self._looked_s = now
        found = []
        for name, one in list(self._watched.items()):
            sign = read_heartbeat(one.file)
            if sign != one.seen:
                one.seen, one.seen_s, one.is_live = sign, now, True
            limit_s = max(LEAST_S, EPOCHS_WITHOUT_STEP * one.usual_s)
            if sign is not None and one.is_live and now - one.seen_s > limit_s:
                self._reasons[name] = (
                    f"It made no step for {limit_s / 60:.0f} minutes (an epoch takes {one.usual_s:.0f} s), and its "
                    "process was ended."
                )
                found.append(sign[0])
                self.stopped(name)
        return found

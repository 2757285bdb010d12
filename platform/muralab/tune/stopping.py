"""When a trial is stopped early: it is clearly behind the other trials of its recipe, late in the full phase.

A trial is stopped if its objective, projected to the last epoch at its recent gain, is below that of the best third of
the trials at the same epoch. So a trial that starts slowly and gains as its rate falls continues, a single noisy epoch
does not stop one, and with too few trials to compare with, none is stopped. `bench.pruning` replays recorded curves.

A decision depends on which trials have reached that epoch by then, and so on the order in which they run; `pruning=off`
avoids that. `scheduler.py` connects the rule to Ray. Epochs are those of the full phase.
"""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections.abc import Sequence

FIRST_DECISION = 0.5
"""Share of the full phase before which no trial is stopped: a cosine schedule has halved its rate by then."""
SMOOTHED = 0.25
"""Share of the full phase over which the objective is averaged, at least two epochs: a single one is noisy."""
MIN_PEERS = 3
"""Other trials that must have reached the same epoch before one can be stopped."""
KEPT = 1 / 3
"""Share of the trials that continue whatever their projection."""


class StoppingRule:
    """The rule for the trials of one recipe; call `stops` after every epoch of every full phase."""

    def __init__(self, n_epochs: int) -> None:
        """Derive the epochs of the rule.

        Args:
            n_epochs: of the full phase.
        """
        self.n_epochs = n_epochs
        self.first = max(math.ceil(FIRST_DECISION * n_epochs), 1)
        self.window = max(round(SMOOTHED * n_epochs), 2)
        self.curves: dict[str, list[float]] = {}
        self.peers: dict[int, list[float]] = {}
        """Epoch that may be a trial's last -> the smoothed objectives of all that have ended it, in ascending order."""

    def stops(self, trial: str, epoch: int, objective: float) -> bool:
        """Whether a trial is stopped after an epoch.

        Args:
            trial: its name.
            epoch: from 1; one that a restarted trial repeats is ignored.
            objective: after this epoch; NaN ranks last.
        """
        curve = self.curves.setdefault(trial, [])
        if epoch != len(curve) + 1:
            return False
        curve.append(-math.inf if math.isnan(objective) else objective)
        if epoch < self.first or epoch >= self.n_epochs:  # after the last epoch there is nothing to save
            return False
        peers = self.peers.setdefault(epoch, [])
        n_peers, better = len(peers), len(peers) - bisect_right(peers, self._projected(curve))
        insort(peers, self._smoothed(curve, epoch))
        return n_peers >= MIN_PEERS and better >= KEPT * (n_peers + 1)

    def _projected(self, curve: Sequence[float]) -> float:
        """The objective at the last epoch, if the gain over the last window continues."""
        epoch = len(curve)
        now, before = self._smoothed(curve, epoch), self._smoothed(curve, max(epoch - self.window, 1))
        if not now > before:  # also where both are minus infinity
            return now
        return now + (now - before) / self.window * (self.n_epochs - epoch)

    def _smoothed(self, curve: Sequence[float], epoch: int) -> float:
        """Mean over the window that ends with this epoch (from 1)."""
        last = curve[max(0, epoch - self.window) : epoch]
        return sum(last) / len(last)

"""Intervals that allow for selection: the best of many models on one test set looks better than it is.

Part of its lead is due to chance. Its own 95% interval is right for a model that was chosen without this test set. An
interval that holds for all K evaluated models at once (confidence 1 - 0.05 / K, Bonferroni) holds for whichever of them
was chosen, and however.
"""

from __future__ import annotations

import math
from dataclasses import replace

from scipy.special import expit, logit, ndtri

from muralab.evaluation.intervals import Interval


def interval_after_selection(interval: Interval, n_evaluations: int) -> Interval:
    """The interval of a value in [0, 1] (AUROC, accuracy, ...) of the one model chosen from K on this test set.

    Resampling cannot reach the far tails that many evaluations need, so each side is stretched on the logit scale by
    the ratio of normal quantiles; the bound of a value of 0 or 1, as Clopper and Pearson's of a share without an error.

    Args:
        interval: the model's own, at any confidence.
        n_evaluations: K, on this test set.

    Returns:
        The wider interval with its confidence; the given one for K = 1, or where there is no interval in [0, 1].
    """
    if (
        n_evaluations <= 1
        or math.isnan(interval.low)
        or not 0 <= interval.low <= interval.estimate <= interval.high <= 1
    ):
        return interval
    tail = (1 - interval.level) / 2
    tail_of_all = tail / n_evaluations
    level = 1 - 2 * tail_of_all
    stretch = float(ndtri(tail_of_all) / ndtri(tail))
    if interval.estimate in (0.0, 1.0):
        exponent = math.log(tail_of_all) / math.log(
            tail
        )  # Clopper and Pearson's bound is a root of the tail's probability
        low, high = interval.low**exponent, 1 - (1 - interval.high) ** exponent
        return replace(interval, low=low, high=high, level=level)
    middle = logit(interval.estimate)
    low, high = (float(expit(middle + stretch * (logit(end) - middle))) for end in (interval.low, interval.high))
    return replace(interval, low=low, high=high, level=level)


def range_sentence(interval: Interval, n_evaluations: int) -> str:
    """How to read the AUROC of a model that was chosen on its test set; empty where it was evaluated there first."""
    if n_evaluations <= 1 or math.isnan(interval.low):
        return ""
    wide = interval_after_selection(interval, n_evaluations)
    return (
        f"A model that is chosen from {n_evaluations} evaluations looks better than it is: read its test AUROC of "
        f"{interval.estimate:.3f} as a range, {range_text(wide)}. (One evaluation is one model on these test images, "
        "in any sweep or command of this tracking store.)"
    )


def range_text(interval: Interval) -> str:
    """Such as `0.871 to 0.948`."""
    return f"{interval.low:.3f} to {interval.high:.3f}"

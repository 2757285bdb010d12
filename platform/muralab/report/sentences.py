"""What the figures say, in sentences that can be quoted: the headline, and who is better than whom."""

from __future__ import annotations

import math
from collections.abc import Sequence

from muralab.errors import DataError
from muralab.evaluation.bootstrap import Interval, paired_difference
from muralab.report.entries import Entry, winner_of
from muralab.report.judge import NEVER_TESTED, Judged

MAX_DIGITS = 6


def number(value: float, digits: int = 3, *, signed: bool = False) -> str:
    """A number with a true minus sign, and more digits where it would be rounded to 0; an en dash for NaN."""
    if math.isnan(value):
        return "–"
    if value == 0:
        return f"{0:.{digits}f}"
    while digits < MAX_DIGITS and abs(value) < 0.5 * 10**-digits:
        digits += 1
    text = f"{value:+.{digits}f}" if signed else f"{value:.{digits}f}"
    return text.replace("-", "−")


def bounds(interval: Interval, *, signed: bool = False) -> str:
    """`[0.801, 0.899]`, or nothing where there is no interval."""
    if math.isnan(interval.low) or math.isnan(interval.high):
        return ""
    return f"[{number(interval.low, signed=signed)}, {number(interval.high, signed=signed)}]"


def with_bounds(interval: Interval, *, signed: bool = False) -> str:
    """`0.853 [0.801, 0.899]`, or a dash and the reason."""
    if math.isnan(interval.estimate):
        return f"– ({interval.reason or 'undefined'})"
    return f"{number(interval.estimate, signed=signed)} {bounds(interval, signed=signed)}".strip()


def headline(judged: Judged) -> str:
    """One sentence: the model, its test figures with intervals, and on how many studies of how many patients."""
    if judged.reason is not None or not judged.intervals:
        return f"{judged.entry.title} has no test figures: {(judged.reason or 'nothing was judged').rstrip('.')}."
    auroc, kappa = (judged.intervals[name] for name in ("auroc", "kappa"))
    return (
        f"{judged.entry.title} reaches a study-level test AUROC of {with_bounds(auroc)} and a kappa of "
        f"{with_bounds(kappa)} at its threshold of {number(judged.entry.threshold)} "
        f"({judged.n_studies} studies of {judged.n_patients} patients; 95 % patient-clustered intervals)."
    )


UNCHOSEN = "not chosen on validation: no validation score is known"


def choice(entries: Sequence[Entry], *, comparison: bool = False) -> str:
    """How the first of some models came to be it, over its name."""
    if comparison:
        return "Compared over seeds, judged on test"
    winner = winner_of(entries)
    if entries and (winner is None or math.isnan(winner.selection_score)):
        return f"Judged on test; {UNCHOSEN}"
    return "Chosen on validation, judged on test"


def unscored(entries: Sequence[Entry]) -> str:
    """Which models validation did not weigh against the one that it chose; empty where it weighed all or none."""
    names = [entry.title for entry in entries if math.isnan(entry.selection_score)]
    if not names or len(names) == len(entries):
        return ""
    return f"{', '.join(names)}: {UNCHOSEN}."


def difference_sentences(entries: Sequence[Entry], *, n_resamples: int = 2000) -> list[str]:
    """One sentence a recipe: how much lower or higher than the winner, paired on the same test patients.

    The winner is the one that validation chose; where it chose none, the first stands for it. A difference whose
    interval holds 0 is called not resolved.

    Args:
        entries: one a recipe.
        n_resamples: of the patients.
    """
    if not entries:
        return []
    winner = winner_of(entries) or entries[0]
    others = [entry for entry in entries if entry is not winner]
    return [difference_sentence(entry, winner, n_resamples=n_resamples) for entry in others]


def difference_sentence(entry: Entry, winner: Entry, *, n_resamples: int = 2000) -> str:
    """The paired difference of two entries in test AUROC on studies, as one sentence."""
    pair = f"{entry.title} against {winner.title}"
    if entry.test is None or winner.test is None:
        missing = entry if entry.test is None else winner
        return f"{pair}: not compared ({missing.title}: {NEVER_TESTED})."
    try:
        difference = paired_difference(entry.test, winner.test, level="study", metric="auroc", n_resamples=n_resamples)
    except DataError as error:
        return f"{pair}: not compared ({error})."
    if not (math.isfinite(difference.low) and math.isfinite(difference.high)):
        return f"{pair}: not compared ({difference.reason or 'the difference is undefined'})."
    shown = f"paired difference {with_bounds(difference, signed=True)} in test AUROC on studies"
    if difference.low <= 0 <= difference.high:
        return f"{pair}: {shown}: not resolved, the interval contains 0."
    return f"{pair}: {shown}: {'lower' if difference.high < 0 else 'higher'}, the interval excludes 0."

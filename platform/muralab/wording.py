"""Wording of results, for terminal and report alike."""

from __future__ import annotations

import re

NO_INTERVAL = re.compile(r"no interval: ((?:[^()\[\]]|\([^()]*\))+)")


def counted(number: int, one: str, several: str) -> str:
    """`1 study`, `2,000 studies`."""
    return f"{number:,} {one if number == 1 else several}"


def once(text: str, printed: set[str]) -> str:
    """Leave the reason for a missing interval out of a text where it has been given before.

    Args:
        text: any.
        printed: the reasons given so far; those of the text are added.

    >>> once("AUROC 0.6 [no interval: 7 patients are too few], kappa 0.1 [no interval: 7 patients are too few]", set())
    'AUROC 0.6 [no interval: 7 patients are too few], kappa 0.1 [no interval]'
    """

    def shorten(found: re.Match[str]) -> str:
        known = found[1] in printed
        printed.add(found[1])
        return "no interval" if known else found[0]

    return NO_INTERVAL.sub(shorten, text)

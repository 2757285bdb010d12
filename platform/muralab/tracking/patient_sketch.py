"""Do two test sets have most of their patients in common? Answered by a tag's worth of text for each set.

A sketch is the K smallest digests of the patients' names (Cohen and Kaplan, 2007: bottom-k sketches). The share of
patients that two sets have in common, of all in either, is that among the K smallest digests of both, within about
0.5 / sqrt(K). Names are coded before they are logged, so digests of them reveal no one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

SKETCH_SIZE = 48
"""Digests in a sketch, K: a share of one half is known within 0.07."""
MOSTLY = 0.5
"""Two sets are mostly the same if at least this share of all their patients is in both."""
LOOKED_UP = 4
"""Digests by which sets are searched for: a set that is mostly the same lacks all of them in 1% of cases."""


def sketch_patients(patients: Iterable[str]) -> str:
    """The sketch of some patients: digests of 8 hex characters in ascending order, separated by blanks."""
    digests = {hashlib.blake2b(str(one).encode(), digest_size=4).hexdigest() for one in patients}
    return " ".join(sorted(digests)[:SKETCH_SIZE])


def is_mostly_the_same(a: str, b: str) -> bool:
    """Whether two sketches are of sets with most patients in common; an empty sketch is like no other."""
    one, other = set(a.split()), set(b.split())
    smallest = sorted(one | other)[: min(SKETCH_SIZE, len(one | other))]
    return bool(smallest) and len(one & other & set(smallest)) >= MOSTLY * len(smallest)

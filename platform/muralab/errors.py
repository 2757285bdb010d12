"""User errors: each is one paragraph that says what is wrong, where, and how to fix it.

A `MuraLabError` is a user's mistake (or the environment's: no network, a full disk): the command line prints its text
without a traceback and exits with code 2. Everything else is a bug and keeps its traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence

SHOWN_PROBLEMS = 20


class MuraLabError(Exception):
    """A user error; its text says what is wrong, where, and how to fix it."""


class DataError(MuraLabError):
    """The data set, its files or its split cannot be used."""


class ImageError(DataError):
    """One image cannot be decoded; the text is the reason alone, without the file's name."""


class RecipeError(MuraLabError):
    """A recipe, an override or a searched value names something that does not exist or does not fit."""


class WeightsError(MuraLabError):
    """Pretrained weights are unavailable, or do not fit the network."""


class SettingsError(MuraLabError):
    """An option of a command is impossible."""


class StoreError(MuraLabError):
    """The tracking store cannot be reached, or lacks what was requested."""


class StoreUnavailableError(StoreError):
    """The tracking store does not answer now: what was requested may be there.

    Code that treats a `StoreError` as "there is none" lets this one pass.
    """


class ServerError(MuraLabError):
    """A server of models does not answer, or refuses to."""


class DiskError(MuraLabError):
    """A disk is full or read-only."""


class StorageError(MuraLabError):
    """The storage that the machines of a cluster share cannot be used, or lacks what was requested."""


class StorageMissingError(StorageError):
    """The storage has no such file."""


class StorageUnavailableError(StorageError):
    """The storage does not answer now: another attempt may succeed."""


class SweepTakenError(MuraLabError):
    """Another command works on the sweep now: this one leaves the sweep's runs and files to it."""


class ClusterError(MuraLabError):
    """A cluster cannot be reached, refuses the connection, or has nodes that do not fit."""


class UnfitNodeError(ClusterError):
    """This node of a cluster cannot train; its trials can run on others."""


class TrialsFailedError(MuraLabError):
    """A search has ended, but some of its trials failed; they can be resumed."""


class SearchError(MuraLabError):
    """What runs the trials of a search died again and again."""


class MemoryExceededError(MuraLabError):
    """The trial does not fit into the device's memory."""


class DivergedError(MuraLabError):
    """Training diverged: a loss or a weight is not finite."""


def nearest(name: str, known: Iterable[str]) -> str:
    """A sentence that suggests the known name nearest to a wrong one, or lists all of them.

    A name that lacks its group (`lr` of `full.lr`), is written out (`learning_rate`) or cut off is recognised.

    Args:
        name: what the user wrote.
        known: every name that would have been right.
    """
    names = sorted(set(known))
    same = [one for one in names if one in _short_forms(name) or one.rpartition(".")[2] in _short_forms(name)]
    same = same or [one for one in names if len(name) > 2 and one.startswith(name)]
    if 1 <= len(same) <= 3:
        return f"Did you mean {' or '.join(repr(one) for one in same)}?"
    match = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if match:
        return f"Did you mean '{match[0]}'?"
    return "Known: " + (", ".join(names) or "none") + "."


def _short_forms(name: str) -> set[str]:
    """A name, and the same with its last part abbreviated to initials: `full.learning_rate`, `full.lr`."""
    group, dot, last = name.rpartition(".")
    return {name, f"{group}{dot}{''.join(word[:1] for word in last.split('_'))}"} - {""}


def numbered(heading: str, problems: Sequence[str], shown: int = SHOWN_PROBLEMS) -> str:
    """Several problems as one text: a heading, a numbered list, and how many more there are.

    Args:
        heading: one line that says what is wrong and how many times.
        problems: one line each.
        shown: how many of them are printed.
    """
    lines = [heading, *(f"  {i}. {problem}" for i, problem in enumerate(problems[:shown], start=1))]
    if len(problems) > shown:
        lines.append(f"  ... and {len(problems) - shown} more")
    return "\n".join(lines)

"""What a store refused to take, as messages."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from muralab.errors import StoreError, numbered


@dataclass(frozen=True, kw_only=True)
class Refusal:
    """An item that the store did not take."""

    run: str
    """The run's id, or its temporary one where it could not be started."""
    what: str
    """As in "could not <what>"."""
    reason: str
    remedy: str


def refusal_lines(refusals: Sequence[Refusal]) -> list[str]:
    """One line for each run and reason."""
    groups: dict[tuple[str, str, str], list[str]] = {}
    for one in refusals:
        groups.setdefault((one.run, one.reason, one.remedy), []).append(one.what)
    return [
        f"Could not {'; '.join(dict.fromkeys(whats))} of the run {run}. {reason.rstrip('.')}. {advice}"
        for (run, reason, advice), whats in groups.items()
    ]


def refusal_error(refusals: Sequence[Refusal]) -> StoreError:
    """What a store refused, as one message."""
    lines = refusal_lines(refusals)
    if len(lines) == 1:
        return StoreError(f"The tracking store refused something: {lines[0][0].lower()}{lines[0][1:]}")
    return StoreError(numbered(f"The tracking store refused {len(refusals)} items:", lines))

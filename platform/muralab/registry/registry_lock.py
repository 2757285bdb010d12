"""One process at a time changes the aliases and counts of a registered model, on whatever machines they run.

MLflow moves an alias in one step, but not on the condition that it is where it was. So a process writes a claim, a tag
of its own, and reads all claims: it goes on when there is no other. Of two that write at the same time at least one
reads the other's, so they never both go on; the one with the smaller name keeps its claim, so that one of them does.
"""

from __future__ import annotations

import contextlib
import os
import socket
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from muralab.errors import StoreUnavailableError
from muralab.redaction import redact
from muralab.tracking import Store
from muralab.tracking.tags import Tag

POLL_S = 0.5
EXPIRES_S = 300.0
"""A claim that stays this long is of a process that was killed: what is done under it takes some 30 requests."""
PATIENCE_S = 900.0


@contextmanager
def registry_lock(store: Store, name: str) -> Iterator[None]:
    """Hold a registered model; not reentrant.

    A process that a store keeps waiting for longer than `EXPIRES_S` while it holds the model may lose it.

    Args:
        store: of the model.
        name: of the registered model, which exists.

    Raises:
        StoreUnavailableError: others hold it for too long.
    """
    claim = f"{Tag.PROMOTING}{uuid.uuid4().hex[:12]}"
    try:
        _acquire(store, name, claim)
        yield
    finally:
        _withdraw(store.client, name, claim)


def _acquire(store: Store, name: str, claim: str) -> None:
    client, deadline_s = store.client, time.monotonic() + PATIENCE_S
    first_seen_s: dict[str, float] = {}
    while True:
        client.set_registered_model_tag(name, claim, f"{socket.gethostname()} {os.getpid()}")
        others = _others(client, name, claim, first_seen_s)
        if not others:
            return
        if claim > min(others):
            _withdraw(client, name, claim)
        while others and claim > min(others):
            _wait(store, name, deadline_s)
            others = _others(client, name, claim, first_seen_s)
        if others:
            _wait(store, name, deadline_s)


def _others(client: Any, name: str, own: str, first_seen_s: dict[str, float]) -> list[str]:
    """The claims of other processes; one that has been there for too long is removed."""
    now_s = time.monotonic()
    found = [key for key in client.get_registered_model(name).tags if key.startswith(Tag.PROMOTING) and key != own]
    for claim in found:
        if now_s - first_seen_s.setdefault(claim, now_s) > EXPIRES_S:
            _withdraw(client, name, claim)
    return [claim for claim in found if now_s - first_seen_s[claim] <= EXPIRES_S]


def _withdraw(client: Any, name: str, claim: str) -> None:
    with contextlib.suppress(Exception):  # it expires
        client.delete_registered_model_tag(name, claim)


def _wait(store: Store, name: str, deadline_s: float) -> None:
    if time.monotonic() > deadline_s:
        raise StoreUnavailableError(
            f"The registered model {name} of {redact(store.uri)} has been changed by other commands for "
            f"{PATIENCE_S / 60:.0f} minutes. Try again when they have ended."
        )
    time.sleep(POLL_S)

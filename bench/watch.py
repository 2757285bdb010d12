"""What is seen of a server under load: its answers, its faults, and its memory at work and at rest."""

from __future__ import annotations

import statistics
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import requests

from bench.serving_models import Server

GROWTH_MIB, REST_GROWTH_MIB = 96.0, 24.0
"""Median memory of the last fifth of the time may exceed that of the second fifth by so much: under load, at rest."""
PEAK_MIB = 1600.0
"""A 50 million pixel picture takes up to 480 MiB while it is decoded (JPEG 2000 400; 16 bits 190, RGBA 290), and two
are decoded at once; no server with these, its own 600 MiB and small bodies may ever hold more than this."""
PATIENCE_S = 60.0
QUIET_S = 3.0
"""A server gives memory back a second after an answer."""
HEADS = ("good", "bad", "random", "good, ms", "rest", "rest", "load", "load", "peak")


class Turnstile:
    """Lets requests through, or holds them back while no other is under way."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._under_way = 0
        self._closed = False

    @contextmanager
    def request(self) -> Iterator[None]:
        """Waits until it is let through."""
        with self._changed:
            self._changed.wait_for(lambda: not self._closed)
            self._under_way += 1
        try:
            yield
        finally:
            with self._changed:
                self._under_way -= 1
                self._changed.notify_all()

    @contextmanager
    def rest(self) -> Iterator[None]:
        """Waits until all that were let through are done, and lets no other through before the block ends."""
        with self._changed:
            self._closed = True
            self._changed.wait_for(lambda: not self._under_way)
        try:
            yield
        finally:
            with self._changed:
                self._closed = False
                self._changed.notify_all()


@dataclass
class Watch:
    """What has been seen of one server."""

    server: Server
    lenient: bool
    """Whether 5xx counts only where the model is reached: MLflow's own server."""
    counts: Counter[str] = field(default_factory=Counter)
    seconds: list[float] = field(default_factory=list)
    """Of each good answer."""
    memory: list[float] = field(default_factory=list)
    """MiB under load, a sample a second."""
    at_rest: list[float] = field(default_factory=list)
    """MiB, a sample a rest."""
    faults: list[str] = field(default_factory=list)
    turnstile: Turnstile = field(default_factory=Turnstile)

    def ask(self, client: requests.Session, what: str, body: bytes, kind: str) -> requests.Response | None:
        """Send a request; None where there was no answer, which is a fault."""
        self.counts[what] += 1
        with self.turnstile.request():
            started = time.perf_counter()
            try:
                response = client.post(self.server.url, data=body, headers={"Content-Type": kind}, timeout=PATIENCE_S)
            except requests.RequestException as error:
                self.faults.append(f"{what}: no answer ({type(error).__name__})")
                time.sleep(1)
                return None
        if what == "good":
            self.seconds.append(time.perf_counter() - started)
        return response

    def rest(self) -> None:
        """Note what the server holds once all is answered."""
        with self.turnstile.rest():
            time.sleep(QUIET_S)
            self.at_rest.append(self.server.memory_mib())

    def check(self, what: str, response: requests.Response, *, reaches: bool) -> None:
        """A request of any kind must not break the server."""
        broken = response.status_code >= 500 or "Traceback" in response.text
        if broken and (reaches or not self.lenient):
            self.faults.append(f"{what}: {response.status_code} {response.text[-200:]!r}")


def judge(watch: Watch) -> tuple[str, list[str]]:
    """The server's line of the table, and what is wrong."""
    faults = list(watch.faults)
    medians = []
    for when, samples, limit in (("at rest", watch.at_rest, REST_GROWTH_MIB), ("under load", watch.memory, GROWTH_MIB)):
        fifth = max(1, len(samples) // 5)
        early, late = (
            statistics.median(part or [0.0]) for part in (samples[fifth : 2 * fifth] or samples, samples[-fifth:])
        )
        medians += [early, late]
        if late - early > limit:
            faults.append(f"{when}, memory grew by {late - early:.0f} MiB, from {early:.0f}; limit {limit:g}")
    if max(watch.memory) > PEAK_MIB:
        faults.append(f"memory reached {max(watch.memory):.0f} MiB; at most {PEAK_MIB:g} are let through")
    latency = 1000 * statistics.median(watch.seconds or [float("nan")])
    asked = "".join(f"{watch.counts[kind]:9,}" for kind in ("good", "bad", "random"))
    memory = "".join(f"{mib:9.0f}" for mib in (*medians, max(watch.memory)))
    return f"{asked}{latency:9.0f}{memory}{len(faults):8}", faults


def by_tenths(watch: Watch) -> list[str]:
    """A line for the memory at rest and one for that under load, median of each tenth of the time."""
    return [
        f"{when}, by tenths of the time: "
        + " ".join(f"{statistics.median(part):.0f}" for part in np.array_split(samples, 10) if len(part))
        for when, samples in (("at rest", watch.at_rest), ("under load", watch.memory))
    ]

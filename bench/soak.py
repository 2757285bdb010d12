"""Does a server stand half an hour of good and bad load, and 10,000 random requests, in the same memory?

    make soak                        (30 minutes; MINUTES=5, ARGS='--model models:/mura-wrist@champion --cases 2000')

`mlflow models serve` and `muralab app` on the same model, both at once: for each, two clients with good studies in
every wrapping (each answer must equal the first of its kind), one with everything bad that people send, one with
random cases from a seed. Fails, with 1, on: an error or another answer to a good request, no 4xx to a bad one, a 5xx or
a stack trace (from MLflow's server: where the request reaches the model), a server that ends, or memory that grows.
Without --model, the shipped recipe with random weights is exported first.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import numpy as np
import requests

from bench.fuzz import make_case
from bench.payloads import CSV, JSON, bad_requests, good_files, large_files, records, text
from bench.serving_models import Server, build_network, pictures, serve, serve_app

GROWTH_MIB = 96.0
"""Median memory of the last fifth of the time may exceed that of the second fifth by so much."""
PEAK_MIB = 1600.0
"""A 50 million pixel picture takes up to 400 MiB while it is decoded (JPEG 2000; 16 bits 190, RGBA 290), and two are
decoded at once; no server with these, its own 600 MiB and small bodies may ever hold more than this."""
SIZE = 112
PATIENCE_S = 60.0
SHOWN = 5
T = TypeVar("T")


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
    """MiB, a sample a second."""
    faults: list[str] = field(default_factory=list)

    def ask(self, client: requests.Session, what: str, body: bytes, kind: str) -> requests.Response | None:
        """Send a request; None where there was no answer, which is a fault."""
        self.counts[what] += 1
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

    def check(self, what: str, response: requests.Response, *, reaches: bool) -> None:
        """A request of any kind must not break the server."""
        broken = response.status_code >= 500 or "Traceback" in response.text
        if broken and (reaches or not self.lenient):
            self.faults.append(f"{what}: {response.status_code} {response.text[-200:]!r}")


def good_requests() -> list[tuple[bytes, str]]:
    """Studies in every wrapping, with and without heat maps, and the largest pictures."""
    texts = [text(data) for data in good_files(400).values()]
    return [
        *((records(one), JSON) for one in texts),
        (records(*texts), JSON),
        (records(*texts[:3], explain=True), JSON),
        (records(texts[0], "%", policy="partial"), JSON),
        (f"image,study\n{texts[0]},1\n{texts[1]},1\n".encode(), CSV),
        *((records(text(data)), JSON) for data in large_files().values()),
    ]


def ask_good(watch: Watch, until: Callable[[], bool]) -> None:
    """Good requests in turn; each must be answered as it was the first time."""
    first: dict[int, list[float | None]] = {}
    asked = itertools.cycle(enumerate(good_requests()))
    with requests.Session() as client:
        for number, (body, kind) in _while(asked, until):
            response = watch.ask(client, "good", body, kind)
            if response is None:
                continue
            found = _read_probabilities(response)
            if found is None:
                watch.faults.append(f"good {number}: {response.status_code} {response.text[-200:]!r}")
            elif not _equal(first.setdefault(number, found), found):
                watch.faults.append(f"good {number}: {found}, at first {first[number]}")


def _read_probabilities(response: requests.Response) -> list[float | None] | None:
    """One a row, None for a row that is said to be bad; no list where a row has neither a number nor an error."""
    if response.status_code != 200:
        return None
    rows = response.json()["predictions"]
    whole = all(row.get("error") or 0 <= row["probability"] <= 1 for row in rows)  # NaN is neither
    return [row["probability"] for row in rows] if whole else None


def ask_bad(watch: Watch, until: Callable[[], bool]) -> None:
    """Bad requests in turn; each must be refused in its own words."""
    with requests.Session() as client:
        for name, bad in _while(itertools.cycle(bad_requests().items()), until):
            response = watch.ask(client, "bad", bad.body, bad.kind)
            if response is not None:
                watch.check(f"bad, {name}", response, reaches=bad.reaches_model)
                refused = 400 <= response.status_code < 500 and bad.words in response.text
                if not refused and (bad.reaches_model or not watch.lenient):
                    watch.faults.append(f"bad, {name}: {response.status_code} {response.text[-200:]!r}")
            time.sleep(0.05)


def ask_random(watch: Watch, n_cases: int) -> None:
    """Random requests."""
    with requests.Session() as client:
        for number in range(n_cases):
            case = make_case(number)
            response = watch.ask(client, "random", case.body, case.kind)
            if response is not None:
                watch.check(f"case {number}", response, reaches=case.reaches_model)


def _while(items: Iterator[T], until: Callable[[], bool]) -> Iterator[T]:
    return itertools.takewhile(lambda _: not until(), items)


def _equal(first: list[float | None], found: list[float | None]) -> bool:
    return np.allclose(np.array(first, float), np.array(found, float), atol=1e-6, equal_nan=True)


def soak(watches: dict[str, Watch], minutes: float, n_cases: int) -> None:
    """Run all clients until the time is over and all random cases are through."""
    end = time.monotonic() + 60 * minutes
    fuzzers = [threading.Thread(target=ask_random, args=(watch, n_cases)) for watch in watches.values()]

    def over() -> bool:
        return time.monotonic() > end and not any(thread.is_alive() for thread in fuzzers)

    clients = [
        threading.Thread(target=ask, args=(watch, over))
        for watch in watches.values()
        for ask in (ask_good, ask_good, ask_bad)
    ]
    for thread in (*fuzzers, *clients):
        thread.start()
    while any(thread.is_alive() for thread in (*fuzzers, *clients)):
        for watch in watches.values():
            watch.memory.append(watch.server.memory_mib())
        time.sleep(1)


def judge(watch: Watch) -> tuple[str, list[str]]:
    """The server's line of the table, and what is wrong."""
    fifth = max(1, len(watch.memory) // 5)
    early, late = (
        statistics.median(watch.memory[fifth : 2 * fifth] or watch.memory),
        statistics.median(watch.memory[-fifth:]),
    )
    faults = list(watch.faults)
    if late - early > GROWTH_MIB:
        faults.append(
            f"memory grew by {late - early:.0f} MiB, from {early:.0f}; at most {GROWTH_MIB:g} are let through"
        )
    if max(watch.memory) > PEAK_MIB:
        faults.append(f"memory reached {max(watch.memory):.0f} MiB; at most {PEAK_MIB:g} are let through")
    latency = 1000 * statistics.median(watch.seconds or [float("nan")])
    asked = "".join(f"{watch.counts[kind]:9,}" for kind in ("good", "bad", "random"))
    return f"{asked}{latency:9.0f}{early:9.0f}{late:9.0f}{max(watch.memory):9.0f}{len(faults):8}", faults


def main() -> None:
    """Start both servers, load them, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--cases", type=int, default=10_000, help="random requests to each server")
    parser.add_argument("--model", help="a registered model or a folder; without: random weights")
    given = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        model = given.model or str(write_model(folder))
        body = records(text(good_files()["png"]))
        servers = {
            "mlflow models serve": stack.enter_context(serve(model, body, log=folder / "mlflow.log")),
            "muralab app": stack.enter_context(serve_app(model, body, log=folder / "app.log")),
        }
        watches = {name: Watch(server, lenient=name.startswith("mlflow")) for name, server in servers.items()}
        started = time.monotonic()
        soak(watches, given.minutes, given.cases)
    print(f"{(time.monotonic() - started) / 60:.1f} minutes, {model}. Memory (MiB): second fifth, last fifth, peak.")
    heads = ("good", "bad", "random", "good, ms", "early", "late", "peak")
    print(f"{'':20}" + "".join(f"{head:>9}" for head in heads) + "  faults")
    found = {name: judge(watch) for name, watch in watches.items()}
    for name, (line, _) in found.items():
        print(f"{name:20}{line}")
    for name, watch in watches.items():
        tenths = [statistics.median(part) for part in np.array_split(watch.memory, 10) if len(part)]
        print(f"{name}, memory by tenths of the time: {' '.join(f'{tenth:.0f}' for tenth in tenths)}")
    for name, (_, faults) in found.items():
        print("".join(f"\n{name}: {fault}" for fault in faults[:SHOWN]), end="")
    sys.exit(1 if any(faults for _, faults in found.values()) else 0)


def write_model(folder: Path) -> Path:
    """The shipped recipe with random weights, as it would be registered."""
    from muralab.registry.bundle import write_bundle
    from muralab.registry.export import export_onnx
    from muralab.registry.quiet import quiet
    from muralab.serving.config import ServingConfig

    with quiet():
        export_onnx(build_network(), SIZE, folder / "m.onnx", verify_images=pictures(2, SIZE))
        write_bundle(folder / "model", folder / "m.onnx", ServingConfig(image_size=SIZE))
    return folder / "model"


if __name__ == "__main__":
    main()

"""Does a server stand half an hour of good and bad load, and 10,000 random requests, in the same memory?

    make soak                        (30 minutes; MINUTES=5, ARGS='--model models:/mura-wrist@champion --cases 2000')

`mlflow models serve` and `muralab app` on the same model, both at once: for each, two clients with good studies in
every wrapping (each answer must equal the first of its kind), one with everything bad that people send, one with
random cases from a seed, spread over the time. Thirty times the clients rest: what a server holds then is what it does
not give back, while under load memory is that of the pictures that happen to be decoded. Fails, with 1, on: an error or
another answer to a good request, no 4xx to a bad one, a 5xx or a stack trace (from MLflow's server: where the request
reaches the model), a server that ends, or memory that grows, at rest or under load. Without --model, the shipped recipe
with random weights is exported first.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import numpy as np
import requests

from bench.fuzz import make_case
from bench.payloads import CSV, JSON, bad_requests, good_files, large_files, records, text
from bench.serving_models import build_network, pictures, serve, serve_app
from bench.watch import HEADS, Watch, by_tenths, judge

SIZE = 112
SHOWN = 5
T = TypeVar("T")
RESTS = 30
SHORTEST_S = 10.0
"""Between two rests."""


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


def ask_good(watch: Watch, until: Callable[[], bool], seed: int) -> None:
    """Good requests, shuffled; each must be answered as it was the first time."""
    first: dict[int, list[float | None]] = {}
    asked = list(enumerate(good_requests()))
    with requests.Session() as client:
        for number, (body, kind) in _shuffled(asked, until, seed):
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


def ask_bad(watch: Watch, until: Callable[[], bool], seed: int) -> None:
    """Bad requests, shuffled; each must be refused in its own words."""
    with requests.Session() as client:
        for name, bad in _shuffled(list(bad_requests().items()), until, seed):
            response = watch.ask(client, "bad", bad.body, bad.kind)
            if response is not None:
                watch.check(f"bad, {name}", response, reaches=bad.reaches_model)
                refused = 400 <= response.status_code < 500 and bad.words in response.text
                if not refused and (bad.reaches_model or not watch.lenient):
                    watch.faults.append(f"bad, {name}: {response.status_code} {response.text[-200:]!r}")
            time.sleep(0.05)


def ask_random(watch: Watch, n_cases: int, minutes: float) -> None:
    """Random requests, evenly over the time: once they were through, the load would be another."""
    started = time.monotonic()
    with requests.Session() as client:
        for number in range(n_cases):
            time.sleep(max(0.0, started + 60 * minutes * number / n_cases - time.monotonic()))
            case = make_case(number)
            response = watch.ask(client, "random", case.body, case.kind)
            if response is not None:
                watch.check(f"case {number}", response, reaches=case.reaches_model)


def _shuffled(items: list[T], until: Callable[[], bool], seed: int) -> Iterator[T]:
    """All items again and again, each time in another order: in one order clients would fall in and out of step."""
    rng = random.Random(seed)
    while True:
        for item in rng.sample(items, len(items)):
            if until():
                return
            yield item


def _equal(first: list[float | None], found: list[float | None]) -> bool:
    return np.allclose(np.array(first, float), np.array(found, float), atol=1e-6, equal_nan=True)


def soak(watches: dict[str, Watch], minutes: float, n_cases: int) -> None:
    """Run all clients until the time is over and all random cases are through."""
    end = time.monotonic() + 60 * minutes
    fuzzers = [threading.Thread(target=ask_random, args=(watch, n_cases, minutes)) for watch in watches.values()]

    def over() -> bool:
        return time.monotonic() > end and not any(thread.is_alive() for thread in fuzzers)

    clients = [
        threading.Thread(target=ask, args=(watch, over, seed))
        for watch in watches.values()
        for seed, ask in enumerate((ask_good, ask_good, ask_bad))
    ]
    for thread in (*fuzzers, *clients):
        thread.start()
    between_s = max(SHORTEST_S, 60 * minutes / RESTS)
    next_rest = time.monotonic() + between_s
    while any(thread.is_alive() for thread in (*fuzzers, *clients)):
        for watch in watches.values():
            watch.memory.append(watch.server.memory_mib())
        time.sleep(1)
        if time.monotonic() > next_rest:
            with ThreadPoolExecutor(len(watches)) as pool:  # together: neither has the machine for itself meanwhile
                list(pool.map(lambda watch: watch.rest(), watches.values()))
            next_rest = time.monotonic() + between_s


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
    print(f"{(time.monotonic() - started) / 60:.1f} minutes, {model}.")
    print("Memory (MiB): medians of the second and the last fifth of the time, at rest and under load; peak.")
    print(f"{'':20}" + "".join(f"{head:>9}" for head in HEADS) + "  faults")
    found = {name: judge(watch) for name, watch in watches.items()}
    for name, (line, _) in found.items():
        print(f"{name:20}{line}")
    for name, watch in watches.items():
        print("\n".join(f"{name}, {line}" for line in by_tenths(watch)))
    for name, (_, faults) in found.items():
        print("".join(f"\n{name}: {fault}" for fault in faults[:SHOWN]), end="")
    sys.exit(1 if any(faults for _, faults in found.values()) else 0)


def write_model(folder: Path) -> Path:
    """The shipped recipe with random weights, as it would be registered."""
    from muralab.registry.bundle import write_bundle
    from muralab.registry.export import export_onnx
    from muralab.registry.silence import silenced
    from muralab.serving.config import ServingConfig

    with silenced():
        export_onnx(build_network(), SIZE, folder / "m.onnx", verify_images=pictures(2, SIZE))
        write_bundle(folder / "model", folder / "m.onnx", ServingConfig(image_size=SIZE))
    return folder / "model"


if __name__ == "__main__":
    main()

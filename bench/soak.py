"""Does a server withstand half an hour of valid, invalid and random requests without growing in memory?

    make soak                        (30 minutes; MINUTES=5, ARGS='--model models:/mura-wrist@champion --cases 2000')

`mlflow models serve` and `muralab app` serve the same model at the same time. In 30 cycles each gets load from locust
(bench/load.py: two clients with valid studies in every format, whose answers must not change, and one with common
mistakes) and random requests from schemathesis (bench/fuzz.py), seeded and evenly spread over the time. Between two
cycles all clients have ended: what a server holds then is what it does not give back, while under load its memory is
that of the images that happen to be decoded.

The exit code is 1 after: an error in place of an answer, or another answer than at first; anything but 4xx for an
invalid request; a 5xx or a stack trace (from MLflow's server: where the request reaches the model); a server that ends;
memory that grows, at rest or under load. Without --model, the shipped recipe with random weights is exported first.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import requests

from bench.fuzz import build_schema
from bench.payloads import (
    grey_images,
    invalid_requests,
    read_probabilities,
    request_body,
    valid_files,
    valid_requests,
)
from bench.servers import ROOT, Server, post, serve, serve_app
from bench.serving_models import build_network

IMAGE_SIZE = 112
N_CYCLES = 30
SHORTEST_CYCLE_S = 10.0
MIN_CYCLES = 10
"""With fewer (less than 100 s), the medians depend on which images happen to be decoded: growth is only printed."""
CASES_PER_MINUTE = 10_000 / 30
GROWTH_MIB, REST_GROWTH_MIB = 96.0, 24.0
"""How much the median memory of the last fifth of the time may exceed that of the second fifth: under load, at rest."""
PEAK_MIB = 1600.0
"""An image of 50 million pixels takes up to 480 MiB while it is decoded (JPEG 2000 400; 16 bits 190, RGBA 290), and two
are decoded at once; with 600 MiB of its own and small bodies no server may ever hold more than this."""
SETTLE_S = 3.0
"""A server gives memory back a second after an answer."""
TIMEOUT_S = 60
N_SHOWN = 5
COLUMNS = ("valid", "invalid", "random", "valid, ms", "rest", "rest", "load", "load", "peak")


@dataclass
class Observed:
    """What has been observed of one server."""

    name: str
    server: Server
    folder: Path
    is_mlflow: bool
    """MLflow's own server: how it answers requests that do not reach the model is not checked."""
    counts: Counter[str] = field(default_factory=Counter)
    latencies_ms: Counter[int] = field(default_factory=Counter)
    """Latency of a valid answer -> how many."""
    under_load: list[float] = field(default_factory=list)
    """MiB, one sample per second."""
    at_rest: list[float] = field(default_factory=list)
    """MiB, one sample after each cycle."""
    faults: list[str] = field(default_factory=list)

    def write_inputs(self) -> None:
        """Write the requests for locust, with the answers as they are now, and the schema for schemathesis."""
        valid, invalid = valid_requests(), invalid_requests()
        for request in valid:
            answer = post(requests, self.server.url, request["body"].encode(), request["content_type"])
            request["expected"] = read_probabilities(answer)
            if request["expected"] is None:
                raise RuntimeError(f"{self.name} answered {request['name']} without a probability: {answer}")
        for request in invalid:
            request["reaches_model"] |= not self.is_mlflow
        self.folder.mkdir()
        (self.folder / "requests.json").write_text(json.dumps([*valid, *invalid]), encoding="utf-8")
        (self.folder / "schema.json").write_text(json.dumps(build_schema()), encoding="utf-8")

    def start_clients(self, seconds: float, n_cases: int, seed: int) -> list[subprocess.Popen[bytes]]:
        """Start locust and schemathesis for one cycle; both write their reports into the folder."""
        locust = [sys.executable, "-m", "locust", "-f", ROOT / "bench/load.py", "--headless", "--users", 3]
        locust += ["--spawn-rate", 3, "--run-time", f"{seconds:.0f}s", "--stop-timeout", TIMEOUT_S]
        locust += ["--host", self.server.address, "--requests", "requests.json"]
        locust += ["--json-file", "load", "--csv", "load", "--only-summary"]
        rate = math.ceil(n_cases / seconds)
        fuzz = [Path(sys.executable).parent / "st", "run", "schema.json", "--url", self.server.address]
        fuzz += ["--max-examples", n_cases, "--rate-limit", f"{rate}/s", "--seed", seed, "--phases", "fuzzing"]
        fuzz += ["--checks", "survives_well_formed" if self.is_mlflow else "survives", "--continue-on-failure"]
        fuzz += ["--no-shrink", "--suppress-health-check", "all", "--warnings", "off", "--generation-database", "none"]
        fuzz += ["--request-timeout", TIMEOUT_S, "--report", "json", "--report-json-path", "fuzz.json"]
        sources = os.pathsep.join((str(ROOT / "platform"), str(ROOT)))
        environment = {**os.environ, "PYTHONPATH": sources, "SCHEMATHESIS_HOOKS": "bench.fuzz"}
        with (self.folder / "clients.log").open("w") as log:
            return [
                subprocess.Popen(list(map(str, command)), cwd=self.folder, env=environment, stdout=log, stderr=log)
                for command in (locust, fuzz)
            ]

    def read_reports(self) -> None:
        """Add what the clients of a cycle found, and remove their reports."""
        load, failures, fuzz = (self._take(name) for name in ("load.json", "load_failures.csv", "fuzz.json"))
        for entry in json.loads(load):
            self.counts[entry["name"]] += entry["num_requests"]
            if entry["name"] == "valid":
                self.latencies_ms.update({int(ms): count for ms, count in entry["response_times"].items()})
        rows = csv.DictReader(io.StringIO(failures))
        self.faults += [f"{row['Name']}, {row['Occurrences']} times: {row['Error']}" for row in rows]
        found = json.loads(fuzz)
        self.counts["random"] += found["test_cases"]["generated"]
        self.faults += [f"random: {json.dumps(fault)[:1000]}" for fault in (*found["failures"], *found["errors"])]

    def _take(self, name: str) -> str:
        path = self.folder / name
        if not path.exists():
            log = (self.folder / "clients.log").read_text(encoding="utf-8")
            raise RuntimeError(f"A client of {self.name} did not write {name}:\n{log[-2000:]}")
        text = path.read_text(encoding="utf-8")
        path.unlink()
        return text

    def assess_memory(self) -> list[str]:
        """Memory in MiB for the table; growth and peaks above the limits become faults."""
        medians = []
        for when, samples, limit in (
            ("at rest", self.at_rest, REST_GROWTH_MIB),
            ("under load", self.under_load, GROWTH_MIB),
        ):
            fifth = max(1, len(samples) // 5)
            early = statistics.median(samples[fifth : 2 * fifth] or samples)
            late = statistics.median(samples[-fifth:])
            medians += [early, late]
            if late - early > limit and len(self.at_rest) >= MIN_CYCLES:
                self.faults.append(f"{when}, memory grew by {late - early:.0f} MiB, from {early:.0f}; limit {limit:g}")
        peak = max(self.under_load)
        if peak > PEAK_MIB:
            self.faults.append(f"memory reached {peak:.0f} MiB; limit {PEAK_MIB:g}")
        return [f"{mib:.0f}" for mib in (*medians, peak)]

    def describe_tenths(self) -> list[str]:
        """Memory at rest and under load, median of each tenth of the time."""
        return [
            f"{self.name}, {when}, by tenths of the time: "
            + " ".join(f"{statistics.median(part):.0f}" for part in np.array_split(samples, 10) if len(part))
            for when, samples in (("at rest", self.at_rest), ("under load", self.under_load))
        ]


def run_cycle(observed: list[Observed], seconds: float, n_cases: int, seed: int) -> None:
    """Load all servers at the same time, let them rest, and record their memory."""
    clients = [client for one in observed for client in one.start_clients(seconds, n_cases, seed)]
    while any(client.poll() is None for client in clients):
        for one in observed:
            one.under_load.append(one.server.memory_mib())
        time.sleep(1)
    time.sleep(SETTLE_S)
    for one in observed:
        one.at_rest.append(one.server.memory_mib())
        if one.server.process.poll() is not None:
            raise RuntimeError(f"{one.name} ended with code {one.server.process.returncode}.")
        one.read_reports()


def print_report(observed: list[Observed]) -> None:
    """Print the table, memory over time, and the first faults."""
    print("Memory (MiB): medians of the second and the last fifth of the time, at rest and under load; peak.")
    print(f"{'':20}" + "".join(f"{name:>10}" for name in COLUMNS) + "  faults")
    for one in observed:
        latency = statistics.median(one.latencies_ms.elements()) if one.latencies_ms else math.nan
        counts = [f"{one.counts[kind]:,}" for kind in ("valid", "invalid", "random")]
        cells = [*counts, f"{latency:.0f}", *one.assess_memory()]
        print(f"{one.name:20}" + "".join(f"{cell:>10}" for cell in cells) + f"{len(one.faults):8}")
    print("\n".join(line for one in observed for line in one.describe_tenths()))
    print("\n".join(f"{one.name}: {fault}" for one in observed for fault in one.faults[:N_SHOWN]))


def main() -> None:
    """Start both servers, load them, print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--cases", type=int, help="random requests to each server; default 333 per minute")
    parser.add_argument("--model", help="a registered model or a folder; default: random weights")
    options = parser.parse_args()
    n_cycles = max(1, min(N_CYCLES, int(60 * options.minutes / SHORTEST_CYCLE_S)))
    n_cases = math.ceil((options.cases or CASES_PER_MINUTE * options.minutes) / n_cycles)
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        model = options.model or str(write_model(folder))
        body = request_body([valid_files()["png"]])
        mlflow = stack.enter_context(serve(model, body, log=folder / "mlflow.log"))
        app = stack.enter_context(serve_app(model, body, log=folder / "app.log"))
        observed = [
            Observed("mlflow models serve", mlflow, folder / "mlflow", is_mlflow=True),
            Observed("muralab app", app, folder / "app", is_mlflow=False),
        ]
        started = time.monotonic()
        for one in observed:
            one.write_inputs()
        for seed in range(n_cycles):
            run_cycle(observed, 60 * options.minutes / n_cycles, n_cases, seed)
    print(f"{(time.monotonic() - started) / 60:.1f} minutes, {model}.")
    print_report(observed)
    sys.exit(1 if any(one.faults for one in observed) else 0)


def write_model(folder: Path) -> Path:
    """Write the shipped recipe with random weights as it would be registered."""
    from muralab.registry.bundle import write_bundle
    from muralab.registry.export import export_onnx
    from muralab.registry.silence import silenced
    from muralab.serving.config import ServingConfig

    with silenced():
        export_onnx(build_network(), IMAGE_SIZE, folder / "m.onnx", verify_images=grey_images(2, IMAGE_SIZE))
        write_bundle(folder / "model", folder / "m.onnx", ServingConfig(image_size=IMAGE_SIZE))
    return folder / "model"


if __name__ == "__main__":
    main()

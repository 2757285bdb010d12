"""How soon is the served model ready, and what are its latency and throughput?

    python -m bench.serving            (a few minutes on two cores; --full: more rounds)

Ready: seconds from the start of `mlflow models serve` to the first answer, minus those of a trivial pyfunc model.
Latency: one 512 px PNG through the server, over decoding + onnxruntime alone in this process, in turn. Throughput:
eight clients, over the same pyfunc with torch in eager mode instead of onnxruntime, both behind `mlflow models serve`,
in turn. The shipped recipe at 299 px, random weights.
"""

from __future__ import annotations

import functools
import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import requests

from bench.common import Options, Row, interleave, ratios, run
from bench.payloads import encode, grey_images, request_body
from bench.servers import Server, post, serve
from bench.serving_models import SIZE, write_models

SOURCE_PX = 512
CLIENTS = 8
READY_S = 2.0
LATENCY = 1.3
THROUGHPUT = 1.8


def measure(options: Options) -> list[Row]:
    """Measure time to ready, latency and throughput."""
    rounds = 5 if options.full else 3
    files = [encode(image) for image in grey_images(8, SOURCE_PX)]
    body = request_body(files[:1])
    with tempfile.TemporaryDirectory() as folder:
        models = write_models(Path(folder) / "models")
        ready = measure_ready(models, body, rounds)
        logs = [models[name].with_suffix(".log") for name in ("served", "eager")]
        with serve(models["served"], body, logs[0]) as served, serve(models["eager"], body, logs[1]) as eager:
            latency = measure_latency(models["served"], served.url, files, 60 if options.full else 30)
            throughput = measure_throughput(served, eager, files, rounds)
    return [ready, latency, *throughput]


def measure_ready(models: dict[str, Path], body: bytes, rounds: int) -> Row:
    """Seconds to the first answer."""

    def start(name: str) -> float:
        with serve(models[name], body, models[name].with_suffix(".log")) as server:
            return server.ready_s

    found = interleave({name: functools.partial(start, name) for name in ("served", "trivial")}, rounds)
    more = [ours - theirs for ours, theirs in zip(found["served"], found["trivial"], strict=True)]
    ours, theirs = (statistics.median(found[name]) for name in ("served", "trivial"))
    return Row(
        what="ready: seconds more than a trivial model",
        ours=f"{ours:.2f} s",
        theirs=f"{theirs:.2f} s",
        ratio=statistics.median(more),
        spread=(min(more), max(more)),
        at_most=READY_S,
    )


def measure_latency(model: Path, url: str, files: list[bytes], n_requests: int) -> Row:
    """Latency of one image."""
    from muralab.data.images.decode import decode, to_square
    from muralab.serving.classifier import open_session

    session = open_session(model / "artifacts" / "model.onnx")  # with the same options as the served model
    bodies = [request_body([data]) for data in files]
    turn = {"served": 0, "alone": 0}

    def ask(client: requests.Session) -> float:
        turn["served"] += 1
        started = time.perf_counter()
        post(client, url, bodies[turn["served"] % len(bodies)])
        return time.perf_counter() - started

    def compute() -> float:
        turn["alone"] += 1
        started = time.perf_counter()
        square = to_square(decode(files[turn["alone"] % len(files)]), SIZE)
        session.run(["logits"], {"images": square[np.newaxis]})
        return time.perf_counter() - started

    with requests.Session() as client:
        sides: dict[str, Callable[[], float]] = {"served": functools.partial(ask, client), "alone": compute}
        found = interleave(sides, n_requests, warm_up=3)
    ours, theirs = (statistics.median(found[name]) for name in ("served", "alone"))
    each = ratios(found["served"], found["alone"])[1]
    return Row(
        what="latency of one 512 px image, median",
        ours=f"{1000 * ours:.1f} ms",
        theirs=f"{1000 * theirs:.1f} ms",
        ratio=ours / theirs,
        spread=each,
        at_most=LATENCY,
        note=f"{n_requests} pairs; the spread is over single pairs.",
    )


def measure_throughput(served: Server, eager: Server, files: list[bytes], rounds: int) -> list[Row]:
    """Images per second with eight clients, and per second of CPU time, which a busy machine does not affect."""
    bodies = [request_body([data]) for data in files] * 5
    costs: dict[Server, list[float]] = {served: [], eager: []}

    def load(server: Server) -> float:
        before = server.cpu_s()
        with ThreadPoolExecutor(CLIENTS) as clients, requests.Session() as session:
            session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=CLIENTS))
            started = time.perf_counter()
            list(clients.map(lambda body: post(session, server.url, body), bodies))
            seconds = time.perf_counter() - started
        costs[server].append((server.cpu_s() - before) / len(bodies))
        return len(bodies) / seconds

    sides = {"onnxruntime": functools.partial(load, served), "torch": functools.partial(load, eager)}
    found = interleave(sides, rounds)
    return [
        _throughput("throughput with 8 clients, over torch eager", found["onnxruntime"], found["torch"], "{:.1f} /s"),
        _throughput(
            "the same per second of CPU time",
            [1 / cost for cost in costs[served][1:]],
            [1 / cost for cost in costs[eager][1:]],
            "{:.1f} /s",
        ),
    ]


def _throughput(what: str, ours: list[float], theirs: list[float], form: str) -> Row:
    ratio, spread = ratios(ours, theirs)
    medians = (form.format(statistics.median(side)) for side in (ours, theirs))
    return Row(what=what, ours=next(medians), theirs=next(medians), ratio=ratio, spread=spread, at_least=THROUGHPUT)


if __name__ == "__main__":
    run(measure, __doc__)

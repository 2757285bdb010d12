"""How soon is the served model ready, and what are its latency and throughput?

    python -m bench.serving            (a few minutes on two cores; --full: more rounds)

Ready: seconds from the start of `mlflow models serve` to the first answer, minus those of a trivial pyfunc model.
Latency: one 512 px PNG through the server, over decoding + the float32 network in onnxruntime alone in this process,
in turn. Throughput: eight clients, over the same pyfunc with torch in eager mode instead of onnxruntime, both behind
`mlflow models serve`, in turn. The fast engine: the same against the exact one. The shipped recipe at 299 px, random
weights.
"""

from __future__ import annotations

import contextlib
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
FAST_LATENCY = 0.65
THROUGHPUT = 1.8


def measure(options: Options) -> list[Row]:
    """Measure time to ready, latency and throughput."""
    rounds, n_requests = (5, 60) if options.full else (3, 30)
    files = [encode(image) for image in grey_images(8, SOURCE_PX)]
    body = request_body(files[:1])
    with tempfile.TemporaryDirectory() as folder:
        models = write_models(Path(folder) / "models")
        ready = measure_ready(models, body, rounds)
        alone = models["served"] / "artifacts" / "model.onnx"
        with _start(models, "served", body) as served:
            latency = measure_latency(alone, served.url, files, n_requests)
            with _start(models, "eager", body) as eager:
                throughput = measure_throughput("torch eager", served, eager, files, rounds)
            with _start(models, "fast", body) as fast:
                latency += measure_latency(alone, fast.url, files, n_requests, engine="fast")
                throughput += measure_throughput("the exact engine", fast, served, files, rounds)
        with _start(models, "fast", body, cores=1) as fast:
            latency += measure_latency(alone, fast.url, files, n_requests, engine="fast", cores=1)
    return [*ready, *latency, *throughput]


def _start(
    models: dict[str, Path], name: str, body: bytes, *, cores: int | None = None
) -> contextlib.AbstractContextManager[Server]:
    return serve(models[name], body, models[name].with_suffix(".log"), cores=cores)


def measure_ready(models: dict[str, Path], body: bytes, rounds: int) -> list[Row]:
    """Seconds to the first answer: the exact engine over a trivial model, the fast over the exact one."""

    def start(name: str) -> float:
        with _start(models, name, body) as server:
            return server.ready_s

    found = interleave({name: functools.partial(start, name) for name in ("served", "fast", "trivial")}, rounds)
    return [
        _more("ready: seconds more than a trivial model", found["served"], found["trivial"], READY_S),
        _more("ready: seconds more with the fast engine than with the exact one", found["fast"], found["served"], 1.0),
    ]


def _more(what: str, ours: list[float], theirs: list[float], at_most: float) -> Row:
    more = [a - b for a, b in zip(ours, theirs, strict=True)]
    return Row(
        what=what,
        ours=f"{statistics.median(ours):.2f} s",
        theirs=f"{statistics.median(theirs):.2f} s",
        ratio=statistics.median(more),
        spread=(min(more), max(more)),
        at_most=at_most,
    )


def measure_latency(
    onnx: Path, url: str, files: list[bytes], n_requests: int, *, engine: str = "", cores: int | None = None
) -> list[Row]:
    """Latency of one image over decoding and the float32 network alone, on as many cores as the server."""
    import onnxruntime

    from muralab.data.images.decode import decode, to_square
    from muralab.processor import count_cpus

    n_threads = cores or count_cpus()
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = n_threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # as the served model
    session = onnxruntime.InferenceSession(onnx, options, providers=["CPUExecutionProvider"])
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
    threads = f"{n_threads} thread{'s' * (n_threads > 1)} on each side"
    return [
        Row(
            what="latency of one 512 px image, median" + (f": {engine} engine, {threads}" if engine else ""),
            ours=f"{1000 * ours:.1f} ms",
            theirs=f"{1000 * theirs:.1f} ms",
            ratio=ours / theirs,
            spread=ratios(found["served"], found["alone"])[1],
            at_most=FAST_LATENCY if engine else LATENCY,
            note=f"{n_requests} pairs; the spread is over single pairs.",
        )
    ]


def measure_throughput(over: str, ours: Server, theirs: Server, files: list[bytes], rounds: int) -> list[Row]:
    """Images per second with eight clients, and per second of CPU time, which a busy machine does not affect."""
    bodies = [request_body([data]) for data in files] * 5
    costs: dict[Server, list[float]] = {ours: [], theirs: []}

    def load(server: Server) -> float:
        before = server.cpu_s()
        with ThreadPoolExecutor(CLIENTS) as clients, requests.Session() as session:
            session.mount("http://", requests.adapters.HTTPAdapter(pool_maxsize=CLIENTS))
            started = time.perf_counter()
            list(clients.map(lambda body: post(session, server.url, body), bodies))
            seconds = time.perf_counter() - started
        costs[server].append((server.cpu_s() - before) / len(bodies))
        return len(bodies) / seconds

    found = interleave({"ours": functools.partial(load, ours), "theirs": functools.partial(load, theirs)}, rounds)
    per_cpu = [[1 / cost for cost in costs[server][1:]] for server in (ours, theirs)]
    return [
        _throughput(f"throughput with 8 clients, over {over}", found["ours"], found["theirs"]),
        _throughput(f"the same over {over}, per second of CPU time", *per_cpu),
    ]


def _throughput(what: str, ours: list[float], theirs: list[float]) -> Row:
    ratio, spread = ratios(ours, theirs)
    medians = (f"{statistics.median(side):.1f} /s" for side in (ours, theirs))
    return Row(what=what, ours=next(medians), theirs=next(medians), ratio=ratio, spread=spread, at_least=THROUGHPUT)


if __name__ == "__main__":
    run(measure, __doc__)

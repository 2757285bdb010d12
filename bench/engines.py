"""Which engine runs the served network fastest: onnxruntime or OpenVINO, in float32, bfloat16 or 8-bit integers?

    python -m bench.engines            (some two minutes on two cores; --full: more rounds)

The shipped recipe at 299 px, random weights, its logits and features as a server asks for them. Processor time of one
and of four images on one thread, images per second of processor time with eight threads that ask at once, seconds to
open the network and run it once, and the memory that this takes (in a process of its own, beyond numpy's), each over
onnxruntime in float32. OpenVINO is no requirement: `pip install openvino==2026.4.0`, or its rows are not measured. How
accurate an engine is depends on the trained network: docs/benchmarks.md.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from bench.common import Options, Row, cpu_seconds, interleave, ratios, run
from bench.payloads import grey_images
from bench.serving_models import SIZE, build_network

EXACT = "onnxruntime float32"
ENGINES = {
    EXACT: ("onnxruntime", "exact.onnx", ""),
    "onnxruntime int8 (the fast engine)": ("onnxruntime", "fast.onnx", ""),
    "OpenVINO float32": ("openvino", "exact.onnx", "f32"),
    "OpenVINO bfloat16": ("openvino", "exact.onnx", "bf16"),
    "OpenVINO int8": ("openvino", "fast.onnx", "f32"),
}
"""Name -> library, file and OpenVINO's precision."""
OUTPUTS = ["logits", "features"]
CLIENTS = 8

Images = np.ndarray
Engine = Callable[[Images], Any]

_OPEN = """
import json, sys, time
import numpy, psutil
from bench.engines import open_engine
images = numpy.load(sys.argv[1])
before, started = psutil.Process().memory_info().rss, time.perf_counter()
open_engine(*sys.argv[2:5], threads=1)(images)
opened = time.perf_counter() - started
print(json.dumps([opened, (psutil.Process().memory_info().rss - before) / 2**20]))
"""


def open_engine(library: str, path: str | Path, precision: str, *, threads: int) -> Engine:
    """A function of images, uint8 [N, S, S], that runs a network; several threads may call it at once."""
    if library == "onnxruntime":
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
        return lambda images: session.run(OUTPUTS, {"images": images})
    import openvino

    core = openvino.Core()
    settings = {
        "INFERENCE_PRECISION_HINT": precision,
        "INFERENCE_NUM_THREADS": threads,
        "NUM_STREAMS": 1,
        "ENABLE_CPU_PINNING": False,
    }
    compiled = core.compile_model(core.read_model(path), "CPU", settings)

    def run_once(images: Images) -> list[np.ndarray]:
        found = compiled.create_infer_request().infer({"images": images})
        return [np.array(found[name]) for name in OUTPUTS]

    return run_once


def measure(options: Options) -> list[Row]:
    """Measure every engine whose library is installed."""
    from muralab.registry.export import export_onnx
    from muralab.registry.fast_engine import build_fast_engine

    images = grey_images(16, SIZE)
    installed = {name: one for name, one in ENGINES.items() if importlib.util.find_spec(one[0])}
    with tempfile.TemporaryDirectory() as text:
        folder = Path(text)
        export_onnx(build_network(), SIZE, folder / "exact.onnx", verify_images=images[:2])
        build_fast_engine(folder / "exact.onnx", folder / "fast.onnx", images)
        np.save(folder / "images.npy", images[:1])
        found = measure_times(installed, folder, images, rounds=40 if options.full else 12)
        found |= measure_opened(installed, folder, rounds=5 if options.full else 3)
    return [row for what, figures in found.items() for row in rows_of(what, figures)]


def measure_times(
    engines: dict[str, tuple[str, str, str]], folder: Path, images: Images, *, rounds: int
) -> dict[str, dict[str, list[float]]]:
    """What was measured -> engine -> processor seconds per image."""
    opened = {name: open_engine(one[0], folder / one[1], one[2], threads=1) for name, one in engines.items()}

    def of_clients(engine: Engine) -> float:
        with ThreadPoolExecutor(CLIENTS) as pool:
            return cpu_seconds(lambda: list(pool.map(engine, [images[n : n + 1] for n in range(CLIENTS)]))) / CLIENTS

    def of_batch(n: int, engine: Engine) -> float:
        return cpu_seconds(lambda: engine(images[:n])) / n

    works: dict[str, Callable[[Engine], float]] = {
        "one image": functools.partial(of_batch, 1),
        "four images, per image": functools.partial(of_batch, 4),
        f"{CLIENTS} threads at once, per image": of_clients,
    }
    return {
        what: interleave({name: functools.partial(work, engine) for name, engine in opened.items()}, rounds)
        for what, work in works.items()
    }


def measure_opened(
    engines: dict[str, tuple[str, str, str]], folder: Path, *, rounds: int
) -> dict[str, dict[str, list[float]]]:
    """What was measured -> engine -> seconds to open it and to run it once, and MiB of memory."""
    memory: dict[str, list[float]] = {name: [] for name in engines}

    def open_once(name: str) -> float:
        library, file, precision = engines[name]
        command = [sys.executable, "-c", _OPEN, str(folder / "images.npy"), library, str(folder / file), precision]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        seconds, mib = json.loads(done.stdout)
        memory[name].append(mib)
        return float(seconds)

    found = interleave({name: functools.partial(open_once, name) for name in engines}, rounds, warm_up=0)
    return {"open and first run": found, "memory": memory}


def rows_of(what: str, figures: dict[str, list[float]]) -> list[Row]:
    """One row per engine; those that are not installed say so."""
    form = "{:.0f} MiB" if what == "memory" else "{:.2f} s" if what.startswith("open") else "{:.4f} s"
    theirs = form.format(statistics.median(figures[EXACT]))
    rows = []
    for name in ENGINES:
        if name == EXACT:
            continue
        if name not in figures:
            rows.append(Row(what=f"{name}: {what}", ours="", theirs=theirs, ratio=float("nan")))
            continue
        ratio, spread = ratios(figures[name], figures[EXACT])
        ours = form.format(statistics.median(figures[name]))
        rows.append(Row(what=f"{name}: {what}", ours=ours, theirs=theirs, ratio=ratio, spread=spread))
    return rows


if __name__ == "__main__":
    run(measure, __doc__)

"""How long would the audit of all of MURA take, and what does one pass for the audit and the caches save?

    python -m bench.audit            (about a minute on two cores; --full: ten, and 4 GB of disk)

The first row compares one pass over the files for two image sizes and the audit, as in `tune`, with a separate pass for
each of the three, in CPU time of both threads, with empty caches. The second row is the audit alone.

With --full, 40,000 PNGs of MURA's usual size are written and audited as `explore` does it. Without it, the time is
estimated. Reading, decoding and hashing cost the same for every file: they are timed on a few PNGs with two threads, at
two numbers of files in turn, so that growth worse than linear shows (medians). The comparison of files with each other
(duplicates, outliers) is timed at the full 40,000 on synthetic facts: images that share their layout, as radiographs of
one part do. The estimate is the sum; on a busy machine the CPU time shows what two idle cores would take.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from PIL import Image

from bench.common import Options, Row, cpu_seconds, interleave, ratios, run
from muralab.data.audit.facts import THUMBNAIL, FileFacts, collect_facts, perceptual_hash
from muralab.data.audit.findings import find_all
from muralab.data.audit.report import audit_images
from muralab.data.cache import open_cache, open_caches

N_MURA = 40_000
WIDTH, HEIGHT = 512, 420  # px; MURA's longer side is 512
THREADS = 2
TARGET_S = 120.0
PLANTED = 200
SIZES = (112, 128)
N_PASSES = 400
MOST_OF_SEPARATE = 0.65


def shape(rng: np.random.Generator, width: int, height: int) -> np.ndarray:
    """A bright, soft-edged limb on a dark background, float [H, W]; shapes resemble each other as radiographs do."""
    rows, columns = np.mgrid[0:height, 0:width].astype(np.float32)
    centre, slope = rng.normal(width / 2, width / 12), rng.normal(0, 0.15)
    distance = np.abs(columns - centre - slope * (rows - height / 2)) / (width * rng.uniform(0.15, 0.3))
    texture = cv2.resize(rng.normal(0, 25, (8, 8)).astype(np.float32), (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(np.clip(190 * np.exp(-(distance**2)) + texture, 0, 255))


def write_tree(root: Path, n_images: int) -> pd.DataFrame:
    """Write PNGs with grain and return their index, in the form that `read_index` returns."""
    rng = np.random.default_rng(0)
    for image in (table := build_index(n_images, root))["path"]:
        picture = np.clip(shape(rng, WIDTH, HEIGHT) + rng.normal(0, 1.5, (HEIGHT, WIDTH)), 0, 255).astype(np.uint8)
        Path(image).parent.mkdir(parents=True)
        Image.fromarray(picture).save(image)
    return table


def write_large_tree(root: Path, n_images: int) -> pd.DataFrame:
    """The same for tens of thousands of files, faster: 200 shapes, shifted and with new grain for each file."""
    shapes = [shape(np.random.default_rng(number), WIDTH, HEIGHT).astype(np.uint8) for number in range(200)]

    def write(row: tuple[int, str]) -> None:
        number, path = row
        rng = np.random.default_rng(number)
        picture = np.roll(shapes[number % len(shapes)], rng.integers(-150, 150, 2), axis=(0, 1))
        picture ^= rng.integers(0, 8, picture.shape, dtype=np.uint8)
        Path(path).parent.mkdir(parents=True)
        cv2.imwrite(path, picture, [cv2.IMWRITE_PNG_COMPRESSION, 1])

    table = build_index(n_images, root)
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(write, enumerate(table["path"])))
    return table


def build_index(n_images: int, root: Path) -> pd.DataFrame:
    """The index of a tree with one image per patient."""
    patients = [f"patient{number:05d}" for number in range(n_images)]
    splits = ["train" if number % 12 else "valid" for number in range(n_images)]
    studies = [f"{split}/XR_WRIST/{patient}/study1_negative" for split, patient in zip(splits, patients)]
    images = [f"{study}/image1.png" for study in studies]
    paths = [f"{root}/{image}" for image in images]
    columns = {"split": splits, "part": "wrist", "patient": patients, "study": studies, "image": images, "label": 0}
    return pd.DataFrame({**columns, "path": paths})


def synthetic_facts(n_images: int) -> list[FileFacts]:
    """Facts of images with a similar layout, with `PLANTED` near-duplicates among them."""
    rng = np.random.default_rng(1)
    facts = []
    for number in range(n_images):
        thumbnail = shape(rng, THUMBNAIL, THUMBNAIL).astype(np.uint8)
        facts.append(
            FileFacts(
                digest=f"{number:032x}",
                form="8-bit grey",
                cut_short=False,
                pixels=f"{number:032x}",
                width=WIDTH,
                height=HEIGHT,
                brightness=float(thumbnail.mean()),
                spread=float(thumbnail.std()),
                hash=perceptual_hash(thumbnail),
                thumbnail=thumbnail.tobytes(),
            )
        )
    facts[-PLANTED:] = [replace(facts[place], digest=f"d{place}", pixels=f"d{place}") for place in range(PLANTED)]
    return facts


def cost_per_image(n_images: int) -> tuple[float, float]:
    """Wall time and CPU time per image, in seconds."""
    with tempfile.TemporaryDirectory() as folder:
        table = write_tree(Path(folder) / "MURA-v1.1", n_images)
        started, cpu_started = time.perf_counter(), time.process_time()
        audit_images(table, folder=Path(folder) / "audit", workers=THREADS)
        return (time.perf_counter() - started) / n_images, (time.process_time() - cpu_started) / n_images


def measure_costs(sizes: tuple[int, int], rounds: int) -> dict[int, tuple[float, float]]:
    """Median wall and CPU time per image at each number of files."""
    cost_per_image(sizes[0] // 4)  # warm-up
    costs: dict[int, list[tuple[float, float]]] = {n_images: [] for n_images in sizes}
    for _ in range(rounds):
        for n_images in sizes:
            costs[n_images].append(cost_per_image(n_images))
    medians = {}
    for n_images, pairs in costs.items():
        wall_s, cpu_s = (statistics.median(column) for column in zip(*pairs))
        medians[n_images] = (wall_s, cpu_s)
        print(
            f"  {n_images:5d} files of {WIDTH} x {HEIGHT} px, {THREADS} threads: {wall_s * 1000:.2f} ms per image, "
            f"{cpu_s * 1000:.2f} ms of CPU time"
        )
    return medians


def one_pass(table: pd.DataFrame, folder: Path) -> None:
    """Read each file once for all sizes and the audit."""
    facts: dict[str, FileFacts] = {}
    open_caches(table, sizes=SIZES, folder=folder, workers=THREADS, inspect=collect_facts(facts))
    audit_images(table, folder=folder, facts=facts, workers=THREADS)


def separate_passes(table: pd.DataFrame, folder: Path) -> None:
    """Read each file once per size and once for the audit."""
    for size in SIZES:
        open_cache(table, size=size, folder=folder, workers=THREADS)
    audit_images(table, folder=folder, workers=THREADS)


def measure_passes(rounds: int) -> Row:
    """CPU time of one pass over that of separate passes."""

    def cold(work: Callable[[pd.DataFrame, Path], None]) -> float:
        with tempfile.TemporaryDirectory() as folder:
            return cpu_seconds(lambda: work(table, Path(folder)))

    with tempfile.TemporaryDirectory() as root:
        table = write_tree(Path(root) / "MURA-v1.1", N_PASSES)
        found = interleave({"one": lambda: cold(one_pass), "separate": lambda: cold(separate_passes)}, rounds)
    ratio, spread = ratios(found["one"], found["separate"])
    one_ms, separate_ms = (1000 * statistics.median(values) / N_PASSES for values in found.values())
    return Row(
        what=f"one pass: {SIZES[0]} px, {SIZES[1]} px and the audit of {N_PASSES} PNGs",
        ours=f"{one_ms:.2f} ms per image",
        theirs=f"three passes {separate_ms:.2f} ms",
        ratio=ratio,
        spread=spread,
        at_most=MOST_OF_SEPARATE,
    )


def measure_full_audit() -> Row:
    """Time of the first audit of as many files as MURA has."""
    with tempfile.TemporaryDirectory() as folder:
        table = write_large_tree(Path(folder) / "MURA-v1.1", N_MURA)
        started, cpu_started = time.perf_counter(), time.process_time()
        audit = audit_images(table, folder=Path(folder) / "audit", workers=THREADS)
        wall_s, cpu_s = time.perf_counter() - started, time.process_time() - cpu_started
    return Row(
        what=f"audit: {audit.n_images:,} images, {THREADS} threads",
        ours=f"{wall_s:.0f} s",
        theirs=f"limit {TARGET_S:.0f} s",
        ratio=wall_s / TARGET_S,
        at_most=1.0,
        note=f"{cpu_s:.0f} s of CPU time; {len(audit.findings)} findings among images of 200 shapes",
    )


def measure(options: Options) -> list[Row]:
    """The time for all of MURA: measured with --full, otherwise estimated."""
    sizes, rounds = (100, 400), 3
    cv2.setNumThreads(1)
    if options.full:
        return [measure_passes(2 * rounds), measure_full_audit()]
    costs = measure_costs(sizes, rounds)
    table, facts = build_index(N_MURA, Path("/MURA-v1.1")), synthetic_facts(N_MURA)
    started, cpu_started = time.perf_counter(), time.process_time()
    findings = find_all(table, facts)
    compare_s, compare_cpu_s = time.perf_counter() - started, time.process_time() - cpu_started
    found = sum(len(finding.images) > 1 for finding in findings)
    wall_s, cpu_s = costs[sizes[1]]
    total_s, free_s = wall_s * N_MURA + compare_s, cpu_s / THREADS * N_MURA + compare_cpu_s
    growth = costs[sizes[1]][1] / costs[sizes[0]][1]
    return [
        measure_passes(rounds),
        Row(
            what=f"audit: {N_MURA:,} images, {THREADS} threads (estimated from {sizes[1]} files)",
            ours=f"{total_s:.0f} s",
            theirs=f"limit {TARGET_S:.0f} s",
            ratio=total_s / TARGET_S,
            at_most=1.0,
            note=f"{free_s:.0f} s by CPU time, {compare_s:.0f} s of it to compare all files ({found} of {PLANTED} "
            f"planted near-duplicates found); a file costs {growth:.2f} times as much among {sizes[1]} as among "
            f"{sizes[0]}",
        ),
    ]


if __name__ == "__main__":
    run(measure, __doc__)

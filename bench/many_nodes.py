"""What does a cluster cost: a sweep on three Ray nodes against one node, and the memory of a node?

    python -m bench.many_nodes       (about five minutes on two cores; --full: three rounds, up to twelve nodes)

All nodes are on this machine, so this is the overhead of a cluster and not its gain. Three nodes of one core each, and
one node of three, run the same sweep of sleeping trials, three at a time, with a folder as storage; each round starts
both clusters anew, in turn. Their records have to be equal. Memory: the proportional set size (PSS) of everything that
a node without trials consists of, so that shared libraries count once.
"""

from __future__ import annotations

import contextlib
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil

from bench.common import Options, Row, interleave, ratios, run
from bench.data import write_tree
from bench.measured_sweep import MeasuredSweep, run_sweep
from muralab.tracking import open_store
from tests.cluster.nodes import TOKEN, RayNodes
from tests.fixtures.record import differences, record_of
from tests.fixtures.runs import find_runs

N_TRIALS, N_IMAGES = 12, 120
SLEEP = ("--epochs", "1+3", "--set", "model.wait_s=0.4", "--pruning", "off", "--cpus-per-trial", "1")
"""Four epochs of six steps: about ten seconds per trial."""
MOST_OVERHEAD = 1.15
LEAST_FREE_BYTES = 8 * 2**30
MACHINE_BYTES = 16 * 2**30
SETTLED_S = 5.0


@contextlib.contextmanager
def cluster(n_nodes: int, cores: int) -> Iterator[RayNodes]:
    """Start nodes of some cores each, and end them at the end of the block."""
    with RayNodes({}, cores=cores) as nodes:
        for number in range(n_nodes):
            nodes.start(f"127.0.0.{number + 2}")
        yield nodes


class Sides:
    """The same sweep on both clusters; keeps what each sweep recorded and measured."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.tree = folder, folder / "MURA-v1.1"
        write_tree(self.tree, N_IMAGES)
        self.stores: list[str] = []
        self.swept: dict[str, list[MeasuredSweep]] = {}

    def sweep(self, name: str, n_nodes: int, cores: int) -> float:
        """Sweep on a new cluster; returns the seconds of the search."""
        own = self.folder / f"{len(self.stores)}"
        (own / "storage").mkdir(parents=True)
        self.stores.append(f"sqlite:///{own / 'mlflow.db'}")
        with cluster(n_nodes, cores) as nodes:
            options = (*SLEEP, "--ray-address", nodes.address, "--storage", str(own / "storage"))
            swept = run_sweep(own, self.tree, self.stores[-1], N_TRIALS, *options, RAY_AUTH_TOKEN=TOKEN)
        self.swept.setdefault(name, []).append(swept)
        return swept.search_s

    def differences(self) -> list[str]:
        """What differs between the records of any two sweeps."""
        records = [record_of(store, find_runs(store)) for store in map(open_store, self.stores)]
        return [line for other in records[1:] for line in differences(records[0], other)]


def overhead_row(rounds: int) -> Row:
    """Three nodes against one."""
    with tempfile.TemporaryDirectory() as name:
        sides = Sides(Path(name))
        found = interleave(
            {"three": lambda: sides.sweep("three", 3, 1), "one": lambda: sides.sweep("one", 1, 3)}, rounds, warm_up=0
        )
        different = sides.differences()
    ratio, spread = ratios(found["three"], found["one"])
    times = {name: [one.total_s for one in swept] for name, swept in sides.swept.items()}
    whole, _ = ratios(times["three"], times["one"])
    return Row(
        what=f"scale: {N_TRIALS} sleeping trials on 3 nodes of 1 core, over 1 node of 3 cores",
        ours=" / ".join(f"{s:.1f} s" for s in found["three"]),
        theirs=" / ".join(f"{s:.1f} s" for s in found["one"]),
        ratio=ratio,
        spread=spread,
        at_most=MOST_OVERHEAD,
        note=f"the whole command {whole:.3f}; "
        + ("records equal" if not different else f"{len(different)} differences, the first: {different[0]}"),
    )


def pss_mib(nodes: RayNodes) -> float:
    """Proportional memory of all processes of a cluster."""
    total = 0
    for process in nodes.processes.values():
        for one in [top := psutil.Process(process.pid), *top.children(recursive=True)]:
            with contextlib.suppress(psutil.Error):
                total += one.memory_full_info().pss
    return total / 2**20


def node_memory(numbers: list[int]) -> dict[int, float]:
    """Number of nodes -> MiB of the cluster; stops where the machine has little memory left."""
    found: dict[int, float] = {}
    with RayNodes({}) as nodes:
        for number in range(1, max(numbers) + 1):
            if psutil.virtual_memory().available < LEAST_FREE_BYTES:
                break
            nodes.start(f"127.0.0.{number + 1}")
            if number in numbers:
                time.sleep(SETTLED_S)
                found[number] = pss_mib(nodes)
                print(f"{number} nodes: {found[number]:.0f} MiB", file=sys.stderr, flush=True)
    return found


def memory_row(numbers: list[int]) -> Row:
    """Memory per further node, and how many would fit."""
    found = node_memory(numbers)
    per_node, first = np.polyfit(list(found), list(found.values()), 1)
    fit = int((MACHINE_BYTES / 2**20 - first) // per_node)
    return Row(
        what="scale: memory of an idle Ray node",
        ours=f"{per_node:.0f} MiB",
        theirs=f"{first:.0f} MiB more for the head",
        ratio=per_node,
        note=" / ".join(f"{mib:.0f} MiB" for mib in found.values())
        + f" for {' / '.join(map(str, found))} nodes; 16 GiB would hold {fit} without trials (extrapolated)",
    )


def measure(options: Options) -> list[Row]:
    """Measure the overhead, then the memory."""
    return [
        overhead_row(3 if options.full else 1),
        memory_row([1, 3, 6, 12] if options.full else [1, 3]),
    ]


if __name__ == "__main__":
    run(measure, __doc__)

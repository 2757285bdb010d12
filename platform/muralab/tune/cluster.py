"""The cluster that a search runs on: what its nodes have, and whether they fit, before anything starts."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import selectors
import socket
import subprocess
import sys
import time
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import muralab
from muralab.config.commands import TuneConfig
from muralab.config.parsing import LOCAL
from muralab.config.search import Machine, recipe_names_of
from muralab.config.training_options import TrainingOptions
from muralab.errors import ClusterError, SettingsError, numbered
from muralab.redaction import redact
from muralab.storage import Storage
from muralab.tune.node_fitness import own_versions
from muralab.tune.ray_cluster import NODES_ANSWER_S
from muralab.tune.ray_handle import EarlyRay, ray_environment
from muralab.tune.ray_token import explain_no_token

PROGRAM = "from muralab.tune.ray_cluster import main; main()"
CONNECT_S = 60.0
"""Where something listens and does not refuse: refusals are recognised within seconds, a busy head takes long."""
START_S = 60.0
"""To import Ray, before the connection; a busy machine takes long."""
SLACK_S = 10.0
PORT_S = 5.0
MODULES_BYTES = 2 * 2**20


def is_on_cluster(options: TrainingOptions) -> bool:
    """Whether the trials run on an existing cluster, and not on a Ray of this machine's own."""
    return getattr(options, "ray_address", LOCAL) != LOCAL


def early_ray(options: TrainingOptions, *, is_dry_run: bool) -> EarlyRay:
    """Ray, started early if a command will need one of its own."""
    return EarlyRay(is_wanted=not (is_dry_run or is_on_cluster(options)), with_gpus=options.gpus_per_trial != 0)


def machines_of(options: TuneConfig, recipes: Sequence[str] | None = None) -> tuple[Machine, ...]:
    """The nodes that a search may use; empty: this machine.

    Args:
        options: of the search.
        recipes: names, or ("all",); None: those of the options.

    Raises:
        ClusterError: the cluster cannot be used.
        SettingsError: the cluster has no storage.
    """
    if not is_on_cluster(options):
        return ()
    if options.storage is None:
        raise SettingsError(f"ray_address={options.ray_address}: give storage=, which its nodes share.")
    names = options.recipes if recipes is None else recipes
    return find_nodes(
        options.ray_address,
        Storage(options.storage),
        recipe_names_of(names),
        gpu_trials=options.gpus_per_trial != 0,
    )


def find_nodes(
    address: str, storage: Storage, recipes: Iterable[str], *, gpu_trials: bool = False
) -> tuple[Machine, ...]:
    """Connect to a cluster, check every node, and return those that run trials.

    Args:
        address: `auto`, or host:port.
        storage: that the nodes must reach.
        recipes: names of the recipes whose code travels to the nodes.
        gpu_trials: whether trials use the GPUs of nodes that have some.

    Raises:
        ClusterError: it cannot be reached, refuses this machine, or has nodes that do not fit: one sentence each.
    """
    with storage.witness() as witness:
        job = {
            "address": address,
            "modules": code_modules(recipes),
            "storage": storage.uri,
            "witness": witness,
            "packages": own_versions(),
            "gpu_trials": gpu_trials,
        }
        found = _run_probe(job)
    if found["problems"]:
        unfit = found["problems"]
        some = f"{len(unfit)} node{'s' * (len(unfit) > 1)} cannot train:"
        text = numbered(f"ray_address={address}: {some}", unfit)
        raise ClusterError(f"{text}\nFix that, or do without: stop Ray there (`ray stop` on the node).")
    nodes = tuple(
        Machine(name=node["name"], cpus=node["cpus"], gpus=node["gpus"], memory_bytes=node["memory_bytes"])
        for node in sorted(found["nodes"], key=lambda node: str(node["name"]))
    )
    if not nodes:
        raise ClusterError(f"ray_address={address}: no node of this cluster has a CPU for trials.")
    return nodes


def code_modules(recipes: Iterable[str]) -> list[str]:
    """The packages that a node needs: the platform, the recipes, and the packages of outside recipes.

    Raises:
        ClusterError: together they are larger than code should be.
    """
    platform = Path(muralab.__file__).parent
    found = [platform, _top_level("recipes"), *(_top_level(name) for name in recipes if "." in name)]
    modules = list(dict.fromkeys(found))
    sizes = {path: _code_bytes(path) for path in modules}
    if sum(sizes.values()) > MODULES_BYTES:
        listed = ", ".join(f"{path} {n_bytes / 2**20:.1f} MiB" for path, n_bytes in sizes.items())
        raise ClusterError(
            f"The code for the cluster's nodes takes more than {MODULES_BYTES / 2**20:.0f} MiB ({listed}). Keep data "
            "and results out of the recipe's package."
        )
    return [str(path) for path in modules]


def _top_level(name: str) -> Path:
    spec = importlib.util.find_spec(name.partition(".")[0])
    assert spec is not None  # the recipes have been loaded
    if spec.submodule_search_locations:
        return Path(next(iter(spec.submodule_search_locations)))
    return Path(str(spec.origin))


def _code_bytes(path: Path) -> int:
    """About as many bytes as travel: code is compressed to less than half."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if "__pycache__" not in file.parts]
    return sum(file.stat().st_size for file in files if file.is_file()) // 2


def _check_port(address: str) -> None:
    """Find out at once whether anything listens at host:port: Ray would try for long.

    Raises:
        ClusterError: nothing does.
    """
    host, colon, port = address.rpartition(":")
    if not colon:
        return
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=PORT_S).close()
    except OSError as error:
        raise ClusterError(
            f"ray_address={address}: nothing answers there ({error}). Is the cluster up, and is this the address and "
            "the port of its head (6379, unless `ray start --port` says otherwise)?"
        ) from error


def _run_probe(job: dict[str, Any]) -> dict[str, Any]:
    """What the program of `ray_cluster` found out; it is ended once the cluster's answer is clear, or is too late."""
    _check_port(job["address"])
    process = subprocess.Popen(
        [sys.executable, "-c", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=ray_environment(),
        start_new_session=True,
    )
    try:
        assert process.stdin is not None
        process.stdin.write(json.dumps(job).encode() + b"\n")
        process.stdin.flush()
        return _listen(process, str(job["address"]))
    finally:
        process.kill()
        process.wait()


def _listen(process: subprocess.Popen[bytes], address: str) -> dict[str, Any]:
    assert process.stdout is not None
    os.set_blocking(process.stdout.fileno(), False)
    deadline_s = time.monotonic() + START_S
    text, rest, is_connected = "", "", False
    with selectors.DefaultSelector() as selector:
        selector.register(process.stdout, selectors.EVENT_READ)
        while time.monotonic() < deadline_s:
            if not selector.select(deadline_s - time.monotonic()):
                continue
            part = process.stdout.read()
            text += (part or b"").decode(errors="replace")
            lines, complete, rest = (rest + (part or b"").decode(errors="replace")).rpartition("\n")
            for answer in _answers(lines + complete):
                if "nodes" in answer:
                    return answer
                limit_s = NODES_ANSWER_S + SLACK_S if "connected" in answer else CONNECT_S
                deadline_s = time.monotonic() + limit_s
                is_connected = is_connected or "connected" in answer
            if not is_connected and (refusal := explain_refusal(text, address)):
                raise ClusterError(refusal)
            if part == b"":
                break
    raise ClusterError(explain_silence(text, address, is_connected=is_connected))


def _answers(text: str) -> list[dict[str, Any]]:
    """The lines of JSON among what Ray writes."""
    return [json.loads(line) for line in text.splitlines() if line.startswith('{"') and line.endswith("}")]


def explain_refusal(text: str, address: str) -> str:
    """What a cluster's refusal means; empty while there is none.

    Args:
        text: everything that Ray has written so far.
        address: of the cluster.
    """
    start = f"ray_address={address}: "
    if re.search(r"unauthenticated|invalidauthtoken|authenticationerror|invalid auth", text, re.IGNORECASE):
        return f"{start}{explain_no_token(os.environ)}"
    mismatch = re.search(
        r"Version mismatch: .*?Ray: (\S+)\s+Python: (\S+).*?Ray: (\S+)\s+Python: (\S+)",
        text,
        re.DOTALL,
    )
    if mismatch:
        theirs, their_python, ours, our_python = mismatch.groups()
        return (
            f"{start}the cluster runs Ray {theirs} on Python {their_python}, this machine Ray {ours} on Python "
            f"{our_python}. Both must be the same, Python down to its last digit."
        )
    return ""


def explain_silence(text: str, address: str, *, is_connected: bool) -> str:
    """Why nothing came of a connection, as far as Ray's output shows it."""
    start = f"ray_address={address}: "
    if is_connected:
        return f"{start}the cluster's nodes did not answer within {NODES_ANSWER_S:.0f} s."
    if "Could not find any running Ray instance" in text:
        return f"{start}no Ray runs on this machine. Start the command on a node of the cluster, such as its head."
    lines = [line.strip() for line in text.splitlines() if "Error" in line or "error" in line]
    last = f" Ray wrote: {redact(lines[-1])[:300]}" if lines else ""
    return (
        f"{start}the cluster did not answer within {CONNECT_S:.0f} s. Is the address that of its head, and does this "
        f"command run on one of its nodes?{last}"
    )


def node_list(nodes: Sequence[Machine]) -> str:
    """Nodes in one line, such as `gpu1 (32 cores, 2 GPUs), gpu2 (16 cores)`."""
    return ", ".join(
        f"{node.name} ({node.cpus} core{'s' * (node.cpus != 1)}"
        f"{f', {node.gpus} GPU' + 's' * (node.gpus != 1) if node.gpus else ''})"
        for node in nodes
    )

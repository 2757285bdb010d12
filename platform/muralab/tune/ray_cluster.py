"""A connection to Ray: to one of our own on this machine, or to a cluster that exists; and the program that checks one.

It never stops or configures a cluster that is not its own: it connects, reads what its nodes have, and disconnects.
"""

from __future__ import annotations

import json
import os
import sys
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from muralab.config.parsing import LOCAL
from muralab.tune.node_fitness import node_problems
from muralab.tune.ray_token import use_token

OBJECT_STORE_BYTES = 80 * 2**20
"""Trials exchange names and numbers, never pictures; Ray's default is a third of the machine, its minimum 75 MiB."""
NODES_ANSWER_S = 60.0
"""A node has to start a process and to unpack our modules."""
FOR_THE_COMMAND = (
    "MLFLOW_TRACKING_URI",
    "MLFLOW_REGISTRY_URI",
    "MLFLOW_TRACKING_USERNAME",
    "MLFLOW_TRACKING_PASSWORD",
    "MLFLOW_TRACKING_TOKEN",
    "MLFLOW_TRACKING_AUTH",
    "MLFLOW_TRACKING_CLIENT_CERT_PATH",
    "MLFLOW_S3_ENDPOINT_URL",
    "PGPASSWORD",
    "PGPASSFILE",
)
"""Of `OF_THE_STORE`; a cluster's node may have been started from a shell that had them; its trials see them empty."""
SYSTEM = {"prestart_worker_first_driver": False}
"""Ray would start an idle process of 60 MB for each core, though the trials that run at once are fewer."""
QUIET = {
    "RAY_CHDIR_TO_TRIAL_DIR": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "RAY_worker_niceness": "0",  # at Ray's 15, one busy process of another program takes a trial's core
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S": "0",
}


@contextmanager
def own_ray(cpus: int, gpus: int, folder: str) -> Iterator[None]:
    """A Ray of our own for as long as the search lasts, quiet and without a dashboard, with its files in a folder."""
    os.environ.update(QUIET)
    # Without a token in the environment, Ray writes one into the home folder.
    os.environ["RAY_AUTH_TOKEN"] = os.environ.get("RAY_AUTH_TOKEN", uuid.uuid4().hex)
    import ray

    ray.init(
        address=LOCAL,
        num_cpus=cpus,
        num_gpus=gpus,
        include_dashboard=False,
        log_to_driver=False,
        logging_level="error",
        object_store_memory=OBJECT_STORE_BYTES,
        _temp_dir=folder,
        _system_config=SYSTEM,
    )
    yield
    ray.shutdown()


@contextmanager
def existing_ray(address: str, modules: Sequence[str], on_import: Callable[[], None] = lambda: None) -> Iterator[None]:
    """A connection to a cluster that exists, with its token; our modules travel to its nodes.

    Args:
        address: `auto`, or host:port.
        modules: folders of packages, and files of modules.
        on_import: called once Ray is imported, before the connection.
    """
    os.environ.update(QUIET)
    use_token(os.environ)  # Ray reads its environment when it is imported
    import ray

    on_import()
    ray.init(
        address=address,
        log_to_driver=False,
        logging_level="error",
        runtime_env={
            "py_modules": list(modules),
            "env_vars": {
                **{key: QUIET[key] for key in ("RAY_CHDIR_TO_TRIAL_DIR", "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO")},
                **dict.fromkeys(FOR_THE_COMMAND, ""),
            },
        },
    )
    yield
    ray.shutdown()


def node_names() -> dict[str, str]:
    """Id of every living node -> what people call it: its host's name, or its address where a host has several."""
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"]]
    hosts = [node["NodeManagerHostname"] for node in nodes]
    return {
        node["NodeID"]: host if hosts.count(host) == 1 else str(node["NodeManagerAddress"])
        for node, host in zip(nodes, hosts, strict=True)
    }


def main() -> None:
    """Connect to a cluster, ask every node what it has, and print one line of JSON: `nodes` and `problems`."""
    job = json.loads(sys.stdin.readline())
    with existing_ray(job["address"], job["modules"], on_import=lambda: _print(connecting=True)):
        import ray

        _print(connected=True)
        names = node_names()
        nodes = [
            {
                "name": names[node["NodeID"]],
                "id": node["NodeID"],
                "cpus": int(node["Resources"].get("CPU", 0)),
                "gpus": int(node["Resources"].get("GPU", 0)),
                "memory_bytes": int(node["Resources"].get("memory", 0)),
            }
            for node in ray.nodes()
            if node["Alive"]
        ]
        able = [node for node in nodes if node["cpus"] > 0]  # others run no trials, such as a head that only schedules
        problems, gone = _ask(able, job)
        _print(nodes=[node for node in able if node["id"] not in gone], problems=problems)


def _print(**answer: Any) -> None:
    print(json.dumps(answer), flush=True)


def _ask(nodes: Sequence[Mapping[str, Any]], job: Mapping[str, Any]) -> tuple[list[str], set[str]]:
    """A sentence for each node that does not fit; and the ids of nodes that have died and that Ray still lists."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    task = ray.remote(num_cpus=0, max_retries=0)(node_problems)
    asked = {
        task.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["id"], soft=False)).remote(
            job["packages"],
            job["storage"],
            witness=job["witness"],
            needs_gpu=job["gpu_trials"] and node["gpus"] > 0,
        ): node
        for node in nodes
    }
    deadline_s = time.monotonic() + NODES_ANSWER_S
    problems: list[str] = []
    gone: set[str] = set()
    for answer, node in asked.items():
        try:
            found = ray.get(answer, timeout=max(0.1, deadline_s - time.monotonic()))
        except ray.exceptions.GetTimeoutError:
            found = [f"did not answer within {NODES_ANSWER_S:.0f} s"]
        except (ray.exceptions.TaskUnschedulableError, ray.exceptions.NodeDiedError):
            gone.add(node["id"])
            continue
        except ray.exceptions.RayError as error:
            found = [str(error).strip().splitlines()[-1]]
        if found:
            problems.append(f"{node['name']}: {'; '.join(found)}.")
    return problems, gone

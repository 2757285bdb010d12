"""A trial where it runs: on this machine in the search's own folders, or on a node of a cluster from its storage.

What reaches a node names files relative to the storage and to the node's cache (`portable`). The node keeps decoded
squares and weights in its cache, keyed by their content, so it needs neither the radiographs nor the search's folders;
the trial itself runs in a temporary folder and uploads every epoch (`stored_epochs`).
"""

from __future__ import annotations

import os
import signal
import tempfile
import threading
from collections.abc import Generator, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from muralab.data.cache import squares_files
from muralab.data.images.value_range import range_from_text
from muralab.data.squares_check import is_intact
from muralab.disk import disk_problem
from muralab.errors import MuraLabError, StorageError, StorageUnavailableError, UnfitNodeError
from muralab.experiment import run_trial
from muralab.heartbeat import HEARTBEAT, start_heartbeat
from muralab.paths import cache_folder, know_the_user
from muralab.scratch import scratch_folder
from muralab.storage import Storage, patiently
from muralab.training.trainer import EpochResult
from muralab.training.weights import file_digest
from muralab.trial import TrialSpec, read_table, recipes_of
from muralab.tune.folders import PIXELS, TRIALS, Folders
from muralab.tune.node_cache import fetch_intact
from muralab.tune.node_fitness import own_problems
from muralab.tune.portable import to_local
from muralab.tune.stored_epochs import OUTAGE_S, EpochUploader, fetch_newest, keep_epochs
from muralab.tune.watchdog import LOOK_EVERY_S, Watchdog

Epochs = Generator[EpochResult]


@contextmanager
def open_trial(config: Mapping[str, Any]) -> Iterator[tuple[TrialSpec, Epochs]]:
    """A trial's specification with the paths of this machine, and its epochs.

    Args:
        config: `spec` and `usual_epoch_s`, and for a trial on a cluster the URI of the `storage`, the `sweep`'s folder
            there, the versions of `packages` that it needs, whether this may be another
            machine than the command's (`is_cluster`), and whether it `needs_gpu`.

    Raises:
        UnfitNodeError: this node of a cluster cannot train.
        StorageUnavailableError: the storage has not answered for `OUTAGE_S`.
        MuraLabError: see `run_trial`; the storage lacks something.
    """
    opened = _open_on_node if config.get("storage") else _open_here
    with opened(config) as (spec, epochs), closing(epochs):
        yield spec, epochs


@contextmanager
def _open_here(config: Mapping[str, Any]) -> Iterator[tuple[TrialSpec, Epochs]]:
    spec = TrialSpec(**config["spec"])
    start_heartbeat(Path(spec.folder) / HEARTBEAT)
    yield spec, run_trial(spec)


@contextmanager
def _open_on_node(config: Mapping[str, Any]) -> Iterator[tuple[TrialSpec, Epochs]]:
    if config["is_cluster"]:
        _require_fit_node(config)
    storage, sweep = _open_storage(config), config["sweep"]
    cache = cache_folder()
    know_the_user(cache)
    with scratch_folder() as scratch:
        spec = TrialSpec(**to_local(dict(config["spec"]), Folders(cache=cache, sweep=scratch)))
        patiently(lambda: fetch_inputs(storage, sweep, spec, cache), OUTAGE_S)
        folder = f"{sweep}/{TRIALS}/{spec.name}"
        done = patiently(lambda: fetch_newest(storage, folder, Path(spec.folder)), OUTAGE_S)
        start_heartbeat(Path(spec.folder) / HEARTBEAT)
        with (
            _ending_if_hanging(spec, config["usual_epoch_s"]) as watched,
            EpochUploader(storage, folder, Path(spec.folder), uploaded=done) as uploader,
        ):
            yield spec, keep_epochs(watched(run_trial(spec)), uploader)


_fit_for: set[str] = set()
"""Searches for which this process has found its node fit: it runs one trial after the other."""


def _require_fit_node(config: Mapping[str, Any]) -> None:
    """Check a node that may have joined after the others were checked; see `_check_node`."""
    if config["sweep"] not in _fit_for:
        _check_node(config)
        _fit_for.add(config["sweep"])


def _check_node(config: Mapping[str, Any]) -> None:
    """Check this node of a cluster.

    Raises:
        UnfitNodeError: it cannot train.
        StorageUnavailableError: the storage does not answer, which is not a fault of this node.
    """
    if problems := own_problems(config["packages"], needs_gpu=config["needs_gpu"]):
        raise UnfitNodeError("; ".join(problems))
    try:
        _open_storage(config).check(_witness(config), patience_s=OUTAGE_S)
    except StorageUnavailableError:
        raise
    except MuraLabError as error:
        raise UnfitNodeError(str(error)) from error


def _open_storage(config: Mapping[str, Any]) -> Storage:
    return patiently(lambda: Storage(config["storage"]), OUTAGE_S)  # Arrow may ask Amazon for the bucket's region


def _witness(config: Mapping[str, Any]) -> str:
    """A file that only this search has written, so that it is in no other folder or bucket of the storage's name."""
    return f"{config['sweep']}/{Path(config['spec']['table']).name}"


def why_unfit(error: Exception, config: Mapping[str, Any]) -> str:
    """Why this node cannot train, if that is what ended a trial; empty if it would fail on any other node.

    Args:
        error: that ended it.
        config: see `open_trial`.
    """
    if not config.get("is_cluster"):
        return ""
    if isinstance(error, UnfitNodeError):
        return str(error)
    if not isinstance(error, StorageError):
        return disk_problem(error, Path(tempfile.gettempdir())) or ""
    if isinstance(error, StorageUnavailableError) or disk_problem(error):  # the storage itself is away, or full
        return ""
    try:
        _check_node(config)
    except UnfitNodeError as found:
        return str(found)
    except StorageUnavailableError:
        return ""
    return ""


def fetch_inputs(storage: Storage, sweep: str, spec: TrialSpec, cache: Path) -> None:
    """Fetch what a trial reads, unless this machine has it undamaged: the split, the weights, the decoded squares.

    Args:
        storage: of the cluster.
        sweep: the search's folder there.
        spec: with the paths of this machine.
        cache: of this machine.

    Raises:
        StorageError: something is missing, or damaged in the storage.
    """
    storage.download(f"{sweep}/{Path(spec.table).name}", Path(spec.table))
    table = read_table(spec.table)
    squares = [
        squares_files(
            table,
            size=size,
            folder=cache / PIXELS,
            content=spec.content,
            value_range=range_from_text(spec.value_range),
        )
        for size in recipes_of(spec)[1].decoded_sizes
    ]
    if spec.weights:
        file = Path(spec.weights)
        fetch_intact(storage, [file], cache, lambda: file.name.startswith(f"{file_digest(file)}-"))
    for names, pixels in squares:
        fetch_intact(storage, [names, pixels], cache, partial(is_intact, pixels))


@contextmanager
def _ending_if_hanging(spec: TrialSpec, usual_s: float) -> Iterator[Any]:
    """End this process if its trial makes no step any more: the command that started it may be on another machine."""
    watchdog, ended = Watchdog([spec], {spec.name: usual_s}), threading.Event()
    watchdog.started(spec.name)

    def watch() -> None:
        while not ended.wait(LOOK_EVERY_S):
            if watchdog.hanging():
                os.kill(os.getpid(), signal.SIGKILL)

    def watched(epochs: Epochs) -> Epochs:
        with closing(epochs):
            for result in epochs:
                watchdog.epoch(spec.name, result.seconds)
                yield result

    threading.Thread(target=watch, name="watchdog", daemon=True).start()
    try:
        yield watched
    finally:
        ended.set()

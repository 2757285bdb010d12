"""What can happen to a sweep: each is a function of a running sweep and a random generator."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import sqlite3
import time
from collections.abc import Callable
from dataclasses import dataclass

import psutil

from tests.chaos.sweeps import END_WAIT_S, Sweep

Action = Callable[[Sweep, random.Random], None]
Moment = Callable[[Sweep, random.Random], None]


@dataclass(frozen=True, kw_only=True)
class Disturbance:
    """Something that happens at a moment."""

    name: str
    at: Moment
    do: Action
    recovers: bool = False
    """Whether the command goes on by itself; otherwise it ends within a minute and is resumed."""
    shell: str = ""
    """Redirections of the command."""
    small_disk: bool = False
    """Whether the cache is on a small disk of its own."""


def after_seconds(longest: float) -> Moment:
    """At a random moment after the start."""

    def wait(sweep: Sweep, rng: random.Random) -> None:
        until_s = time.monotonic() + rng.uniform(0.2, longest)
        sweep.wait_until(lambda: time.monotonic() > until_s)

    return wait


def after_epochs(number: int) -> Moment:
    """When that many more epochs have been written."""

    def wait(sweep: Sweep, _: random.Random) -> None:
        seen = sweep.written()
        wanted = len(seen) + number

        def reached() -> bool:
            seen.update(sweep.written())
            return len(seen) >= wanted

        assert sweep.wait_until(reached), f"it ended before epoch {wanted}: {sweep.output}"

    return wait


def in_training(sweep: Sweep, rng: random.Random) -> None:
    """After a random number of epochs, and a little later."""
    after_epochs(rng.randint(1, 4))(sweep, rng)
    time.sleep(rng.uniform(0, 0.3))


def at_output(text: str, longest_s: float) -> Moment:
    """When a text has been printed, and a random time later."""

    def wait(sweep: Sweep, rng: random.Random) -> None:
        assert sweep.wait_until(lambda: text in sweep.output), f"it ended without {text!r}: {sweep.output}"
        time.sleep(rng.uniform(0, longest_s))

    return wait


def signal_driver(number: int) -> Action:
    """Send a signal to the command."""

    def send(sweep: Sweep, _: random.Random) -> None:
        assert sweep.process is not None
        if sweep.process.poll() is None:
            os.kill(sweep.process.pid, number)

    return send


def kill(part: str) -> Action:
    """Kill every process of the sweep whose command line contains a text."""

    def send(sweep: Sweep, _: random.Random) -> None:
        for process in sweep.worker() if part == "worker" else sweep.named(part):
            try:
                process.send_signal(signal.SIGKILL)
            except psutil.Error:
                continue

    return send


def stop(part: str) -> Action:
    """Stop, without ending it, every process whose command line contains a text."""

    def send(sweep: Sweep, _: random.Random) -> None:
        for process in sweep.named(part):
            try:
                process.suspend()
            except psutil.Error:
                continue

    return send


def kill_and_cut_checkpoints(sweep: Sweep, rng: random.Random) -> None:
    """Kill the command, and cut the newest checkpoint of each trial in half."""
    signal_driver(signal.SIGKILL)(sweep, rng)
    sweep.wait()
    for path in sweep.checkpoints():
        os.truncate(path, path.stat().st_size // 2)


def kill_and_damage_cache(sweep: Sweep, rng: random.Random) -> None:
    """Kill the command, and flip 3,000 bytes of the decoded images."""
    signal_driver(signal.SIGKILL)(sweep, rng)
    sweep.wait()
    for path in (sweep.folder / "cache").rglob("squares-*.npy"):
        content = bytearray(path.read_bytes())
        for position in rng.sample(range(len(content)), min(3000, len(content))):
            content[position] ^= 0xFF
        path.write_bytes(content)


def lock_store(sweep: Sweep, rng: random.Random) -> None:
    """Hold the database's lock, as another program does, longer than SQLite waits for it by itself."""
    if not sweep.database.exists():
        return
    with contextlib.closing(sqlite3.connect(sweep.database, isolation_level=None, timeout=60)) as database:
        database.execute("BEGIN EXCLUSIVE")
        time.sleep(rng.uniform(10, 30))
        database.execute("ROLLBACK")


def fill_disk(sweep: Sweep, _: random.Random) -> None:
    """Fill the disk of the cache until the command has ended."""
    other = sweep.folder / "cache" / "other"
    with other.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while True:
            file.write(b"0" * 2**20)
    sweep.wait(END_WAIT_S)
    other.unlink()


def nothing(*_: object) -> None:
    """Only the redirections disturb."""


STARTING, TESTING = after_seconds(12.0), at_output("Evaluating the best trial", 1.5)
EXPORTING = at_output("Exporting, checking", 8.0)
ENDING = {"SIGINT": signal.SIGINT, "SIGTERM": signal.SIGTERM, "SIGHUP": signal.SIGHUP, "SIGKILL": signal.SIGKILL}
MOMENTS = {"starting": STARTING, "training": in_training, "testing": TESTING, "exporting": EXPORTING}
DISTURBANCES = [
    *(
        Disturbance(name=f"{name} while {when}", at=moment, do=signal_driver(number))
        for name, number in ENDING.items()
        for when, moment in MOMENTS.items()
    ),
    Disturbance(name="a trial's process killed", at=in_training, do=kill("worker"), recovers=True),
    Disturbance(name="raylet killed", at=in_training, do=kill("raylet/raylet"), recovers=True),
    Disturbance(name="GCS killed", at=in_training, do=kill("gcs_server"), recovers=True),
    Disturbance(name="Ray's process killed", at=in_training, do=kill("ray_process import main"), recovers=True),
    Disturbance(name="Ray's process stopped", at=in_training, do=stop("ray_process import main"), recovers=True),
    Disturbance(name="killed, checkpoints cut in half", at=in_training, do=kill_and_cut_checkpoints),
    Disturbance(name="killed, cache damaged", at=in_training, do=kill_and_damage_cache),
    Disturbance(name="store locked while training", at=in_training, do=lock_store, recovers=True),
    Disturbance(name="store locked while exporting", at=EXPORTING, do=lock_store, recovers=True),
    Disturbance(name="disk full while training", at=in_training, do=fill_disk, small_disk=True),
    Disturbance(name="| head", at=nothing, do=nothing, recovers=True, shell="| head -2"),
    Disturbance(name="standard streams closed", at=nothing, do=nothing, recovers=True, shell=">&- 2>&-"),
    Disturbance(name="standard output full", at=nothing, do=nothing, recovers=True, shell=">/dev/full 2>/dev/full"),
]

"""Memory of large images returns to the system where the C library supports it."""

from __future__ import annotations

import ctypes
import os
import platform
import subprocess
import sys
import threading
import tracemalloc
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from muralab.serving import request
from muralab.serving.config import ServingConfig
from muralab.serving.memory import Trimmer, give_memory_back
from tests.fixtures.payloads import base64_text, valid_files


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_glibc_accepts_the_settings():
    assert give_memory_back() is True


@pytest.mark.parametrize("error", [AttributeError, OSError, TypeError])
def test_another_c_library_is_not_changed(monkeypatch, error):
    def refuse(_: object) -> None:
        raise error

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    assert give_memory_back() is False


def test_two_images_are_decoded_at_once_whatever_the_machine(monkeypatch):
    decode, busy, most, lock, pair = request.decode_picture, [0], [0], threading.Lock(), threading.Barrier(2)

    def count(data: bytes, **options: object) -> object:
        with lock:
            busy[0] += 1
            most[0] = max(most[0], busy[0])
        pair.wait(60)  # never passed by one alone
        with lock:
            busy[0] -= 1
        return decode(data, **options)

    monkeypatch.setattr(request, "decode_picture", count)
    config, image = ServingConfig(image_size=32), base64_text(valid_files()["png"])
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda row: request._read_view(row, image, None, config), range(16)))
    assert most[0] == 2


FREED_BETWEEN_SMALL_OBJECTS = """
import psutil
from muralab.serving.memory import Trimmer
resident = lambda: psutil.Process().memory_info().rss
before = resident()
pieces = [bytearray(100_000) for _ in range(2000)]  # too small to be mapped one by one
held = resident()
pieces = pieces[::20]  # the top of the heap stays in use
Trimmer()().join()
print((held - resident()) / (held - before))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_memory_freed_between_small_objects_is_returned():
    command = [sys.executable, "-c", FREED_BETWEEN_SMALL_OBJECTS]  # a heap of its own: nothing else allocates there
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2] / "platform")}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert float(done.stdout) > 0.5


def _due(trim: Trimmer) -> threading.Thread:
    thread = trim()
    assert thread is not None
    return thread


def test_one_trim_waits_at_a_time(monkeypatch):
    done: list[int] = []
    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(malloc_trim=done.append))
    trim = Trimmer()
    first = _due(trim)
    assert trim() is None
    assert done == []
    first.join()
    assert done == [0]
    _due(trim).join()
    assert done == [0, 0]


def test_another_c_library_is_not_trimmed(monkeypatch):
    def refuse(_: object) -> None:
        raise OSError

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    assert Trimmer()() is None


def test_base64_in_short_lines_takes_a_small_multiple_of_its_size():
    lines = "aaaa\n" * 200_000
    tracemalloc.start()
    request._decode_base64(lines)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * len(lines)

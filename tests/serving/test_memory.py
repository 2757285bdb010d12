"""Memory of large pictures goes back to the system, where the C library can be told so."""

from __future__ import annotations

import ctypes
import platform
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest

from muralab.serving import request
from muralab.serving.config import ServingConfig
from muralab.serving.memory import Trimmer, give_memory_back
from tests.fixtures.payloads import base64_text, valid_files


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_glibc_takes_the_settings():
    assert give_memory_back() is True


@pytest.mark.parametrize("error", [AttributeError, OSError, TypeError])
def test_another_c_library_is_left_alone(monkeypatch, error):
    def refuse(_: object) -> None:
        raise error

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    assert give_memory_back() is False


def test_two_pictures_are_decoded_at_once_whatever_the_machine(monkeypatch):
    decode, busy, most, lock = request.decode_picture, [0], [0], threading.Lock()

    def slow(data: bytes) -> object:
        with lock:
            busy[0] += 1
            most[0] = max(most[0], busy[0])
        time.sleep(0.02)
        with lock:
            busy[0] -= 1
        return decode(data)

    monkeypatch.setattr(request, "decode_picture", slow)
    config, image = ServingConfig(image_size=32), base64_text(valid_files()["png"])
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda row: request._read_view(row, image, None, config), range(16)))
    assert most[0] == 2


def _resident_mib() -> float:
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_what_lies_free_between_small_things_goes_back():
    pieces = [bytearray(100_000) for _ in range(2000)]  # too small to be mapped for themselves
    pieces = pieces[::20]  # the top of the heap stays in use
    held = _resident_mib()
    _due(Trimmer()).join()
    assert held - _resident_mib() > 100
    assert len(pieces) == 100


def _due(trim: Trimmer) -> threading.Thread:
    thread = trim()
    assert thread is not None
    return thread


def test_one_trim_is_due_at_a_time_and_the_next_after_it(monkeypatch):
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


def test_nothing_is_due_with_another_c_library(monkeypatch):
    def refuse(_: object) -> None:
        raise OSError

    monkeypatch.setattr(ctypes, "CDLL", refuse)
    assert Trimmer()() is None

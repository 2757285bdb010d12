"""Memory of large pictures goes back to the system, where the C library can be told so."""

from __future__ import annotations

import ctypes
import platform
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from bench.payloads import good_files, text
from muralab.serving import request
from muralab.serving.config import ServingConfig
from muralab.serving.memory import give_memory_back


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
    config, image = ServingConfig(image_size=32), text(good_files()["png"])
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda row: request._read_view(row, image, None, config), range(16)))
    assert most[0] == 2

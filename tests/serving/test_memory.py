"""Memory of large pictures goes back to the system, where the C library can be told so."""

from __future__ import annotations

import ctypes
import platform

import pytest

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

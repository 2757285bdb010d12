"""Signals end a process in order, once, within a limit, and the line that resumes its work is its last."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from typing import Any

import pytest

from muralab import ending
from tests.processes import environment

START = "import os, signal, sys, time, weakref\nfrom muralab import ending\nending.handle_signals()\n"


@pytest.mark.parametrize("before", [signal.SIG_DFL, signal.SIG_IGN])
def test_a_lost_terminal_ends_a_command_in_order_unless_nohup_ignores_it(
    monkeypatch: pytest.MonkeyPatch, before: Any
) -> None:
    handled: dict[int, Any] = {}
    monkeypatch.setattr(signal, "getsignal", lambda _: before)
    monkeypatch.setattr(signal, "signal", handled.__setitem__)
    monkeypatch.setattr(ending, "_limit_the_end", lambda: None)
    monkeypatch.setattr(sys, "unraisablehook", sys.unraisablehook)
    ending.handle_signals()
    assert {signal.SIGTERM, signal.SIGINT} <= set(handled)
    assert (signal.SIGHUP in handled) == (before == signal.SIG_DFL)


def run(code: str, **options: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", START + code], env=environment(), text=True, capture_output=True, timeout=60, **options
    )


def test_an_interrupt_that_python_swallows_arrives_all_the_same() -> None:
    done = run(
        "class Thing: pass\nthing = Thing()\n"
        "gone = weakref.ref(thing, lambda _: signal.raise_signal(signal.SIGINT))\n"
        "try:\n    del thing\n    time.sleep(5)\n    print('swallowed')\n"
        "except KeyboardInterrupt:\n    print('arrived', ending.exit_code())\n"
    )
    assert done.stdout == "arrived 130\n", done.stderr


def test_only_the_first_signal_interrupts() -> None:
    done = run(
        "try:\n    signal.raise_signal(signal.SIGTERM)\n"
        "except KeyboardInterrupt:\n    signal.raise_signal(signal.SIGINT)\n    print('closed', ending.exit_code())\n"
    )
    assert done.stdout == "closed 143\n", done.stderr


def test_a_process_that_hangs_after_a_signal_is_ended_with_its_last_line() -> None:
    started = time.monotonic()
    done = run(
        "ending.END_WITHIN_S = 0.3\nending.set_last_lines('Resume with:', '  this')\n"
        "try:\n    signal.raise_signal(signal.SIGTERM)\nexcept KeyboardInterrupt:\n    time.sleep(50)\n"
    )
    assert done.returncode == 143
    assert done.stdout.endswith("Resume with:\n  this\n")
    assert done.stderr.endswith("Resume with:\n  this\n")
    assert time.monotonic() - started < 40


def test_last_lines_are_printed_once_where_both_streams_are_one_file() -> None:
    done = subprocess.run(
        [sys.executable, "-c", START + "ending.set_last_lines('last'); ending.print_last_lines()"],
        env=environment(), text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=60, check=True,
    )  # fmt: skip
    assert done.stdout == "\nlast\n"


def test_the_first_last_lines_count(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "_last_lines", [])
    ending.set_last_lines("one")
    ending.set_last_lines("two")
    ending.print_last_lines()
    ending.print_last_lines()
    assert capsys.readouterr().out == "\none\n"


def test_a_pending_interrupt_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ending, "_received", [])
    ending.raise_pending_interrupt()
    ending._received.append(signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        ending.raise_pending_interrupt()

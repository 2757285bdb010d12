"""How a process ends: by a signal, in order, within a limit, and with the line that resumes its work as its last.

Ctrl-C, SIGTERM and a lost terminal are one KeyboardInterrupt in the main thread. It can be swallowed: Python only
prints an exception that is raised in a weakref callback or a destructor. It is then raised again.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from typing import Any

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
END_WITHIN_S = 50.0
"""A process that has not ended so long after a signal is ended: what it waits for may never come."""
RAISE_AGAIN_S = 0.05

_received: list[int] = []
"""The signal that ended this process, if one did."""
_last_lines: list[str] = []


def handle_signals() -> None:
    """Turn each ending signal into KeyboardInterrupt; under `nohup` a lost terminal is ignored."""
    for one in ENDING:
        if one != signal.SIGHUP or signal.getsignal(one) != signal.SIG_IGN:
            signal.signal(one, _interrupt)
    signal.signal(signal.SIGALRM, _interrupt_again)
    sys.unraisablehook = _keep_interrupt
    _limit_the_end()


def exit_code() -> int | None:
    """128 plus the signal that ended this process; None if none did."""
    return 128 + _received[0] if _received else None


def raise_pending_interrupt() -> None:
    """Raise KeyboardInterrupt if a signal has arrived: a library may have caught the first one."""
    if _received:
        raise KeyboardInterrupt


def set_last_lines(*lines: str) -> None:
    """What this process prints last, however it ends; the first call counts."""
    if not _last_lines:
        _last_lines.extend(lines)


def print_last_lines() -> None:
    """Print these lines, once, to standard output and, if that is another file, to standard error."""
    lines = [*_last_lines]
    _last_lines.clear()
    if not lines:
        return
    streams = [sys.stdout] if _same_file() else [sys.stdout, sys.stderr]
    for stream in streams:
        print("", *lines, sep="\n", file=stream, flush=True)


def _same_file() -> bool:
    with contextlib.suppress(OSError):
        return os.path.sameopenfile(1, 2)
    return False


def _interrupt(number: int, _: Any) -> None:
    # `mlflow run` answers Ctrl-C with a SIGTERM of its own; the second signal must not break off the clean-up.
    if not _received:
        _received.append(number)
        raise KeyboardInterrupt


def _interrupt_again(*_: Any) -> None:
    raise_pending_interrupt()


def _keep_interrupt(unraisable: Any) -> None:
    if isinstance(unraisable.exc_value, KeyboardInterrupt):
        signal.setitimer(signal.ITIMER_REAL, RAISE_AGAIN_S)
    else:
        sys.__unraisablehook__(unraisable)


def _limit_the_end() -> None:
    """End this process some time after a signal, even if the main thread hangs outside of Python."""
    if threading.current_thread() is not threading.main_thread():
        return
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)
    threading.Thread(target=_end_after_signal, args=(read,), daemon=True, name="end-after-signal").start()


def _end_after_signal(read: int) -> None:
    number = 0
    while number not in ENDING:
        received = os.read(read, 1)
        if not received:
            return
        number = received[0]
        if number == signal.SIGHUP and signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
            number = 0
    time.sleep(END_WITHIN_S)
    print_last_lines()
    os._exit(128 + number)

"""Ends from outside: Ctrl-C, SIGTERM and a lost terminal all end a command in the same orderly way."""

from __future__ import annotations

import os
import signal
from typing import Any

ENDING = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
_received: list[int] = []
"""The signal that ended this process, if one did."""
_terminals: list[int] = []
"""Which of the standard streams were a terminal at the start."""


def handle_signals() -> None:
    """Turn each ending signal into KeyboardInterrupt; under `nohup` a lost terminal is ignored."""
    _terminals[:] = [stream for stream in (1, 2) if os.isatty(stream)]
    for one in ENDING:
        if one != signal.SIGHUP or signal.getsignal(one) != signal.SIG_IGN:
            signal.signal(one, _interrupt)


def exit_code() -> int | None:
    """128 plus the signal that ended this process; None if none did."""
    return 128 + _received[0] if _received else None


def _interrupt(number: int, _: Any) -> None:
    # `mlflow run` answers Ctrl-C with a SIGTERM of its own; the second signal must not break off the clean-up.
    for one in ENDING:
        signal.signal(one, signal.SIG_IGN)
    for stream in _terminals:
        if not os.isatty(stream):  # it was hung up, and every print from here on would be an error
            os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    _received.append(number)
    raise KeyboardInterrupt

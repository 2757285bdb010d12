"""Which signals end a command in order, and what they end with it."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from muralab.cli import signals


@pytest.mark.parametrize("before", [signal.SIG_DFL, signal.SIG_IGN])
def test_a_lost_terminal_ends_a_command_in_order_unless_nohup_ignores_it(
    monkeypatch: pytest.MonkeyPatch, before: Any
) -> None:
    handled: dict[int, Any] = {}
    monkeypatch.setattr(signal, "getsignal", lambda _: before)
    monkeypatch.setattr(signal, "signal", handled.__setitem__)
    signals.handle_signals()
    assert {signal.SIGTERM, signal.SIGINT} <= set(handled)
    assert (signal.SIGHUP in handled) == (before == signal.SIG_DFL)


def test_output_to_a_terminal_that_was_hung_up_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    master, terminal = os.openpty()
    monkeypatch.setattr(signals, "_terminals", [terminal])
    monkeypatch.setattr(signals, "_received", [])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    os.close(master)
    with pytest.raises(OSError, match="Input/output error"):
        os.write(terminal, b"text!")
    with pytest.raises(KeyboardInterrupt):
        signals._interrupt(signal.SIGHUP, None)
    assert os.write(terminal, b"text!") == 5
    os.close(terminal)

"""Which signals end a command in order, and what they end with it."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from muralab import cli


@pytest.mark.parametrize("before", [signal.SIG_DFL, signal.SIG_IGN])
def test_a_lost_terminal_ends_a_command_in_order_unless_nohup_says_otherwise(
    monkeypatch: pytest.MonkeyPatch, before: Any
) -> None:
    handled: dict[int, Any] = {}
    monkeypatch.setattr(signal, "getsignal", lambda _: before)
    monkeypatch.setattr(signal, "signal", handled.__setitem__)
    cli._answer_signals()
    assert {signal.SIGTERM, signal.SIGINT} <= set(handled)
    assert (signal.SIGHUP in handled) == (before == signal.SIG_DFL)


def test_words_to_a_terminal_that_was_hung_up_go_nowhere_and_break_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    master, terminal = os.openpty()
    monkeypatch.setattr(cli, "_TERMINALS", [terminal])
    monkeypatch.setattr(cli, "_INTERRUPTED", [])
    monkeypatch.setattr(signal, "signal", lambda *_: None)
    os.close(master)
    with pytest.raises(OSError, match="Input/output error"):
        os.write(terminal, b"words")
    with pytest.raises(KeyboardInterrupt):
        cli._interrupt(signal.SIGHUP, None)
    assert os.write(terminal, b"words") == 5
    os.close(terminal)

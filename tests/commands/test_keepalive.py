"""A silent command shows how far it is: on a terminal in a line that is rewritten, elsewhere in plain lines."""

from __future__ import annotations

import io
from collections.abc import Iterator

import pytest
from rich.console import Console

from muralab import heartbeat
from muralab.commands.keepalive import Keepalive
from muralab.console import PLAIN_LINE_EVERY_S, build_progress

ERASED = "\r\x1b[2K"


class Stand:
    """A command whose clock a test moves."""

    def __init__(self, *, is_terminal: bool) -> None:
        self.now, self.out = 0.0, io.StringIO()
        self.console = Console(file=self.out, width=60, force_terminal=is_terminal, color_system=None)
        self.alive = Keepalive(self.console, clock=lambda: self.now)
        self.console.push_render_hook(self.alive)
        heartbeat.listen(self.alive.step)

    def after(self, seconds: float) -> str:
        """What is printed at the end of some silent seconds."""
        start = len(self.out.getvalue())
        self.now += seconds
        self.alive.tick()
        return self.out.getvalue()[start:]


@pytest.fixture
def log() -> Iterator[Stand]:
    yield Stand(is_terminal=False)
    heartbeat.listen(None)


@pytest.fixture
def terminal() -> Iterator[Stand]:
    yield Stand(is_terminal=True)
    heartbeat.listen(None)


def test_a_log_has_a_line_for_every_ten_seconds_of_silence(log: Stand) -> None:
    assert log.after(PLAIN_LINE_EVERY_S) == ""
    assert log.after(2) == "... still working, 12 s\n"
    assert log.after(5) == ""
    assert log.after(7) == "... still working, 24 s\n"


def test_other_output_restarts_the_silence(log: Stand) -> None:
    log.now += 9
    log.console.print("decoded")
    assert log.after(9) == ""
    assert log.after(3) == "... still working, 12 s\n"


def test_a_step_shows_how_far_it_is_and_what_is_left(log: Stand) -> None:
    heartbeat.beat("full 1/7, images", 8, 64)
    log.now += 12
    heartbeat.beat("full 1/7, images", 16, 64)
    assert log.after(0) == "... full 1/7, images: 16 of 64, about 36 s left of this step\n"


def test_a_step_that_is_over_is_not_shown_any_more(log: Stand) -> None:
    show = build_progress(log.console)("decoding images")
    show(348, 696)
    assert log.after(12) == "... decoding images: 348 of 696, about 12 s left of this step\n"
    show(696, 696)
    assert log.after(12) == "... still working, 24 s\n"


def test_a_terminal_has_one_line_that_is_rewritten_and_then_replaced(terminal: Stand) -> None:
    assert terminal.after(1) == ""
    assert terminal.after(2) == f"{ERASED}... still working, 3 s"
    assert terminal.after(1) == f"{ERASED}... still working, 4 s"
    terminal.console.print("Ready.")
    assert terminal.out.getvalue().endswith(f"{ERASED}Ready.\n")


def test_nothing_is_left_on_the_terminal_or_listening_at_the_end() -> None:
    out = io.StringIO()
    console = Console(file=out, width=60, force_terminal=True, color_system=None)
    with Keepalive(console, clock=iter(range(0, 10**6, 5)).__next__) as alive:
        alive.tick()
    assert out.getvalue().endswith(ERASED)
    console.print("x")
    assert out.getvalue().endswith(f"{ERASED}x\n")
    assert heartbeat._listener is None

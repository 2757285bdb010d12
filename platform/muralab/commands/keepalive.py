"""A line of progress whenever a command has been silent: long steps show how far they are, others that they work."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from rich.console import ConsoleRenderable, RenderHook
from rich.control import Control
from rich.segment import ControlType

from muralab.console import PLAIN_LINE_EVERY_S, format_duration
from muralab.heartbeat import listen

TERMINAL_AFTER_S = 2.0
"""On a terminal, where the line is rewritten, it appears after this much silence."""
STEP_KNOWN_S = 20.0
"""A step that was not heard of for this long is over."""
CLEAR = Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2))


class Keepalive(RenderHook):
    """Prints a line while nothing else is printed: on a terminal one that is rewritten, elsewhere one now and then."""

    def __init__(self, console: Any, clock: Callable[[], float] = time.monotonic) -> None:
        self._console, self._clock = console, clock
        self._heard = self._printed = clock()  # other output; any output
        self._step: tuple[str, int, int, float] = ("", 0, 0, -STEP_KNOWN_S)
        self._step_began = clock()
        self._is_shown = False
        self._own = threading.local()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keepalive", daemon=True)

    def __enter__(self) -> Keepalive:
        self._console.push_render_hook(self)
        listen(self.step)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
        listen(None)
        self._console.pop_render_hook()
        if self._is_shown:
            with suppress(OSError, ValueError):  # the terminal may be gone
                self._console.print(CLEAR, end="")

    def step(self, what: str, done: int, total: int) -> None:
        """Hear how far a long step is."""
        now = self._clock()
        if what != self._step[0] or done < self._step[1]:
            self._step_began = now
        self._step = (what, done, total, now)

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Note that something is printed; it replaces the own line of a terminal."""
        if getattr(self._own, "prints", False):
            return renderables
        self._heard = self._printed = self._clock()
        was_shown, self._is_shown = self._is_shown, False
        return [CLEAR, *renderables] if was_shown else renderables

    def tick(self) -> None:
        """Print the line if it is time."""
        now = self._clock()
        self._own.prints = True
        if self._console.is_terminal:
            if now - self._heard >= TERMINAL_AFTER_S:
                self._console.print(CLEAR, end="")
                self._console.print(self.line()[: self._console.width - 1], end="", highlight=False, markup=False)
                self._is_shown = True
        elif now - self._printed > PLAIN_LINE_EVERY_S + 1:  # a table of trials comes first
            self._printed = now
            self._console.print(self.line(), highlight=False, markup=False, soft_wrap=True)
        self._own.prints = False

    def line(self) -> str:
        """What is being done, as far as it is known."""
        now = self._clock()
        what, done, total, at = self._step
        if now - at > STEP_KNOWN_S or done >= total:
            return f"... still working, {format_duration(now - self._heard)}"
        spent = now - self._step_began
        left = format_duration(spent / done * (total - done)) if spent > 1 and done else ""
        left = f", about {left} left of this step" if left else ""
        return f"... {what}: {done:,} of {total:,}{left}"

    def _run(self) -> None:
        while not self._stop.wait(1.0):
            with suppress(OSError, ValueError):
                self.tick()

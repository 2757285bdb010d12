"""What a person sees of a sweep: rows, time left, the table, and the few lines where there is no terminal."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from muralab import console as console_module
from muralab.console import (
    EXPECTED_SLOWDOWN,
    MEASURED_AFTER_S,
    MOST_ROWS,
    PLAIN_LINE_EVERY_S,
    TrialRow,
    TrialTable,
    build_progress,
    format_duration,
)


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def build_table(
    *rows: TrialRow, concurrent: int = 1, is_terminal: bool = False
) -> tuple[TrialTable, Clock, io.StringIO]:
    """A board whose console writes into a text."""
    out, time = io.StringIO(), Clock()
    console = Console(file=out, width=120, force_terminal=is_terminal, color_system=None)
    return TrialTable({row.name: row for row in rows}, concurrent, "val_study_auroc", console, time), time, out


def cells(board: TrialTable) -> list[list[str]]:
    """The table's cells, row by row."""
    return [list(cell) for cell in zip(*(column.cells for column in board.table().columns), strict=True)]


# One trial


def test_a_waiting_trial_has_all_its_epochs_left() -> None:
    assert TrialRow("a", [1.0, 2.0, 3.0]).remaining_s(100, slowdown=2) == 12


def test_time_since_the_last_epoch_counts() -> None:
    row = TrialRow("a", [10.0, 10.0, 10.0], state="running", epoch=1, started=100, reported=115)
    assert row.remaining_s(119, slowdown=1.5) == 30 - 4


def test_a_late_epoch_does_not_use_up_the_time_of_later_ones() -> None:
    row = TrialRow("a", [10.0, 10.0, 10.0], state="running", epoch=1, started=100, reported=110)
    assert row.remaining_s(1000, slowdown=1) == 10


def test_a_late_epoch_leaves_no_negative_time() -> None:
    assert TrialRow("a", [1.0], state="running", started=100).remaining_s(1000, slowdown=1) == 0


@pytest.mark.parametrize("state", ["finished", "pruned", "failed", "stopped"])
def test_nothing_is_left_of_a_trial_that_ended(state: str) -> None:
    row = TrialRow("a", [1.0, 1.0], state=state, epoch=1)
    assert row.has_ended
    assert row.remaining_s(0, 1) == 0


# All of them


def test_of_very_many_trials_those_that_run_and_the_best_are_shown() -> None:
    ended = [TrialRow(f"t-{n:04d}", [1.0], state="finished", best=n / 1000) for n in range(1000)]
    board, _, _ = build_table(*ended, TrialRow("waits", [1.0]), TrialRow("runs", [1.0], state="running"))
    names = [row[0] for row in cells(board)]
    assert names == [*(f"t-{n:04d}" for n in range(1001 - MOST_ROWS, 1000)), "runs"]
    assert board.table().caption == f"{1002 - MOST_ROWS} more trials are not shown"


def test_a_board_first_expects_what_trials_that_share_a_machine_were_seen_to_take() -> None:
    board, _, _ = build_table(TrialRow("a", [10.0]), TrialRow("b", [10.0]), concurrent=2)
    assert board.slowdown() == EXPECTED_SLOWDOWN
    assert board.remaining_s() == 10 * EXPECTED_SLOWDOWN


def test_a_board_learns_the_pace() -> None:
    board, time, _ = build_table(TrialRow("a", [MEASURED_AFTER_S + 1, 10.0]))
    board.started("a")
    time.now += 3 * (MEASURED_AFTER_S + 1)
    board.epoch("a", 1, "full", 0.5)
    assert board.slowdown() == pytest.approx(3)
    assert board.remaining_s() == pytest.approx(30)


def test_epochs_that_a_resumed_trial_repeats_at_once_took_what_they_took_then() -> None:
    board, time, _ = build_table(TrialRow("a", [10.0, 10.0, 10.0]))
    board.started("a")
    board.epoch("a", 1, "full", 0.5, seconds=20)
    board.epoch("a", 2, "full", 0.5, seconds=20)
    assert board.remaining_s() == pytest.approx(20)
    time.now += 30  # the third takes longer, and its start-up counts
    board.epoch("a", 3, "full", 0.5, seconds=22)
    assert board.slowdown() == pytest.approx(70 / 30)


def test_time_left_is_that_of_the_longest_trial_at_least() -> None:
    board, _, _ = build_table(TrialRow("a", [60.0]), TrialRow("b", [1.0]), concurrent=2)
    assert board.remaining_s() == 60 * EXPECTED_SLOWDOWN


def test_a_board_without_trials_has_nothing_left() -> None:
    board, _, _ = build_table()
    with board:
        board.tick()
    assert (board.remaining_s(), cells(board)) == (0, [])


def test_a_row_shows_phase_epoch_objective_and_best() -> None:
    board, _, _ = build_table(TrialRow("a", [1.0] * 4), TrialRow("b", [1.0] * 4))
    board.started("a")
    board.epoch("a", 1, "full", 0.75)
    board.epoch("a", 2, "full", 0.5)
    assert cells(board) == [
        ["a", "[cyan]running[/]", "full", "━━━━━━╌╌╌╌╌╌   2/4", "0.500", "0.750"],
        ["b", "[dim]waiting[/]", "", "╌╌╌╌╌╌╌╌╌╌╌╌   0/4", "", ""],
    ]


@pytest.mark.parametrize(("over_phases", "best"), [(True, 0.9), (False, 0.6)])
def test_the_best_is_that_of_the_weights_that_are_kept(over_phases: bool, best: float) -> None:
    board, _, _ = build_table(TrialRow("a", [1.0] * 4, over_phases=over_phases))
    board.started("a")
    board.epoch("a", 1, "upper", 0.9)
    board.epoch("a", 2, "full", 0.6)
    assert board.rows["a"].best == best


def test_an_undefined_objective_does_not_stay_the_best() -> None:
    board, _, _ = build_table(TrialRow("a", [1.0] * 4))
    board.started("a")
    board.epoch("a", 1, "full", float("nan"))
    board.epoch("a", 2, "full", 0.6)
    assert board.rows["a"].best == 0.6


def test_a_trial_that_starts_again_keeps_its_start() -> None:
    board, time, _ = build_table(TrialRow("a", [1.0]))
    board.started("a")
    time.now += 50
    board.started("a")
    assert board.rows["a"].started == 100


def test_the_title_says_how_many_ended_and_how_long_it_takes() -> None:
    board, _, _ = build_table(TrialRow("a", [600.0]), TrialRow("b", [1.0], state="finished"))
    assert board.table().title == "1 of 2 trials ended, about 13 min left; val_study_auroc: last epoch, best"
    board.change("a", "pruned")
    assert board.table().title == "2 trials; val_study_auroc: last epoch, best"


# Without a terminal


def test_the_end_of_a_trial_is_a_line() -> None:
    board, time, out = build_table(TrialRow("a", [1.0]), TrialRow("b", [1.0]))
    board.started("a")
    board.epoch("a", 1, "full", 0.8125)
    time.now += 75
    board.ended("a", "finished")
    assert out.getvalue() == "[1/2] a finished after 1 epochs, 75 s, val_study_auroc 0.812\n"


def test_the_count_of_ended_trials_follows_every_change() -> None:
    board, _, out = build_table(TrialRow("a", [1.0], state="finished"), TrialRow("b", [1.0]), TrialRow("c", [1.0]))
    board.change("b", "pruned")  # as a resumed search restores it
    board.started("b")  # and trains it again
    for name in ("b", "b", "c"):
        board.ended(name, "finished")
    assert [line.partition("]")[0] for line in out.getvalue().splitlines()] == ["[2/3", "[2/3", "[3/3"]


def test_a_failure_says_the_last_line_of_its_reason_as_it_is() -> None:
    board, _, out = build_table(TrialRow("a", [1.0]))
    board.ended("a", "failed", "Traceback ...\nValueError: [bold] is no shape\n")
    assert "a failed after 0 epochs, 0 s: ValueError: [bold] is no shape" in out.getvalue()


def test_now_and_then_a_line_says_how_far_things_are() -> None:
    board, time, out = build_table(TrialRow("a", [10.0, 10.0]))
    with board:
        board.started("a")
        board.epoch("a", 1, "upper", 0.5)
        board.tick()
        assert out.getvalue() == ""
        time.now += PLAIN_LINE_EVERY_S + 1
        board.tick()
        assert out.getvalue() == "... about 0 s left; a upper 1/2 (0.500)\n"
        board.tick()
    assert out.getvalue().count("... about") == 1
    assert "1/2" in out.getvalue().splitlines()[-2], "the table ends it"


def test_before_the_first_worker_a_line_says_so() -> None:
    board, time, out = build_table(TrialRow("a", [10.0]))
    with board:
        time.now += PLAIN_LINE_EVERY_S + 1
        board.tick()
    assert out.getvalue().startswith("... about 13 s to train; starting workers\n")


# On one


def test_on_a_terminal_the_table_is_redrawn_and_trials_add_no_lines() -> None:
    board, time, out = build_table(TrialRow("a", [1.0]), is_terminal=True)
    with board:
        board.started("a")
        time.now += 1
        board.tick()
        board.ended("a", "finished")
    assert "running" in out.getvalue()
    assert "[1/1]" not in out.getvalue()
    assert "finished" in out.getvalue()


def test_an_interrupt_gives_the_terminal_back() -> None:
    board, _, _ = build_table(TrialRow("a", [1.0]), is_terminal=True)
    with pytest.raises(KeyboardInterrupt), board:
        raise KeyboardInterrupt
    assert board._live is None


@pytest.mark.parametrize(
    ("is_terminal", "expected"), [(False, ["decoding: 1,200"]), (True, ["decoding: 1 of 1,200", "1,200 of 1,200"])]
)
def test_progress_is_one_line(is_terminal: bool, expected: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    time = Clock()
    monkeypatch.setattr(console_module.time, "monotonic", time)
    out = io.StringIO()
    tell = build_progress(Console(file=out, width=120, force_terminal=is_terminal, color_system=None))("decoding")
    for done in (1, 2, 1200):
        tell(done, 1200)
    assert all(words in out.getvalue() for words in expected)
    assert "2 of" not in out.getvalue()
    assert out.getvalue().count("\n") == 1


@pytest.mark.parametrize(
    ("seconds", "words"),
    [(0, "0 s"), (89.4, "89 s"), (90, "2 min"), (89 * 60, "89 min"), (90 * 60, "1 h 30 min"), (7260, "2 h 1 min")],
)
def test_time_as_a_person_says_it(seconds: float, words: str) -> None:
    assert format_duration(seconds) == words


def test_without_a_terminal_the_console_is_120_columns_wide(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert console_module.build_console().width == 120


def test_a_table_of_trials_is_readable_in_80_columns() -> None:
    row = TrialRow("inception_add_gate-00", [1.0] * 100, state="finished", epoch=100, phase="upper", objective=0.5)
    board, _, _ = build_table(row)
    narrow = Console(file=io.StringIO(), width=80)
    narrow.print(board.table())
    lines = narrow.file.getvalue().splitlines()
    assert max(map(len, lines)) <= 80
    assert any("inception_add_gate-00" in line and "100/100" in line and "0.500" in line for line in lines)

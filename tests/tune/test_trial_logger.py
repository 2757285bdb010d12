"""What the search tells is written where it belongs: how trials end, and which weights are kept."""

from __future__ import annotations

import io
import math
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from muralab.console import Board, Row
from muralab.experiment import predictions_path
from muralab.training.phases import PHASES
from muralab.training.trainer import LAST, best_name
from muralab.trial import TrialSpec
from muralab.tune import trial_logger as logbook
from muralab.tune.trial_logger import Logbook, phase_summary

SUMMED = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_auroc", "val_study_auroc")


class Notes:
    """A writer that only remembers."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def start_run(self, *, name: str, **_: Any) -> str:
        self.calls.append(("start", name))
        return name

    def __getattr__(self, what: str) -> Any:
        return lambda *arguments, **_: self.calls.append((what, *arguments))

    def all(self, what: str) -> list[tuple[Any, ...]]:
        return [call[1:] for call in self.calls if call[0] == what]


def epoch(number: int, phase: str, objective: float) -> dict[str, Any]:
    metrics = dict.fromkeys(SUMMED, objective) | {"phase": PHASES.index(phase) + 1.0, "epoch_seconds": 1.0}
    return {"global_epoch": number, "phase": phase, "objective": objective, "metrics": metrics}


@pytest.fixture
def notes() -> Notes:
    return Notes()


@pytest.fixture
def book(tmp_path: Path, notes: Notes, monkeypatch: pytest.MonkeyPatch) -> Logbook:
    """Of two trials of one recipe, whose weights lie on disk."""
    monkeypatch.setattr(logbook, "log_description", lambda *_: None)
    monkeypatch.setattr(logbook, "log_data", lambda *_: None)
    specs = {
        name: TrialSpec(name=name, recipe="cnn", table="", cache_folder="", folder=str(tmp_path / name))
        for name in ("cnn-00", "cnn-01")
    }
    for name in specs:
        (tmp_path / name).mkdir()
        for file in (LAST, *map(best_name, PHASES)):
            (tmp_path / name / file).touch()
    board = Board({name: Row(name, [1.0] * 4) for name in specs}, 1, "val_study_auroc", Console(file=io.StringIO()))
    writer: Any = notes
    dataset: Any = SimpleNamespace()
    return Logbook(writer=writer, board=board, specs=specs, dataset=dataset, parent="parent", facts={})


def run(book: Logbook, name: str, *objectives: float, how: str = "finished", reason: str = "") -> None:
    """A trial with one upper epoch, and a full one for each objective."""
    book.trial_started(name)
    book.trial_epoch(name, epoch(1, "upper", 0.1))
    for number, objective in enumerate(objectives, start=2):
        book.trial_epoch(name, epoch(number, "full", objective))
    book.trial_ended(name, how, reason)


def kept(tmp_path: Path, name: str) -> set[str]:
    return {path.name for path in (tmp_path / name).iterdir()}


def test_the_best_trial_of_a_recipe_keeps_its_weights_and_loses_its_checkpoint(book: Logbook, tmp_path: Path) -> None:
    run(book, "cnn-00", 0.7)
    run(book, "cnn-01", 0.6, 0.8)
    assert book.best == {"cnn": (0.8, "cnn-01")}
    assert kept(tmp_path, "cnn-01") == set(map(best_name, PHASES))
    assert kept(tmp_path, "cnn-00") == set()


@pytest.mark.parametrize("order", [("cnn-00", "cnn-01"), ("cnn-01", "cnn-00")])
def test_of_two_that_are_level_the_first_of_the_plan_wins_whichever_ended_first(
    book: Logbook, tmp_path: Path, order: tuple[str, str]
) -> None:
    for name in order:
        run(book, name, 0.7)
    assert book.best == {"cnn": (0.7, "cnn-00")}
    assert kept(tmp_path, "cnn-00") == set(map(best_name, PHASES))


def test_an_undefined_objective_loses_to_any(book: Logbook, tmp_path: Path) -> None:
    run(book, "cnn-00", math.nan)
    run(book, "cnn-01", 0.2)
    assert book.best == {"cnn": (0.2, "cnn-01")}


def test_a_comparison_keeps_the_weights_of_all(book: Logbook, tmp_path: Path) -> None:
    book.keep_all = True
    run(book, "cnn-00", 0.7)
    run(book, "cnn-01", 0.8)
    assert kept(tmp_path, "cnn-00") == kept(tmp_path, "cnn-01") == set(map(best_name, PHASES))


def test_a_trial_that_never_reached_its_full_phase_is_no_candidate(book: Logbook) -> None:
    run(book, "cnn-00")
    assert book.best == {}


def test_a_failed_trial_keeps_its_checkpoint_and_says_why(book: Logbook, notes: Notes, tmp_path: Path) -> None:
    run(book, "cnn-00", 0.9, how="failed", reason="It broke.")
    assert (book.best, book.failures) == ({}, {"cnn-00": "It broke."})
    assert LAST in kept(tmp_path, "cnn-00")
    assert ("cnn-00", {"muralab.ended": "failed", "muralab.error": "It broke."}) in notes.all("set_tags")
    assert notes.all("finish") == [("cnn-00", "FAILED")]


def test_a_trials_predictions_are_logged_as_they_were_written(book: Logbook, notes: Notes) -> None:
    written = pd.DataFrame(
        {"image": ["a", "b"], "study": ["1", "01"], "patient": ["007", "NA"], "part": "hand", "label": [0, 1],
         "logit": [1 / 3, -2e-17]}
    )  # fmt: skip
    written.to_csv(predictions_path(book.specs["cnn-00"].folder, PHASES[-1]), index=False)
    run(book, "cnn-00", 0.7)
    ((_, name, logged),) = notes.all("log_predictions")
    assert name == "validation"
    pd.testing.assert_frame_equal(logged, written)


def test_a_trial_that_failed_before_it_began_has_a_run_that_says_so(book: Logbook, notes: Notes) -> None:
    book.trial_ended("cnn-00", "failed", "Its process died.")
    assert notes.all("start") == [("cnn-00",)]
    assert notes.all("finish") == [("cnn-00", "FAILED")]


def test_epochs_that_a_restarted_trial_repeats_are_logged_once(book: Logbook, notes: Notes) -> None:
    book.trial_started("cnn-00")
    for number in (1, 2, 1, 2, 3):
        book.trial_epoch("cnn-00", epoch(number, "full", 0.5))
    assert [step for _, step, _ in notes.all("log_epoch")] == [1, 2, 3]


def test_a_trial_that_ran_out_of_time_was_stopped_and_not_pruned(book: Logbook, notes: Notes) -> None:
    book.deadline = time.monotonic() - 1
    run(book, "cnn-00", 0.5, how="pruned")
    book.deadline = time.monotonic() + 60
    run(book, "cnn-01", 0.5, how="pruned")
    assert [tags["muralab.ended"] for _, tags in notes.all("set_tags")] == ["stopped", "pruned"]


def test_what_still_runs_when_the_search_is_over_was_stopped(book: Logbook, notes: Notes) -> None:
    book.trial_started("cnn-00")
    book.trial_epoch("cnn-00", epoch(1, "full", 0.5))
    book.stop_running()
    assert notes.all("finish") == [("cnn-00", "FINISHED")]
    assert book.board.rows["cnn-01"].state == "waiting"


def test_a_phase_is_summed_up_by_its_best_epoch_whatever_is_undefined() -> None:
    history = [epoch(n, phase, value)["metrics"] for n, phase, value in (
        (1, "upper", math.nan), (2, "upper", 0.6), (3, "full", 0.9), (4, "full", 0.7), (5, "full", math.nan),
    )]  # fmt: skip
    found = phase_summary(history, "val_study_auroc")
    assert (found["upper_val_accuracy"], found["full_val_accuracy"], found["objective"]) == (0.6, 0.9, 0.9)
    assert (found["upper_epochs"], found["full_epochs"]) == (2, 3)
    assert phase_summary([], "val_study_auroc") == {}


def test_how_to_go_on_is_said_once_and_a_lost_terminal_does_not_stop_the_closing(book: Logbook, notes: Notes) -> None:
    book.resume = "make tune"
    book.say_how_to_go_on("It stopped.")
    book.interrupted()
    assert book.board.console.file.getvalue() == "\nIt stopped.\n  make tune\n"  # type: ignore[attr-defined]
    book.said = False
    book.board.console.file.close()
    book.board.console.file = open("/dev/full", "w", buffering=1)  # noqa: PTH123, SIM115
    book.interrupted()
    assert notes.all("end_open_runs") == [("KILLED",)] * 2

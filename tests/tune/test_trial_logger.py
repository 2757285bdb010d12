"""How trials end in MLflow and on disk, which weights are kept, and what a resumed search restores."""

from __future__ import annotations

import io
import math
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from muralab.console import TrialRow, TrialTable
from muralab.errors import TrialsFailedError
from muralab.experiment import predictions_path
from muralab.training.phases import PHASES
from muralab.training.trainer import LAST, best_name
from muralab.trial import TrialSpec
from muralab.tune import trial_logger
from muralab.tune.finish import check_failures
from muralab.tune.live_progress import LiveProgress
from muralab.tune.trial_logger import TrialLogger, log_description
from muralab.tune.trial_score import score_trial
from tests.tune.recorder import Recorder

SUMMARISED = ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_auroc", "val_study_auroc")


def epoch(number: int, phase: str, objective: float) -> dict[str, Any]:
    metrics = dict.fromkeys(SUMMARISED, objective) | {"phase": PHASES.index(phase) + 1.0, "epoch_seconds": 1.0}
    return {"global_epoch": number, "phase": phase, "objective": objective, "metrics": metrics}


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


@pytest.fixture
def logger(tmp_path: Path, recorder: Recorder, monkeypatch: pytest.MonkeyPatch) -> TrialLogger:
    """Of two trials of one recipe, whose weights lie on disk."""
    monkeypatch.setattr(trial_logger, "log_description", lambda *_: None)
    monkeypatch.setattr(trial_logger, "log_sets", lambda *_: None)
    specs = {
        name: TrialSpec(name=name, recipe="cnn", table="", cache_folder="", folder=str(tmp_path / name))
        for name in ("cnn-00", "cnn-01")
    }
    for name in specs:
        (tmp_path / name).mkdir()
        for file in (LAST, *map(best_name, PHASES)):
            (tmp_path / name / file).touch()
    rows = {name: TrialRow(name, [1.0] * 4) for name in specs}
    table = TrialTable(rows, 1, "val_study_auroc", Console(file=io.StringIO()))
    writer: Any = recorder
    dataset: Any = SimpleNamespace(hide_names=str)
    return TrialLogger(writer=writer, table=table, specs=specs, dataset=dataset, parent="parent", tags={})


def run(
    logger: TrialLogger, name: str, *objectives: float, how: str = "finished", reason: str = "", upper: float = 0.1
) -> None:
    """A trial with one upper epoch, and a full one for each objective."""
    logger.trial_started(name)
    logger.trial_epoch(name, epoch(1, "upper", upper))
    for number, objective in enumerate(objectives, start=2):
        logger.trial_epoch(name, epoch(number, "full", objective))
    logger.trial_ended(name, how, reason)


def values_of(tag: str, recorder: Recorder) -> list[str]:
    """Every value that a tag was given."""
    return [tags[tag] for _, tags in recorder.all("set_tags") if tag in tags]


def kept(tmp_path: Path, name: str) -> set[str]:
    return {path.name for path in (tmp_path / name).iterdir()} - {"ended.json"}


def test_the_best_trial_keeps_its_weights_and_loses_its_checkpoint(logger: TrialLogger, tmp_path: Path) -> None:
    run(logger, "cnn-00", 0.7)
    run(logger, "cnn-01", 0.6, 0.8)
    assert logger.best == {"cnn": (0.8, "cnn-01")}
    assert kept(tmp_path, "cnn-01") == set(map(best_name, PHASES))
    assert kept(tmp_path, "cnn-00") == set()


@pytest.mark.parametrize("order", [("cnn-00", "cnn-01"), ("cnn-01", "cnn-00")])
def test_of_tied_trials_the_first_of_the_plan_wins_whichever_ended_first(
    logger: TrialLogger, tmp_path: Path, order: tuple[str, str]
) -> None:
    for name in order:
        run(logger, name, 0.7)
    assert logger.best == {"cnn": (0.7, "cnn-00")}
    assert kept(tmp_path, "cnn-00") == set(map(best_name, PHASES))


def test_an_undefined_objective_loses_to_any(logger: TrialLogger, tmp_path: Path) -> None:
    run(logger, "cnn-00", math.nan)
    run(logger, "cnn-01", 0.2)
    assert logger.best == {"cnn": (0.2, "cnn-01")}


def test_keep_all_keeps_the_weights_of_every_trial(logger: TrialLogger, tmp_path: Path) -> None:
    logger.keep_all = True
    run(logger, "cnn-00", 0.7)
    run(logger, "cnn-01", 0.8)
    assert kept(tmp_path, "cnn-00") == kept(tmp_path, "cnn-01") == set(map(best_name, PHASES))


def test_a_trial_that_never_reached_its_full_phase_is_not_selected(logger: TrialLogger) -> None:
    run(logger, "cnn-00")
    assert logger.best == {}


def test_a_failed_trial_keeps_its_checkpoint(logger: TrialLogger, recorder: Recorder, tmp_path: Path) -> None:
    run(logger, "cnn-00", 0.9, how="failed", reason="It broke.")
    assert (logger.best, logger.failures) == ({}, {"cnn-00": "It broke."})
    assert LAST in kept(tmp_path, "cnn-00")
    assert values_of("muralab.error", recorder) == ["It broke."]
    assert values_of("muralab.kept_phase", recorder) == ["full"]
    (note,) = values_of("mlflow.note.content", recorder)
    assert note.startswith("**Failed** in epoch 1 of 60 of the full phase: `It broke.`")
    assert recorder.calls[-2:] == [("finish", "cnn-00", "FAILED"), ("set_tags", "cnn-00", {"muralab.ended": "failed"})]


def test_a_trials_predictions_are_logged_as_they_were_written(logger: TrialLogger, recorder: Recorder) -> None:
    written = pd.DataFrame(
        {"image": ["a", "b"], "study": ["1", "01"], "patient": ["007", "NA"], "part": "hand", "label": [0, 1],
         "logit": [1 / 3, -2e-17]}
    )  # fmt: skip
    written.to_csv(predictions_path(logger.specs["cnn-00"].folder, PHASES[-1]), index=False)
    run(logger, "cnn-00", 0.7)
    ((_, name, logged),) = recorder.all("log_predictions")
    assert name == "validation"
    pd.testing.assert_frame_equal(logged, written)


def test_a_trial_that_failed_before_it_started_has_a_failed_run(logger: TrialLogger, recorder: Recorder) -> None:
    logger.trial_ended("cnn-00", "failed", "Its process died.")
    assert recorder.all("start") == [("cnn-00",)]
    assert recorder.all("finish") == [("cnn-00", "FAILED")]


def test_epochs_that_a_restarted_trial_repeats_are_logged_once(logger: TrialLogger, recorder: Recorder) -> None:
    logger.trial_started("cnn-00")
    for number in (1, 2, 1, 2, 3):
        logger.trial_epoch("cnn-00", epoch(number, "full", 0.5))
    assert [step for _, step, _ in recorder.all("log_epoch")] == [1, 2, 3]


def test_a_trial_that_ran_out_of_time_was_stopped_and_not_pruned(logger: TrialLogger, recorder: Recorder) -> None:
    logger.deadline = time.monotonic() - 1
    run(logger, "cnn-00", 0.5, how="pruned")
    logger.deadline = time.monotonic() + 60
    run(logger, "cnn-01", 0.5, how="pruned")
    assert values_of("muralab.ended", recorder) == ["stopped", "pruned"]


def test_trials_still_running_at_the_end_of_the_search_are_stopped(logger: TrialLogger, recorder: Recorder) -> None:
    logger.trial_started("cnn-00")
    logger.trial_epoch("cnn-00", epoch(1, "full", 0.5))
    logger.stop_running()
    assert recorder.all("finish") == [("cnn-00", "FINISHED")]
    assert logger.table.rows["cnn-01"].state == "waiting"


def test_the_searchs_own_run_is_not_written_at_the_end_of_every_trial(logger: TrialLogger, recorder: Recorder) -> None:
    writer: Any = recorder
    logger.progress = LiveProgress(writer, "parent", logger.table, clock=lambda: 100.0)
    for name in logger.specs:
        run(logger, name, 0.7)
    logger.stop_running()
    done = [found["progress/trials_done"] for run, _, found in recorder.all("log_epoch") if run == "parent"]
    assert done == [0.0, 2.0]


def test_each_epoch_logs_its_objective_and_that_of_the_weights_that_are_kept(
    logger: TrialLogger, recorder: Recorder
) -> None:
    run(logger, "cnn-00", 0.8, 0.7, upper=0.75)
    logged = [(step, found["epoch_objective"], found["objective"]) for _, step, found in recorder.all("log_epoch")[:3]]
    assert logged == [(1, 0.75, 0.75), (2, 0.8, 0.8), (3, 0.7, 0.8)]
    assert next(iter(recorder.all("log_epoch")[0][2])) == "objective", "what MLflow's page of compared runs draws"


def test_the_searched_values_of_a_trial_name_its_run_and_stand_apart(
    logger: TrialLogger, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trial_logger, "log_description", log_description)
    drawn = {"full.lr": 3e-5, "augment.zoom": 0.2}
    logger.specs = {name: replace(spec, drawn=drawn if name == "cnn-01" else {}) for name, spec in logger.specs.items()}
    for name in logger.specs:
        logger.trial_started(name)
    assert recorder.all("start") == [("cnn-00 · the recipe as it is",), ("cnn-01 · lr 3e-5 · zoom 0.2",)]
    (_, first), (_, second) = recorder.all("log_params")
    assert (first, second) == ({"full.lr": 0.001, "augment.zoom": 0.15}, drawn)
    assert not {"full.lr", "augment.zoom"} & set(recorder.all("log_resolved")[1][1])


def test_a_phase_is_summarised_by_its_best_epoch_even_if_others_are_undefined() -> None:
    history = [epoch(n, phase, value)["metrics"] for n, phase, value in (
        (1, "upper", math.nan), (2, "upper", 0.6), (3, "full", 0.9), (4, "full", 0.7), (5, "full", math.nan),
    )]  # fmt: skip
    found = score_trial(history, "val_study_auroc", "best").summary
    assert (found["upper_val_accuracy"], found["full_val_accuracy"], found["objective"]) == (0.6, 0.9, 0.9)
    assert (found["upper_epochs"], found["full_epochs"]) == (2, 3)
    assert score_trial([], "val_study_auroc", "best") is None


@pytest.mark.parametrize(
    ("upper", "full", "keeps", "kept"),
    [
        (0.910, 0.883, "best", ("upper", 0.910)),
        (0.910, 0.883, "full", ("full", 0.883)),
        (0.665, 0.714, "best", ("full", 0.714)),
        (0.7, 0.7, "best", ("full", 0.7)),  # of tied phases the one that trained for longer
        (0.5, math.nan, "best", ("upper", 0.5)),
    ],
)
def test_a_trials_score_is_that_of_the_weights_that_are_kept(
    upper: float, full: float, keeps: str, kept: tuple[str, float]
) -> None:
    history = [epoch(1, "upper", upper)["metrics"], epoch(2, "full", full)["metrics"]]
    score = score_trial(history, "val_study_auroc", keeps)
    assert (score.phase, score.objective) == kept
    assert score.summary["objective"] == kept[1]


def test_a_trial_counts_with_its_upper_phase_where_that_validated_better(
    logger: TrialLogger, recorder: Recorder
) -> None:
    run(logger, "cnn-00", 0.7, 0.8, upper=0.95)
    run(logger, "cnn-01", 0.9)
    assert logger.best == {"cnn": (0.95, "cnn-00")}
    assert values_of("muralab.kept_phase", recorder) == ["upper", "full"]


def test_the_predictions_of_the_kept_phase_are_logged(logger: TrialLogger, recorder: Recorder) -> None:
    columns = {"image": ["a"], "study": ["1"], "patient": ["7"], "part": ["hand"], "label": [0]}
    for logit, phase in enumerate(PHASES):
        written = pd.DataFrame({**columns, "logit": [float(logit)]})
        written.to_csv(predictions_path(logger.specs["cnn-00"].folder, phase), index=False)
    run(logger, "cnn-00", 0.8, upper=0.9)
    ((*_, logged),) = recorder.all("log_predictions")
    assert list(logged["logit"]) == [0.0]


def test_an_interrupt_is_passed_on(logger: TrialLogger) -> None:
    calls: list[int] = []
    logger.on_interrupt = lambda: calls.append(1)
    logger.interrupted()
    assert calls == [1]


# A resumed search


def record(name: str, objective: float, ended: str = "finished", status: str = "FINISHED", **tags: str) -> Any:
    """The run of a trial with one full epoch."""
    return SimpleNamespace(
        run_id=f"run-{name}",
        recipe="cnn",
        status=status,
        tags={"muralab.trial": name, "muralab.ended": ended, "muralab.described": "true", **tags},
        metrics={"objective": objective},
        history=pd.DataFrame({"phase": [2.0], "val_study_auroc": [objective]}),
    )


def test_trials_that_have_ended_are_restored_with_their_objectives(logger: TrialLogger) -> None:
    past = logger.restore([record("cnn-00", 0.9), record("cnn-01", 0.8, "pruned"), record("other", 0.1)])
    assert past == {"cnn-00": ("cnn", [0.9]), "cnn-01": ("cnn", [0.8])}
    assert [row.state for row in logger.table.rows.values()] == ["finished", "pruned"]
    assert logger.best == {"cnn": (0.9, "cnn-00")}


def test_a_trial_whose_weights_are_gone_is_not_selected_again(logger: TrialLogger, tmp_path: Path) -> None:
    (tmp_path / "cnn-00" / best_name("full")).unlink()
    logger.restore([record("cnn-00", 0.9), record("cnn-01", 0.8)])
    assert logger.best == {"cnn": (0.8, "cnn-01")}


def test_a_failed_trial_is_tried_again_and_its_old_error_is_cleared(logger: TrialLogger, recorder: Recorder) -> None:
    past = logger.restore([record("cnn-00", 0.9, "failed", **{"muralab.error": "It broke."})])
    assert past == {}
    assert recorder.all("resume_run") == [("run-cnn-00", {"muralab.error": ""})]


def test_the_tag_that_states_the_end_is_written_last(logger: TrialLogger, recorder: Recorder) -> None:
    run(logger, "cnn-00", 0.7)
    assert recorder.calls[-2:] == [
        ("finish", "cnn-00", "FINISHED"),
        ("set_tags", "cnn-00", {"muralab.ended": "finished"}),
    ]


def test_a_trial_that_ended_on_disk_is_not_trained_again_and_logged_in_full(
    logger: TrialLogger, recorder: Recorder
) -> None:
    run(logger, "cnn-00", 0.7, 0.9)
    recorder.calls.clear()
    logger.runs.clear(), logger.best.clear()
    unfinished = record("cnn-00", 0.7, ended="", status="RUNNING")
    past = logger.restore([unfinished])
    assert past == {"cnn-00": ("cnn", [0.7, 0.9])}
    assert [step for _, step, _ in recorder.all("log_epoch")] == [1, 2, 3, 3]
    assert recorder.calls[-2:] == [
        ("finish", "run-cnn-00", "FINISHED"),
        ("set_tags", "run-cnn-00", {"muralab.ended": "finished"}),
    ]
    assert logger.best == {"cnn": (0.9, "cnn-00")}


def test_a_trial_whose_run_was_never_created_gets_one(logger: TrialLogger, recorder: Recorder) -> None:
    run(logger, "cnn-00", 0.7)
    recorder.calls.clear()
    logger.runs.clear()
    assert logger.restore([]) == {"cnn-00": ("cnn", [0.7])}
    assert recorder.all("start") == [("cnn-00",)]


def test_what_an_interruption_kept_from_being_logged_of_an_end_is_logged(
    logger: TrialLogger, recorder: Recorder
) -> None:
    logger.restore([record("cnn-00", 0.9, status="KILLED")])
    assert recorder.all("resume_run") == [("run-cnn-00", {})]
    assert recorder.all("finish") == [("run-cnn-00",)]


def test_a_run_that_was_not_described_is_described_when_it_is_resumed(logger: TrialLogger, recorder: Recorder) -> None:
    half = record("cnn-00", 0.9, ended="", status="KILLED")
    del half.tags["muralab.described"]
    logger.restore([half])
    assert recorder.all("set_tags") == [("run-cnn-00", {"muralab.described": "true"})]


def test_a_diverged_trial_is_not_worth_another_try(logger: TrialLogger) -> None:
    logger.trial_ended("cnn-00", "failed", "The loss is nan.", diverged=True)
    check_failures(logger)
    logger.trial_ended("cnn-01", "failed", "Traceback\nIts process died twice.")
    with pytest.raises(TrialsFailedError, match=r"1 of 2 trials failed.*\n  1\. cnn-01: Its process died twice\."):
        check_failures(logger)


def test_a_batch_in_parts_is_noted_once(logger: TrialLogger, recorder: Recorder) -> None:
    logger.trial_started("cnn-00")
    for number in (1, 2):
        parted = epoch(number, "full", 0.5)
        parted["metrics"]["batch_parts"] = 2.0
        logger.trial_epoch("cnn-00", parted)
    assert len(values_of("muralab.memory", recorder)) == 1
    assert "computed in 2 parts" in logger.notes[0]


def test_fewer_trials_at_once_are_shown_kept_and_passed_on(logger: TrialLogger) -> None:
    told: list[Any] = []
    logger.on_adapted = lambda *arguments: told.append(arguments)
    logger.adapted("Memory ran out.", 2)
    assert (logger.notes, logger.table.concurrent, told) == (["Memory ran out."], 2, [("Memory ran out.", 2)])

"""The last steps of a sweep: what is logged in which order, and what is printed."""

from __future__ import annotations

import base64
import json
import subprocess
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from muralab.errors import SettingsError
from muralab.evaluation import evaluated_model
from muralab.evaluation.evaluated_model import paired_difference
from muralab.registry.register import RegisteredModel
from muralab.report.card import model_card
from muralab.report.context import Context, SearchTrial
from muralab.report.page import write_report
from muralab.results.final_test import FinalTest
from muralab.tracking import RunRecord, Store
from muralab.tracking.tags import Tag
from muralab.tune.finish import (
    SweepResult,
    closing_lines,
    figure_lines,
    log_outcome,
    missing_results,
    nothing_to_test,
    save_importances,
    save_results,
    serve_commands,
    superseded_notes,
)
from muralab.tune.registration import Outcome
from tests.models import build_model
from tests.report.conftest import context  # noqa: F401
from tests.tune.recorder import Recorder

GATE = "inception_add_gate"
URI = "sqlite:////data/my runs/mlflow.db"
STORE = Store(uri=URI)


@pytest.fixture
def sweep(tmp_path: Path) -> Any:
    """Of two recipes with two trials each."""
    counts = pd.DataFrame([{"set": "test", "studies": 40, "patients": 40, "images": 80}])
    return SimpleNamespace(
        part="wrist",
        extended=0,
        notes=("a note",),
        config=SimpleNamespace(recipes={"cnn": None, GATE: None}, options=SimpleNamespace()),
        specs=[SimpleNamespace(name=f"{recipe}-{n:02d}", recipe=recipe) for n in (0, 1) for recipe in ("cnn", GATE)],
        dataset=SimpleNamespace(
            part="wrist", synthetic=False, counts=lambda: counts, tables={"test": pd.DataFrame({"path": ["/p.png"]})}
        ),
        folders=SimpleNamespace(plan=tmp_path / "plan.json"),
    )


@pytest.fixture
def result(sweep: Any) -> SweepResult:
    """The CNN is better on validation, and has a missing neighbour."""
    models = [build_model("cnn", 2.0, objective=0.9), build_model(GATE, 1.0, objective=0.7)]
    tests: Any = [
        FinalTest(spec=SimpleNamespace(name=f"{m.recipe}-01"), network=None, model=m)  # type: ignore[arg-type]
        for m in models
    ]
    return SweepResult(
        sweep=sweep, parent="p", tests=tests, missing=["x has no result."], failures={"b": "T\nIt broke"}
    )


def registered(result: SweepResult, reevaluated: Any = None) -> Outcome:
    """The add-gate model was registered and became champion."""
    model = RegisteredModel(name="mura-wrist", version="3", uri="models:/mura-wrist@champion")
    promotion = SimpleNamespace(alias="champion", reevaluated=reevaluated, fingerprint="f")
    registration: Any = SimpleNamespace(test=result.tests[1], model=model, promotion=promotion)
    return Outcome(statements=["accepted as champion"], registration=registration)


def test_figures_are_logged_before_anything_that_may_fail(result: SweepResult) -> None:
    recorder: Any = Recorder()
    save_results(result, recorder)
    assert [call[0] for call in recorder.calls] == ["log_table", "flush"]
    assert recorder.all("log_table")[0][2] == "results.csv"


def test_the_notes_name_failed_trials_and_missing_recipes(result: SweepResult) -> None:
    assert result.notes == ["a note", "The trial b failed: It broke", "x has no result."]


def test_the_best_model_is_the_one_that_validation_selected(result: SweepResult) -> None:
    assert result.best is result.tests[0]


def test_the_outcome_of_a_registered_model_is_searchable(result: SweepResult) -> None:
    recorder: Any = Recorder()
    log_outcome(result, registered(result), recorder)
    ((run, tags),) = recorder.all("set_tags")
    assert run == "p"
    expected = {"muralab.winner": "cnn-01", "muralab.registered": "mura-wrist/3", "muralab.alias": "champion"}
    assert tags == expected
    ((_, _, metrics),) = recorder.all("log_epoch")
    winner, gate = (model.intervals()["auroc"] for model in result.models)
    assert (metrics["test_study_auroc"], metrics["test_study_auroc_low"]) == (winner.estimate, winner.low)
    assert metrics[f"recipes/{GATE}/test_study_auroc"] == gate.estimate
    assert (metrics["objective"], metrics["recipes/cnn/objective"], metrics[f"recipes/{GATE}/objective"]) == (
        0.9,
        0.9,
        0.7,
    )


def test_a_re_evaluation_is_logged_and_counted(result: SweepResult) -> None:
    recorder: Any = Recorder()
    table = pd.DataFrame({"logit": [0.0]})
    log_outcome(result, registered(result, table), recorder)
    assert recorder.all("log_table") == [("p", table, "judged_again.csv")]
    assert recorder.all("set_tags")[0][1]["muralab.test_fingerprint"] == "f"


def test_the_outcome_without_a_model_says_so(result: SweepResult) -> None:
    recorder: Any = Recorder()
    log_outcome(result, Outcome(statements=["Not registered."]), recorder)
    assert recorder.all("set_tags")[0][1] == {"muralab.winner": "cnn-01", "muralab.registered": ""}


def test_the_last_lines_name_the_selected_model_and_the_registered_one(result: SweepResult) -> None:
    lines = figure_lines(result)
    assert "  x has no result." in lines
    assert lines[-1].startswith("Selected on validation: cnn network reaches a study-level test AUROC of ")
    served, confusion = closing_lines(result, registered(result), STORE)[:2]
    assert served.startswith(f"The registered model is {GATE} network, although cnn network is best on validation")
    assert confusion.startswith("At its threshold of ")


def test_closing_lines_end_with_commands_or_with_the_reason(result: SweepResult) -> None:
    done = closing_lines(result, registered(result), STORE)
    assert "Registered mura-wrist version 3 as models:/mura-wrist@champion." in done
    assert done[-1].startswith("  make app ")
    assert closing_lines(result, Outcome(statements=["Not registered."]), STORE)[-1] == "Not registered."


def test_each_interval_is_computed_once_per_sweep(
    result: SweepResult,
    context: Context,  # noqa: F811
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls = []
    resample = evaluated_model.resample
    monkeypatch.setattr(evaluated_model, "resample", lambda *args: calls.append(args) or resample(*args))
    recorder: Any = Recorder()
    save_results(result, recorder)
    write_report(tmp_path / "report.html", context=context, models=result.models)
    model_card(result.models[1], context)
    log_outcome(result, registered(result), recorder)
    closing_lines(result, registered(result), STORE)
    paired_difference(*result.models, metric="kappa")
    per_model = ["test studies", "test images", "validation studies"]
    assert len(calls) == len(per_model) * len(result.models)


def test_importances_are_logged_where_there_are_enough_trials(result: SweepResult) -> None:
    trials = [
        SearchTrial(recipe=recipe, name=f"{recipe}-{n}", run_id="", status="finished", epochs=2, objective=0.5 + n / 50,
                    values={"full.lr": 1e-4 * (n + 1)}, curve=pd.Series(dtype=float), boundary=None)
        for recipe, n_trials in (("cnn", 6), (GATE, 2)) for n in range(n_trials)
    ]  # fmt: skip
    recorder: Any = Recorder()
    save_importances(replace(result, trials=trials), recorder)
    ((run, step, metrics),) = recorder.all("log_epoch")
    assert (run, step, set(metrics)) == (
        "p", 0, {f"importance/cnn/full.lr{end}" for end in ("", "_low", "_high")},
    )  # fmt: skip
    assert recorder.all("log_table")[0][2] == "importances.csv"
    few: Any = Recorder()
    save_importances(replace(result, trials=trials[-2:]), few)
    assert few.calls == []


def test_trials_that_were_tested_before_the_chosen_ones_are_counted() -> None:
    def tested(name: str) -> RunRecord:
        tags = {Tag.TRIAL: name, Tag.TEST_FINGERPRINT: "f"}
        return RunRecord(run_id=name, name=name, status="FINISHED", experiment_id="1", kind="trial", tags=tags)

    assert superseded_notes({"cnn-01": tested("cnn-01")}, ["cnn-01"]) == []
    (note,) = superseded_notes({"cnn-01": tested("cnn-01"), "cnn-04": tested("cnn-04")}, ["cnn-04", "x-00"])
    assert note.startswith("The test set has been evaluated for 3 trials of this sweep")
    assert note.endswith("before these for cnn-01.")


def test_a_recipe_without_a_result_is_named_with_its_reason(sweep: Any) -> None:
    failures = {"cnn-00": "Traceback\nValueError: no such shape."}
    assert missing_results(sweep, {}, failures) == [
        "cnn has no result: of 2 trials, 1 failed, the first with: ValueError: no such shape; 1 had no time for an "
        "epoch of the full phase.",
        f"{GATE} has no result: of 2 trials, 2 had no time for an epoch of the full phase.",
    ]


def test_nothing_to_test_says_why() -> None:
    assert "All trials failed; the first error was:\nIt broke." in str(nothing_to_test({"a": "It broke."}))
    assert isinstance(nothing_to_test({}), SettingsError)


@pytest.mark.parametrize(
    ("name", "alias", "command"),
    [("mura-wrist", "champion", "make serve "), ("mura-hand", "champion", "make serve PART=hand "),
     ("mura-wrist", "challenger", "mlflow models serve "), ("other", "champion", "mlflow models serve ")],
)  # fmt: skip
def test_in_a_checkout_the_champion_is_served_by_make(name: str, alias: str, command: str) -> None:
    model = RegisteredModel(name=name, version="1", uri=f"models:/{name}@{alias}")
    assert command in serve_commands(model, STORE, "/p.png")[1]


def test_the_commands_can_be_pasted_whatever_the_paths_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)  # in a checkout they are those of make
    image = tmp_path / "it's a 'path'.png"
    image.write_bytes(b"pixels")
    model = RegisteredModel(name="m", version="1", uri="models:/mura-wrist@champion")
    _, serve, _, ask = serve_commands(model, STORE, str(image))
    done = subprocess.run(["bash", "-c", f"curl() {{ cat; }}\n{ask}"], capture_output=True, text=True, check=True)
    assert base64.b64decode(json.loads(done.stdout)["dataframe_records"][0]["image"]) == b"pixels"
    shown = f"mlflow() {{ echo $MLFLOW_TRACKING_URI; }}\n{serve}"
    assert subprocess.check_output(["bash", "-c", shown], text=True).strip() == URI


def test_a_password_is_not_part_of_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = RegisteredModel(name="m", version="1", uri="models:/m@champion")
    store = Store(uri="postgresql://me:secret@host/runs", registry_uri="http://registry")
    text = " ".join(serve_commands(model, store, "/p.png"))
    assert "secret" not in text
    assert "MLFLOW_REGISTRY_URI=http://registry mlflow models serve" in text

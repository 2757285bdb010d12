"""`report` from the command line: runs in a store -> a page, or an error that says why not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from typer.testing import CliRunner

from muralab.cli import app
from muralab.errors import SettingsError, StoreError
from muralab.evaluation.calibration import Calibration
from muralab.evaluation.intervals import INTERVAL_METHOD
from muralab.results.from_mlflow import read_context, read_models
from muralab.tracking import RunWriter, open_store, read_run
from tests.fixtures.documented import undocumented

TAGS = {
    "muralab.part": "wrist",
    "muralab.recipe": "cnn",
    "muralab.synthetic": "true",
    "muralab.seed": "3",
    "muralab.protocol": "valid-as-test",
    "muralab.split_fingerprint": "abc",
}


def predictions(skill: float, first: int = 0) -> pd.DataFrame:
    noise = np.random.default_rng(0).normal(size=40)
    rows = []
    for patient in range(40):
        study = f"valid/XR_WRIST/patient{first + patient:05d}/study1"
        logit = skill * (2 * (patient % 2) - 1) + noise[patient]
        rows.append((f"{study}/image1.png", study, study.split("/")[2], "wrist", patient % 2, logit))
    return pd.DataFrame(rows, columns=["image", "study", "patient", "part", "label", "logit"])


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return open_store(f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db")


def add_run(writer: RunWriter, name: str, test: pd.DataFrame | None, parent: str | None = None, **tags: str) -> str:
    run = writer.start_run(experiment="lab", kind="trial", name=name, parent=parent, tags={**TAGS, **tags})
    writer.log_epoch(
        run, 1, {"train_loss": 0.6, "val_loss": 0.7, "val_study_auroc": 0.8, "phase": 2.0, "objective": 0.8}
    )
    writer.log_text(run, json.dumps(Calibration(threshold=0.4).to_dict()), "calibration.json")
    writer.log_resolved(run, {"image_size": 64, "full.lr": 1e-3})
    if test is not None:
        writer.log_predictions(run, "test", test)
    writer.finish(run)
    return writer.run_id(run)


@pytest.fixture(scope="module")
def runs(store) -> dict[str, str]:
    """A sweep of two tested trials and an untested one, a run of another part, and one of another test set."""
    with RunWriter(store) as writer:
        sweep = writer.start_run(experiment="lab", kind="tune", name="tune-wrist", tags=TAGS)
        ids = {
            "good": add_run(writer, "cnn-00", predictions(1.5), sweep),
            "poor": add_run(writer, "other-00", predictions(0.2), sweep, **{"muralab.recipe": "gone_recipe"}),
            "untested": add_run(writer, "cnn-01", None, sweep),
            "hand": add_run(writer, "cnn-02", predictions(1.0), **{"muralab.part": "hand"}),
            "elsewhere": add_run(writer, "cnn-03", predictions(1.0, first=500)),
        }
        writer.finish(sweep)
        return {**ids, "sweep": writer.run_id(sweep)}


@pytest.fixture
def report(store, monkeypatch, tmp_path):
    """A function that runs the command; returns what it printed, or raises what it raised."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def call(*words: str) -> str:
        result = CliRunner().invoke(app, ["report", *words])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.output

    return call


@pytest.mark.slow
def test_a_sweep_stands_for_its_tested_trials(store, runs, report, tmp_path):
    said = report("--runs", runs["sweep"], "--out", str(tmp_path / "pages"), "--pictures", "false")
    page = (tmp_path / "pages" / "report.html").read_text(encoding="utf-8")
    assert "The report of 2 runs" in said
    assert "gone_recipe against custom CNN: paired difference" in page
    assert "A model that is chosen from 3 evaluations looks better than it is: read its test AUROC of" in page
    assert "cnn-01" in page, "the search's table names the trial that was not tested"
    assert "No model was registered" not in page


def test_intervals_logged_by_another_method_are_named(store, runs):
    old, new = (read_run(store, runs[name]) for name in ("good", "poor"))
    new = replace(new, tags={**new.tags, "muralab.intervals": INTERVAL_METHOD})
    (note,) = read_context(store, [old, new]).notes
    assert note.startswith("Intervals logged with cnn-00 were found with another method")
    assert read_context(store, [new]).notes == []


@pytest.mark.slow
def test_the_page_lies_in_a_run_of_kind_report(store, runs, report):
    said = report("--runs", f"{runs['good']},{runs['poor']}", "--pictures", "false")
    record = read_run(store, said.split("run ")[1].split(":")[0])
    assert (record.kind, record.part, record.status) == ("report", "wrist", "FINISHED")
    held = {item.path for item in store.client.list_artifacts(record.run_id)} - {"platform"}  # of an edited checkout
    assert held == {"report.html", "results.csv"}
    assert undocumented(store, record.run_id) == []


@pytest.mark.slow
def test_runs_without_weights_have_a_report_without_gallery(runs, report):
    assert "No gallery: " in report("--runs", runs["good"], "--pictures", "true")


def test_runs_of_different_parts_are_not_compared(runs, report):
    with pytest.raises(SettingsError, match=r"have 2 different parts(.|\n)*hand: " + "[0-9a-f]{32}"):
        report("--runs", f"{runs['good']},{runs['hand']}")


def test_runs_of_different_test_sets_are_not_compared(runs, report):
    with pytest.raises(SettingsError, match="have 2 different test sets, whose figures cannot be compared"):
        report("--runs", f"{runs['good']},{runs['elsewhere']}")


def test_runs_without_test_predictions_are_named(runs, report):
    with pytest.raises(
        StoreError, match=rf"1 of 2 runs hold no test predictions(.|\n)*{runs['untested']} \(trial, cnn-01"
    ):
        report("--runs", f"{runs['good']},{runs['untested']}")


def test_figures_of_the_training_set_are_refused(store, report):
    with RunWriter(store) as writer:
        run = add_run(writer, "evaluate-cnn", predictions(1.0), **{"muralab.set": "train"})
    with pytest.raises(
        SettingsError, match=rf"these runs were evaluated on what their models have seen(.|\n)*{run}: train"
    ):
        report("--runs", run)


def test_an_evaluation_is_selected_by_its_models_validation(store, runs):
    with RunWriter(store) as writer:
        run = writer.start_run(experiment="lab", kind="evaluate", name="evaluate-cnn", tags=TAGS)
        writer.set_tags(run, {"muralab.evaluates": runs["good"]})
        writer.log_predictions(run, "test", predictions(1.0))
        writer.finish(run)
    (model,) = read_models(store, [read_run(store, writer.run_id(run))])
    assert model.objective == 0.8


@pytest.mark.slow
def test_a_comparison_is_reported_by_its_sentence(store, report, tmp_path):
    with RunWriter(store) as writer:
        parent = writer.start_run(experiment="lab", kind="compare", name="compare-wrist", tags=TAGS)
        for seed, skill in enumerate((1.5, 1.4)):
            add_run(writer, f"cnn-seed{seed}", predictions(skill), parent)
        writer.set_tags(parent, {"muralab.comparison": "The one reaches more over 2 seeds."})
        writer.finish(parent)
        parent = writer.run_id(parent)
    said = report("--runs", parent, "--out", str(tmp_path / "r.html"))
    assert "The one reaches more over 2 seeds." in said
    assert "paired difference" not in said
    assert "Compared over seeds, evaluated on test" in (tmp_path / "r.html").read_text("utf-8")


def test_no_run_is_a_mistake(report):
    with pytest.raises(SettingsError, match="runs= names no run"):
        report("--runs", " , ")


def test_a_report_that_cannot_be_written_says_where(runs, report, tmp_path):
    Path(tmp_path / "file").write_text("no folder")
    with pytest.raises(Exception, match=r"The report cannot be written to .*file/report.html"):
        report("--runs", runs["good"], "--pictures", "false", "--out", str(tmp_path / "file"))


def test_runs_of_one_recipe_are_told_apart(store, runs):
    records = [read_run(store, runs[name]) for name in ("good", "elsewhere", "poor")]
    assert [one.title for one in read_models(store, records)] == ["custom CNN (00)", "custom CNN (03)", "gone_recipe"]

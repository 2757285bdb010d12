"""Commands work on runs and models that commit 2303a03 logged, and give the same figures."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest

import muralab
from muralab.evaluation.intervals import INTERVAL_METHOD
from muralab.results.from_mlflow import read_models
from muralab.tracking import RunRecord, Store, download_artifact, read_run
from tests.cli.conftest import Muralab
from tests.fixtures.old_store import unpack
from tests.fixtures.runs import find_run, find_runs

pytestmark = pytest.mark.slow
NET = "tiny_lab.small_net"
BOUNDS = ("_low", "_high")


@pytest.fixture
def old_store(muralab: Muralab, tmp_path: Path, easy_tree: Path, monkeypatch: pytest.MonkeyPatch) -> Store:
    """The store that the commands of a test use."""
    (tmp_path / "old").mkdir()
    store = unpack(tmp_path / "old", easy_tree)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    return store


def test_an_evaluation_gives_the_same_figures(muralab: Muralab, old_store: Store) -> None:
    old = find_run(old_store, "evaluate-cnn-00")
    outcome = muralab("evaluate", model=old.tags["muralab.evaluates"])
    assert outcome.code == 0, outcome
    new = find_runs(old_store)[-1]
    assert estimates(new) == pytest.approx(estimates(old), rel=1e-5)
    assert (old.tags.get("muralab.intervals"), new.tags["muralab.intervals"]) == (None, INTERVAL_METHOD)
    assert new.tags["muralab.test_fingerprint"] == old.tags["muralab.test_fingerprint"]


def test_a_registered_model_is_evaluated_with_the_same_figures(muralab: Muralab, old_store: Store) -> None:
    old = find_run(old_store, f"train-{NET}")
    outcome = muralab("evaluate", model="models:/mura-wrist@challenger")
    assert outcome.code == 0, outcome
    new = estimates(find_runs(old_store)[-1])
    assert new == pytest.approx({key: old.metrics[key] for key in new}, rel=1e-5)


def estimates(run: RunRecord) -> dict[str, float]:
    """A run's metrics without the bounds of intervals, whose method has changed since 2303a03."""
    return {key: value for key, value in run.metrics.items() if not key.endswith(BOUNDS)}


def read_figures(store: Store, run: RunRecord, folder: Path) -> pd.DataFrame:
    """The numbers of a run's table of results, by run, without the bounds of intervals."""
    table = pd.read_csv(download_artifact(store, run.run_id, "results.csv", folder))
    numbers = table.set_index("run_id").sort_index().select_dtypes("number")
    return numbers.loc[:, ~numbers.columns.str.endswith(BOUNDS)]


@pytest.mark.parametrize("name", ["tune-wrist", "compare-wrist", f"train-{NET}"])
def test_a_report_has_the_same_figures(muralab: Muralab, old_store: Store, tmp_path: Path, name: str) -> None:
    old = find_run(old_store, name)
    outcome = muralab("report", runs=old.run_id, out=tmp_path / "report.html")
    assert outcome.code == 0, outcome
    new = find_runs(old_store)[-1]
    assert new.kind == "report"
    before, after = (read_figures(old_store, run, tmp_path / run.run_id) for run in (old, new))
    pd.testing.assert_frame_equal(after, before)
    assert "were found with another method" in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_report_names_the_calibration_of_an_old_model(muralab: Muralab, old_store: Store, tmp_path: Path) -> None:
    run = find_run(old_store, f"train-{NET}").run_id
    assert muralab("report", runs=run, out=tmp_path / "report.html").code == 0
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert "calibrated in an earlier version by a temperature alone (images " in page


def test_an_old_run_refuses_another_prevalence(muralab: Muralab, old_store: Store) -> None:
    outcome = muralab("evaluate", model=find_run(old_store, f"train-{NET}").run_id, prevalence=0.1)
    assert outcome.code == 2
    assert "calibrated by a temperature alone, in an earlier version" in outcome.complaint


def predict(*flags: str) -> subprocess.CompletedProcess[str]:
    """Run `predict` in a process of its own, which imports the registered model's code."""
    command = [sys.executable, "-m", "muralab", "predict", "--study", "folder", *flags]
    environment = os.environ | {"PYTHONPATH": str(Path(muralab.__file__).parents[1])}
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600, check=False)


def test_an_old_version_answers_with_the_old_probabilities(old_store: Store, easy_tree: Path, tmp_path: Path) -> None:
    version = old_store.client.get_model_version_by_alias("mura-wrist", "champion")
    asked = ("--images", str(easy_tree / "valid"), "--model", "models:/mura-wrist@champion")
    done = predict(*asked, "--out", str(tmp_path / "out.csv"))
    assert done.returncode == 0, done.stderr
    model = read_models(old_store, [read_run(old_store, version.run_id)])[0]
    wanted, found = model.studies().set_index("study")["calibrated"], pd.read_csv(tmp_path / "out.csv")
    answered = found.assign(study="valid/" + found["study"]).drop_duplicates("study").set_index("study")
    assert answered["study_probability"].to_dict() == pytest.approx(wanted.to_dict(), abs=1e-5)
    refused = predict(*asked, "--out", str(tmp_path / "shifted.csv"), "--prevalence", "0.1")
    assert "this model was registered by an earlier version, which cannot shift its probabilities" in refused.stderr


def test_the_report_of_a_comparison_repeats_its_result(muralab: Muralab, old_store: Store, tmp_path: Path) -> None:
    old = find_run(old_store, "compare-wrist")
    outcome = muralab("report", runs=old.run_id, out=tmp_path / "report.html")
    assert outcome.code == 0, outcome
    assert old.tags["muralab.comparison"] in (tmp_path / "report.html").read_text(encoding="utf-8")


def test_a_version_is_refused_by_the_same_difference(muralab: Muralab, old_store: Store) -> None:
    before = old_store.client.get_model_version("mura-wrist", "2").tags
    outcome = muralab("promote", version=2)
    assert outcome.code == 0, outcome
    after = old_store.client.get_model_version("mura-wrist", "2").tags
    decision = ("muralab.gate", "muralab.gate_against")
    assert {key: after[key] for key in decision} == {key: before[key] for key in decision}
    differences = [tags["muralab.gate_difference"] for tags in (before, after)]
    assert differences == ["+0.000 [+0.000, +0.000]", "+0.000 [-0.025, +0.025]"]  # two perfect models of 24 patients
    assert (before.get("muralab.gate_rule"), before["muralab.gate_margin"]) == (None, "0.05")
    assert after["muralab.gate_rule"] == "gain at 80%, margin 0.025, guards on evidence, kappa above chance"


def test_a_run_is_registered_and_promoted(muralab: Muralab, old_store: Store) -> None:
    outcome = muralab("promote", run=find_run(old_store, "cnn-00").run_id)
    assert outcome.code == 0, outcome
    version = old_store.client.get_model_version("mura-wrist", "3")
    assert version.tags["muralab.gate_against"] == "version 1"

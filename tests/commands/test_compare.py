"""`compare`: two small recipes, two seeds, one sentence, and a page that selects none of the four models."""

from __future__ import annotations

import sys

import pandas as pd
import pytest

from muralab.commands.compare import with_seed
from muralab.tracking import download_artifact, read_children
from muralab.trial import TrialSpec
from tests.fixtures.runs import find_runs
from tests.tune.conftest import RECIPE, bench, finish  # noqa: F401

OPTIONS = {"recipes": f"{RECIPE},cnn", "seeds": 2, "epochs": "1+1", "image_size": 36, "threshold": "youden"}


def test_a_seed_has_a_trial_and_a_folder_of_its_own() -> None:
    spec = TrialSpec(name="cnn-00", recipe="cnn", table="", cache_folder="", folder="/sweeps/x/trials/cnn-00")
    seeded = with_seed(spec, 3)
    assert (seeded.name, seeded.seed, seeded.folder) == ("cnn-seed3", 3, "/sweeps/x/trials/cnn-seed3")


@pytest.fixture(scope="module")
def compared(bench):  # noqa: F811
    """What the command printed, its run and those of its trials."""
    flags = [word for key, value in OPTIONS.items() for word in (f"--{key.replace('_', '-')}", str(value))]
    process = bench.start(sys.executable, "-m", "muralab", "compare", "--data", str(bench.tree), *flags)
    output = finish(process, wait_s=1500)
    assert process.returncode == 0, output
    (parent,) = (run for run in find_runs(bench.store) if run.kind == "compare")
    return output, parent, read_children(bench.store, parent.run_id, predictions=True)


@pytest.mark.slow
def test_every_recipe_is_tested_with_every_seed(compared):
    _, parent, trials = compared
    expected = {f"{recipe}-seed{seed}" for recipe in (RECIPE, "cnn") for seed in (0, 1)}
    assert {run.name for run in trials if "test" in run.predictions} == expected
    assert {run.status for run in (parent, *trials)} == {"FINISHED"}


@pytest.mark.slow
def test_the_difference_is_stated_in_one_sentence(compared, bench, tmp_path):  # noqa: F811
    output, parent, _ = compared
    sentence = parent.tags["muralab.comparison"]
    assert sentence.startswith("On 24 test studies of 24 patients (wrist, radiographs), over 2 seeds of one split")
    assert sentence in output
    table = pd.read_csv(download_artifact(bench.store, parent.run_id, "differences.csv", tmp_path))
    assert list(table["metric"]) == ["auroc", "kappa"]


@pytest.mark.slow
def test_its_page_shows_the_sentence_and_no_best_model(compared, bench, tmp_path):  # noqa: F811
    _, parent, _ = compared
    page = download_artifact(bench.store, parent.run_id, "report.html", tmp_path).read_text("utf-8")
    hero = page.split('class="hero"')[1].split("<nav")[0]
    assert "over 2 seeds of one split" in hero
    assert hero.count("paired difference") == 1
    assert "Selected on validation" not in page
    assert "pictures=true" not in page
    assert "<small>youden</small>" in page

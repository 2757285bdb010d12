"""The whole command: two small recipes, two seeds, one sentence, and a page that chooses none of the four models."""

from __future__ import annotations

import sys

import pandas as pd
import pytest

from muralab.tracking import download_artifact, read_children
from tests.fixtures.runs import find_runs
from tests.tune.conftest import RECIPE, bench, finish  # noqa: F401

pytestmark = pytest.mark.slow
WORDS = {"recipes": f"{RECIPE},cnn", "seeds": 2, "epochs": "1+1", "image_size": 36, "threshold": "youden"}


@pytest.fixture(scope="module")
def compared(bench):  # noqa: F811
    """What the command printed, its run and those of its trials."""
    flags = [word for key, value in WORDS.items() for word in (f"--{key.replace('_', '-')}", str(value))]
    process = bench.start(sys.executable, "-m", "muralab", "compare", "--data", str(bench.tree), *flags)
    said = finish(process, wait_s=1500)
    assert process.returncode == 0, said
    (parent,) = (run for run in find_runs(bench.store) if run.kind == "compare")
    return said, parent, read_children(bench.store, parent.run_id, predictions=True)


def test_every_recipe_is_tested_with_every_seed(compared):
    _, parent, trials = compared
    expected = {f"{recipe}-seed{seed}" for recipe in (RECIPE, "cnn") for seed in (0, 1)}
    assert {run.name for run in trials if "test" in run.predictions} == expected
    assert {run.status for run in (parent, *trials)} == {"FINISHED"}


def test_the_difference_is_stated_in_one_sentence(compared, bench, tmp_path):  # noqa: F811
    said, parent, _ = compared
    sentence = parent.tags["muralab.comparison"]
    assert sentence.startswith("On 24 test studies of 24 patients (wrist, radiographs), over 2 seeds of one split")
    assert sentence in said
    table = pd.read_csv(download_artifact(bench.store, parent.run_id, "differences.csv", tmp_path))
    assert list(table["metric"]) == ["auroc", "kappa"]


def test_its_page_shows_the_sentence_and_no_best_model(compared, bench, tmp_path):  # noqa: F811
    _, parent, _ = compared
    page = download_artifact(bench.store, parent.run_id, "report.html", tmp_path).read_text("utf-8")
    hero = page.split('class="hero"')[1].split("<nav")[0]
    assert "over 2 seeds of one split" in hero
    assert hero.count("paired difference") == 1
    assert "Selected on validation" not in page
    assert "pictures=true" not in page
    assert "<small>youden</small>" in page

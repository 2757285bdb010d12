"""`compare`: two small recipes, two seeds, one sentence, and a page that selects none of the four models."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from muralab.commands import compare
from muralab.commands.compare import SplitResult, over_folds, with_seed
from muralab.data.mura import read_index
from muralab.evaluation.evaluated_model import EvaluatedModel
from muralab.tracking import RunRecord, Store, download_artifact, read_children
from muralab.trial import TrialSpec
from muralab.tune.plan import Sweep
from tests.cli.conftest import SMALL, Muralab, all_runs
from tests.fixtures.documented import undocumented
from tests.fixtures.manifests import rows_of, without, write_csv
from tests.fixtures.runs import find_runs
from tests.tune.conftest import RECIPE, bench, finish  # noqa: F401

OPTIONS = {"recipes": f"{RECIPE},cnn", "seeds": 2, "epochs": "1+1", "image_size": 36, "threshold": "youden"}


def test_a_seed_has_a_trial_and_a_folder_of_its_own() -> None:
    spec = TrialSpec(name="cnn-00", recipe="cnn", table="", cache_folder="", folder="/sweeps/x/trials/cnn-00")
    seeded = with_seed(spec, 3)
    assert (seeded.name, seeded.seed, seeded.folder) == ("cnn-seed3", 3, "/sweeps/x/trials/cnn-seed3")


def answered(sweep: Sweep) -> SplitResult:
    """What a comparison has trained on one split, with answers that nobody had to train: `cnn` is right more often."""
    test = sweep.dataset.tables["test"]
    signs = 2.0 * test["label"].to_numpy() - 1
    models = {}
    for number, spec in enumerate(sweep.specs):
        noise = np.random.default_rng([number, len(test)]).normal(size=len(test))
        logits = signs * (3.0 if spec.recipe == "cnn" else 0.3) + noise
        model = EvaluatedModel(recipe=spec.recipe, title=spec.recipe, run_id=spec.name, test=test.assign(logit=logits))
        models[spec.name] = replace(model, name=spec.name)
    return SplitResult(sweep=sweep, models=models, unseen=sweep.dataset, left_out="", failures={})


def test_recipes_are_compared_over_all_folds(
    muralab: Muralab, store: Store, easy_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compare, "train_and_test", lambda sweep, *_: answered(sweep))
    data = write_csv(tmp_path / "rows.csv", without(rows_of(easy_tree), "split"))
    values = {"recipes": f"{SMALL},cnn", "epochs": "1+1", "image_size": 36, "seeds": 1, "test_folds": 2}
    outcome = muralab("compare", data=data, root=easy_tree, **values)
    assert outcome.code == 0, outcome
    assert "2 recipes x 1 seed on each of 2 folds, " in outcome.out
    (parent,) = (run for run in all_runs(store) if run.kind == "compare" and "fold" not in run.name)
    folds = read_children(store, parent.run_id)
    assert sorted(run.name for run in folds) == [f"{parent.name} · fold {n}" for n in (1, 2)]
    assert {run.status for run in (parent, *folds)} == {"FINISHED"}
    check_pooled(store, parent, outcome.out, tmp_path)


def check_pooled(store: Store, parent: RunRecord, out: str, folder: Path) -> None:
    sentence = parent.tags["muralab.comparison"]
    assert sentence.startswith("On 72 test studies of 72 patients (wrist, radiographs), over 1 seed of 2 folds (each ")
    assert "higher: the interval excludes 0" in sentence
    assert sentence in out
    assert parent.tags["muralab.protocol"] == "test_folds=2"
    results = pd.read_csv(download_artifact(store, parent.run_id, "results.csv", folder))
    assert results["test_studies"].tolist() == [72, 72]
    page = download_artifact(store, parent.run_id, "report.html", folder).read_text(encoding="utf-8")
    assert "test of 2 folds" in page
    assert "each fold&#39;s own" in page


def test_a_trial_that_a_fold_lacks_is_not_compared(easy_tree: Path) -> None:
    test = read_index(easy_tree, "wrist").assign(logit=0.0)
    halves = [test[test["patient"] < "patient00036"], test[test["patient"] >= "patient00036"]]
    both, one = ([EvaluatedModel(recipe=r, title=r, run_id=r, test=half) for half in halves] for r in ("a", "b"))
    found = over_folds([{"a": both[0], "b": one[0]}, {"a": both[1]}])
    assert list(found) == ["a"]
    assert len(found["a"].studies()) == 72


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
def test_every_recipe_is_tested_with_every_seed(compared, bench):  # noqa: F811
    _, parent, trials = compared
    expected = {f"{recipe}-seed{seed}" for recipe in (RECIPE, "cnn") for seed in (0, 1)}
    assert {run.name for run in trials if "test" in run.predictions} == expected
    assert {run.status for run in (parent, *trials)} == {"FINISHED"}
    assert [what for run in (parent, *trials) for what in undocumented(bench.store, run.run_id)] == []


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

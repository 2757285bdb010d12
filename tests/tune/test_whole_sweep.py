"""A whole sweep through `mlflow run`, and the same with a tracking server: what it leaves behind."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pandas as pd
import pytest

from muralab.tracking import download_artifact
from muralab.tracking.experiment_page import view_key
from muralab.tracking.pages import MODEL_TRAINING, address, run_page, view_page
from tests.app.browser import Browser, browsing, needs_browser
from tests.fixtures.documented import undocumented
from tests.tune.conftest import RECIPE, Bench, Swept, sweep

pytestmark = pytest.mark.slow
N_EPOCHS, N_FROZEN = 5, 2
Visit = Callable[..., None]
EPOCH_METRICS = {"train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_auroc", "val_study_auroc", "lr"}


@pytest.fixture(scope="module")
def local(bench: Bench) -> Swept:
    return sweep(bench, bench.project())


@pytest.fixture(scope="module")
def remote(remote_bench: Bench) -> Swept:
    return sweep(remote_bench, remote_bench.tune())


@pytest.fixture(params=["local", "remote"])
def swept(request: pytest.FixtureRequest) -> Swept:
    return request.getfixturevalue(request.param)


def test_it_ends_well_with_the_next_commands(swept: Swept) -> None:
    assert swept.code == 0, swept.output
    for part in (
        "Plan",
        "AUROC",
        "mura-wrist version 1",
        "make serve",
        "make app",
    ):
        assert part in swept.output
    assert "Traceback" not in swept.output
    assert "View run" not in swept.output


def test_trials_are_nested_and_none_is_left_running(swept: Swept) -> None:
    assert {run.status for run in swept.runs} == {"FINISHED"}
    assert len(swept.trials) == 2
    assert {run.parent for run in swept.trials} == {swept.parent.run_id}
    assert {run.experiment_id for run in swept.runs} == {swept.parent.experiment_id}


def test_the_run_of_mlflow_run_is_the_sweep(local: Swept) -> None:
    assert len(local.runs) == 3
    assert local.parent.params["recipes"] == RECIPE
    assert (local.parent.params["trials"], local.parent.params["resolved.cpus_per_trial"]) == ("2", "1")
    assert "mlflow.project.entryPoint" in local.parent.tags


def test_every_epoch_is_logged(swept: Swept) -> None:
    first = next(run for run in swept.trials if run.tags["muralab.trial"] == f"{RECIPE}-00")
    epochs = first.history.dropna(subset=["train_loss"])
    assert list(epochs.index) == [1, 2, 3, 4, 5]
    assert list(epochs["phase"]) == [1, 1, 2, 2, 2]
    assert epochs[list(EPOCH_METRICS)].notna().all(axis=None)


def test_a_phase_is_summarised_by_its_best_epoch(swept: Swept) -> None:
    for run in swept.trials:
        epochs = run.history.dropna(subset=["train_loss"])
        for number, phase in enumerate(("upper", "full"), start=1):
            rows = epochs[epochs["phase"] == number]
            best = rows.loc[rows["val_study_auroc"].idxmax()]
            for name in ("train_loss", "train_accuracy", "val_loss", "val_accuracy", "val_auroc", "val_study_auroc"):
                assert run.metrics[f"{phase}_{name}"] == pytest.approx(best[name])


def test_the_first_trial_is_the_recipe_and_the_second_is_not(swept: Swept) -> None:
    found = {run.tags["muralab.trial"][-2:]: run for run in swept.trials}
    assert found["00"].params["full.lr"] == found["00"].values["full.lr"] == "0.02"
    assert found["01"].params["full.lr"] != "0.02"
    assert found["01"].params["resolved.upper.lr"] == found["00"].params["resolved.upper.lr"]


def test_tags_say_what_a_run_is(swept: Swept) -> None:
    for run in swept.runs:
        assert (run.tags["muralab.part"], run.tags["muralab.synthetic"], run.tags["muralab.seed"]) == (
            "wrist", "false", "0"
        )  # fmt: skip
        assert len(run.tags["muralab.split_fingerprint"]) >= 16
    assert {run.kind for run in swept.trials} == {"trial"}
    assert {run.recipe for run in swept.trials} == {RECIPE}


def test_everything_that_is_logged_is_documented(swept: Swept) -> None:
    assert [what for run in swept.runs for what in undocumented(swept.bench.store, run.run_id)] == []


def test_the_three_sets_are_inputs_with_digests(swept: Swept) -> None:
    for run in swept.runs:
        inputs = swept.bench.store.client.get_run(run.run_id).inputs.dataset_inputs
        assert {tag.value for one in inputs for tag in one.tags} == {"training", "validation", "test"}
        assert len({one.dataset.digest for one in inputs}) == 3
    assert json.loads(inputs[0].dataset.profile)["images"] > 0


def test_predictions_are_kept(swept: Swept) -> None:
    for run in swept.trials:
        assert set(run.predictions["validation"]["label"]) == {0, 1}
    tested = [run for run in swept.trials if "test_study_auroc" in run.metrics]
    assert len(tested) == 1, "only the best trial is tested"
    assert tested[0].predictions["test"]["study"].nunique() == 24
    assert tested[0].metrics["test_study_auroc"] > 0.9


def test_the_report_stands_alone(swept: Swept, tmp_path: Path) -> None:
    path = download_artifact(swept.bench.store, swept.parent.run_id, "report.html", tmp_path)
    text = path.read_text("utf-8")
    assert "small network" in text
    assert "<script src=" not in text
    assert "<link " not in text


def test_the_results_are_a_table(swept: Swept, tmp_path: Path) -> None:
    path = download_artifact(swept.bench.store, swept.parent.run_id, "results.csv", tmp_path)
    assert len(pd.read_csv(io.StringIO(path.read_text("utf-8")))) >= 1


def test_the_recipes_source_is_kept(swept: Swept, tmp_path: Path) -> None:
    path = download_artifact(swept.bench.store, swept.trials[0].run_id, "recipe/small_net.py", tmp_path)
    assert path.read_text("utf-8") == (swept.bench.lab / "tiny_lab" / "small_net.py").read_text("utf-8")


def test_the_champion_is_registered(swept: Swept) -> None:
    version = swept.bench.store.client.get_model_version_by_alias("mura-wrist", "champion")
    assert version.run_id in {run.run_id for run in swept.trials}
    assert version.tags["muralab.recipe"] == RECIPE


def test_nothing_of_the_sweep_is_left_on_disk(swept: Swept) -> None:
    folder = swept.bench.cache / "muralab"
    assert {path.name for path in folder.iterdir()} >= {"pixels", "features"}
    assert list((folder / "sweeps").iterdir()) == []


def test_one_seed_gives_the_same_metrics_on_every_epoch(local: Swept, remote: Swept) -> None:
    tables = [{run.tags["muralab.trial"]: run.history for run in one.trials} for one in (local, remote)]
    assert set(tables[0]) == set(tables[1])
    for name, one in tables[0].items():
        both = sorted(set(one.index) & set(tables[1][name].index))
        columns = sorted(EPOCH_METRICS)
        assert len(both) >= N_FROZEN + 1, "no trial is stopped before an epoch of the full phase"
        pd.testing.assert_frame_equal(one.loc[both, columns], tables[1][name].loc[both, columns], check_exact=True)


# MLflow's own pages in a real browser


SEARCHED = {"full.lr", "augment.shift"}
AXIS = ".parcoords .dimension .label, .axis-overlays .axis-title"
"""Names of axes: in a view of charts, and where runs are compared."""
AXES = f"return [...document.querySelectorAll('{AXIS}')].map((name) => name.textContent)"
COLUMNS = "return [...document.querySelectorAll('[role=columnheader]')].map((head) => head.getAttribute('col-id'))"
NOTE = "[data-testid=note-editor-preview-content]"
LINKS = f"return [...document.querySelectorAll('{NOTE} a')].map((link) => [link.innerText, link.getAttribute('href')])"
TRIAL = ("Finished after 5 epochs", "small_net", "objective/best", "full.lr")
LINKED = {
    RECIPE: TRIAL,
    "Run of the chosen model": TRIAL,
    "Its trials as a table": ("full.lr", "objective/best", "muralab.test_study_auroc", "finished"),
    "as charts, with parallel coordinates": ("Parallel Coordinates", "objective/epoch", "val/loss"),
    "Report": ("results.csv", "report.html"),
    "mura-wrist version 1": ("Intended use", "of 12 abnormal studies"),
}
"""Link in the description of a search -> texts of the page that it leads to."""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browsing(tmp_path_factory.mktemp("profile")) as one:
        yield one


@pytest.fixture(scope="module")
def visit(remote: Swept, browser: Browser) -> Visit:
    """A function that opens one of MLflow's pages and waits for texts on it."""

    def open_page(page: str, *texts: str) -> None:
        browser.size(1800, 1400)
        browser.open("about:blank")
        browser.open(address(remote.bench.store, page))
        browser.wait(lambda: all(text in browser.text("body") for text in texts))

    return open_page


@pytest.fixture(scope="module")
def links(remote: Swept, browser: Browser, visit: Visit) -> dict[str, str]:
    """The links of the search's description, as its page shows it."""
    page = run_page(remote.parent.experiment_id, remote.parent.run_id)
    visit(page, "Validation chose", "test AUROC, 95%", "make serve", "progress/trials_done")
    return dict(browser.run(LINKS))


@needs_browser
def test_the_experiments_page_describes_its_latest_search(remote: Swept, visit: Visit) -> None:
    texts = ("Latest search", "Validation chose", "How to read this page", "3 matching runs")
    visit(f"#/experiments/{remote.parent.experiment_id}?{MODEL_TRAINING}", *texts)


@needs_browser
def test_the_description_of_a_search_has_its_links(links: dict[str, str]) -> None:
    assert set(links) == set(LINKED)
    assert links[RECIPE] == links["Run of the chosen model"]


@needs_browser
@pytest.mark.parametrize("name", [name for name in LINKED if name != RECIPE])
def test_a_link_of_a_search_leads_to_what_it_names(links: dict[str, str], visit: Visit, name: str) -> None:
    visit(links[name], *LINKED[name])


@needs_browser
def test_the_report_is_shown_in_mlflow(links: dict[str, str], visit: Visit, browser: Browser) -> None:
    visit(links["Report"], "report.html")
    browser.wait(lambda: browser.run("return document.querySelector('iframe') !== null"))
    browser.wait(lambda: "small network" in browser.frame_text("iframe"))


@needs_browser
def test_the_view_of_all_trials_has_a_column_for_each_searched_value(
    remote: Swept, visit: Visit, browser: Browser
) -> None:
    visit(view_page(remote.parent.experiment_id, view_key()), "2 matching runs")
    reached = {"metrics.`objective/best`", "tags.`muralab.test_study_auroc`", "tags.`muralab.ended`"}
    wanted = {"tags.`muralab.recipe`", *reached, *(f"params.`{key}`" for key in SEARCHED)}
    browser.wait(lambda: wanted <= set(browser.run(COLUMNS)))


@needs_browser
def test_charts_have_axes_for_what_was_searched(remote: Swept, visit: Visit, browser: Browser) -> None:
    visit(view_page(remote.parent.experiment_id, view_key(remote.parent.run_id), charts=True))
    browser.wait(lambda: set(browser.run(AXES)) == {*SEARCHED, "objective/best"})


@needs_browser
def test_selected_trials_are_compared_by_what_was_searched(remote: Swept, visit: Visit, browser: Browser) -> None:
    """In two clicks. MLflow begins with the first metric that was logged and the first three params that differ."""
    visit(view_page(remote.parent.experiment_id, view_key(remote.parent.run_id)), "2 matching runs", "finished")
    browser.click("input[aria-label='Select all runs']")
    browser.click("[data-testid=runs-compare-button]")
    browser.wait(lambda: "Comparing 2 Runs" in browser.text("body"))
    browser.wait(lambda: set(browser.run(AXES)) == {*SEARCHED, "objective/best"})


@pytest.fixture(scope="module")
def report(remote: Swept, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    return download_artifact(remote.bench.store, remote.parent.run_id, "report.html", folder)


@needs_browser
@pytest.mark.parametrize("width", [390, 1280])
def test_the_report_fits_its_width(report: Path, browser: Browser, width: int) -> None:
    browser.size(width, 900, phone=width < 500)
    browser.open(f"file://{report}")
    browser.run("document.querySelectorAll('details').forEach((one) => { one.open = true; })")
    assert browser.layout_faults(width) == []

"""The page: its content, and that it loads nothing from the network."""

from __future__ import annotations

import re
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest

from muralab.evaluation import evaluated_model
from muralab.evaluation.calibration import Calibration
from muralab.evaluation.evaluated_model import EvaluatedModel
from muralab.evaluation.intervals import resample
from muralab.evaluation.metrics import METRICS, evaluate_predictions, register_metric
from muralab.report.card import model_card
from muralab.report.page import write_report
from muralab.report.results_table import results_table
from muralab.report.sentences import difference_sentences


@pytest.fixture
def write(context, tmp_path):
    """A function that writes a report and returns its HTML."""

    def write(models, *, changes=None, **given) -> str:
        path = write_report(tmp_path / "r.html", context=replace(context, **(changes or {})), models=models, **given)
        return path.read_text(encoding="utf-8")

    return write


@pytest.fixture(scope="module")
def page(build_model, trials, context, tmp_path_factory) -> str:
    """A whole report of two models, with every section."""
    path = tmp_path_factory.mktemp("report") / "deep" / "report.html"
    models = [build_model("poor", skill=0.3), build_model("good")]
    previews = {"good": np.zeros((64, 64), dtype=np.uint8)}
    write_report(path, context=context, models=models, trials=trials, previews=previews)
    return path.read_text(encoding="utf-8")


def test_page_loads_nothing_from_the_network(page) -> None:
    links = re.findall(r"""(?:src|href|action)\s*=\s*["']?([^"'\s>]+)""", page)
    assert links
    assert all(link.startswith(("data:", "#")) for link in links)
    assert not re.search(r"<script|<link|@import|url\(\s*['\"]?http", page)


def test_links_lead_to_sections(page) -> None:
    targets = re.findall(r'href="#(\w+)"', page)
    assert [target for target in targets if f'id="{target}"' not in page] == []


def test_each_models_calibration_is_described_and_its_warnings_stand_at_the_top(build_model, write) -> None:
    html = write([build_model(calibration=Calibration(warnings=("It rests on 3 patients.",)))])
    assert "Good: calibrated in an earlier version by a temperature alone" in html
    assert html.index("Rough calibration.</strong> Good: It rests on 3 patients.") < html.index('class="hero"')


def test_page_is_small(page) -> None:
    assert len(page.encode()) < 5_000_000


@pytest.mark.parametrize(
    "text",
    [
        "Synthetic data.",
        "Not a medical device.",
        "train/broken.png",
        "truncated",
        "No model was registered.",
        "1712.06957",
    ],
)
def test_page_contains(page, text) -> None:
    assert text in page


def test_real_data_has_no_synthetic_banner(write) -> None:
    page = write([], changes={"synthetic": False, "data": "/data/MURA-v1.1"})
    assert "synthetic" not in page.lower()
    assert "No model was evaluated" in page


def test_names_are_escaped(build_model, build_predictions, trials, write) -> None:
    attack = "<script>alert(1)</script>"
    test = build_predictions(0.1, seed=2).replace({"study": r"study1$"}, attack, regex=True)
    hostile = build_model("good", title=attack, test=test, training={"values": {attack: attack}})
    named = [replace(trial, name=attack, values={attack: attack}) for trial in trials]
    changes = {"title": attack, "unreadable": {attack: attack}, "notes": [attack]}
    page = write([hostile], changes=changes, trials=named)
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_a_model_without_predictions_still_has_a_page(write) -> None:
    page = write([EvaluatedModel(recipe="bare", title="Bare", run_id="r")])
    assert "was not evaluated on the test set" in page
    assert not re.search(r"\bnan\b", re.sub(r"data:[^\"]+", "", page).lower())


def test_a_registered_model_that_is_not_the_best_is_named(build_model, write) -> None:
    page = write([build_model("poor", skill=0.3), build_model("good")], champion="poor")
    assert "The registered model is Poor, although Good is best on validation" in page
    assert page.count("Poor against Good: paired difference") == 1


def test_the_served_model_is_shown_as_fully_as_the_chosen_one(build_model, write) -> None:
    models = [build_model("poor", skill=0.3), build_model("good")]
    picture = np.zeros((8, 16, 3), dtype=np.uint8)
    pictures = {f"run-{name}": {f"an error of {name}": picture} for name in ("poor", "good")}
    page = write(models, champion="poor", galleries=pictures)
    for name in ("Good", "Poor"):
        assert page.count(f'<div class="hero-name">{name}</div>') == 1
        assert f"<h3>{name} at its threshold</h3>" in page
        assert f"<h3>{name}: by subgroup</h3>" in page
        assert f"an error of {name.lower()}" in page
    assert page.index("Selected on validation, evaluated") < page.index("Registered for serving, evaluated")


def test_a_registered_model_that_is_the_chosen_one_is_shown_once(build_model, write) -> None:
    page = write([build_model("poor", skill=0.3), build_model("good")], champion="good")
    assert page.count('class="hero-name"') == 1
    assert "evaluated on test · registered for serving" in page


def test_a_model_that_misses_much_says_so_at_the_top(build_model, write) -> None:
    page = write([build_model(calibration=Calibration(threshold=1.0))])
    assert "Good misses all of the abnormal test studies at its threshold (20 of 20)." in page.split("</header>")[0]


def test_the_page_begins_in_plain_words(page) -> None:
    assert page.index("In short") < page.index('class="hero"') < page.index("Results on studies")
    assert "Chosen on validation: Good. At its threshold of 0.450, of 20 abnormal studies it finds" in page


def test_the_studys_table_is_not_shown_beside_other_data(page) -> None:
    assert "D. Fountas" not in page
    assert "InceptionV3 + add gate" not in page
    assert page.index('id="search"') < page.index('id="phases"')


def test_models_without_a_score_are_not_selected(build_model, unscored, write) -> None:
    page = write([build_model(name, **unscored) for name in ("one", "two")])
    assert "not selected on validation: no validation score is known" in page
    assert "2 models, none of them selected" in page
    assert "Selected on validation" not in page


def test_a_model_without_a_score_beside_a_selected_one_is_named(build_model, unscored, write) -> None:
    page = write([build_model("new", **unscored), build_model("good")])
    assert "New: not selected on validation: no validation score is known." in page


def test_a_comparison_has_statements_and_no_selected_model(build_model, write) -> None:
    changes = {"comparison": True, "statements": ["Over 2 seeds the one reaches more."]}
    page = write([build_model("a"), build_model("b"), build_model("c")], changes=changes, champion="")
    hero = page.split('class="hero"')[1].split("<nav")[0]
    assert "Over 2 seeds the one reaches more." in hero
    assert "Compared over seeds, evaluated on test" in hero
    assert "paired difference" not in hero
    assert "Selected on validation" not in page


def test_image_metrics_have_a_table_of_their_own(page) -> None:
    assert "Image level: every image on its own" in page
    assert "F1" in page.split("Image-level metrics of every model")[1].split("</table>")[0]


def test_errors_of_the_audit_stand_on_top(write) -> None:
    found = pd.DataFrame({"kind": ["leaking picture", "blank"], "severity": ["error", "note"], "findings": [5, 1]})
    top = write([], changes={"audit": ("Read.", found)}).split("</header>")[0]
    assert "can make these results wrong: leaking picture (5)." in top


def test_same_input_same_bytes(build_model, write) -> None:
    assert write([build_model()]) == write([build_model()])


def test_each_model_and_set_is_resampled_once(build_model, context, write, monkeypatch) -> None:
    counts: list[int] = []
    monkeypatch.setattr(evaluated_model, "resample", lambda *given: counts.append(1) or resample(*given))
    models = [build_model("poor", skill=0.3), build_model("good")]
    write(models)
    assert len(counts) == 2 * 2  # test studies and test images
    results_table(models)
    assert len(counts) == 3 * 2  # and validation studies
    write(models)
    model_card(models[1], context)
    difference_sentences(models)
    assert len(counts) == 3 * 2


def test_a_registered_metric_appears_everywhere(build_model, context, write) -> None:
    register_metric("margin", title="Mean margin", f=lambda y, p: float(p[y == 1].mean() - p[y == 0].mean()))
    try:
        model = build_model(skill=0.5)
        assert write([model]).count("Mean margin") >= 4  # figure, study and image table, subgroups
        assert "| Mean margin | 0." in model_card(model, context)
        row = results_table([model]).iloc[-1]
        assert row["test_study_margin_low"] < row["test_study_margin"] < row["test_study_margin_high"]
        assert evaluate_predictions(model.predictions(), level="study")["margin"] > 0
    finally:
        METRICS.pop("margin")

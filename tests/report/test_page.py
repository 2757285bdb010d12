"""The page: what it says, and that it needs nothing but itself."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from muralab.report import (
    Context,
    Entry,
    Trial,
    write_report,
)

MakeEntry = Callable[..., Entry]
MakePredictions = Callable[..., pd.DataFrame]
N_RESAMPLES = 100


@pytest.fixture(scope="module")
def page(entry: MakeEntry, trials: list[Trial], context: Context, tmp_path_factory: pytest.TempPathFactory) -> str:
    """A whole report of two models, with everything in it."""
    path = tmp_path_factory.mktemp("report") / "deep" / "report.html"
    entries = [entry("poor", skill=0.3), entry("good")]
    previews = {"good": np.zeros((64, 64), dtype=np.uint8)}
    write_report(path, context=context, entries=entries, trials=trials, previews=previews, n_resamples=N_RESAMPLES)
    return path.read_text(encoding="utf-8")


def test_page_asks_nothing_of_the_network(page: str) -> None:
    links = re.findall(r"""(?:src|href|action)\s*=\s*["']?([^"'\s>]+)""", page)
    assert links
    assert all(link.startswith(("data:", "#")) for link in links)
    assert not re.search(r"<script|<link|@import|url\(\s*['\"]?http", page)


def test_page_is_small(page: str) -> None:
    assert len(page.encode()) < 5_000_000


@pytest.mark.parametrize(
    "words",
    [
        "Synthetic data.",
        "Not a medical device.",
        "train/broken.png",
        "truncated",
        "No model was registered.",
        "1712.06957",
    ],
)
def test_page_says(page: str, words: str) -> None:
    assert words in page


def test_real_data_has_no_synthetic_banner(context: Context, tmp_path: Path) -> None:
    real = replace(context, synthetic=False, data="/data/MURA-v1.1")
    page = write_report(tmp_path / "r.html", context=real, entries=[]).read_text(encoding="utf-8")
    assert "synthetic" not in page.lower()
    assert "No model was evaluated" in page


def test_names_are_escaped(
    entry: MakeEntry, predictions: MakePredictions, trials: list[Trial], context: Context, tmp_path: Path
) -> None:
    attack = "<script>alert(1)</script>"
    test = predictions(0.1, seed=2).replace({"study": r"study1$"}, f"{attack}", regex=True)
    hostile = entry("good", title=attack, test=test, resolved={attack: attack})
    bad = replace(context, title=attack, unreadable={attack: attack}, notes=[attack])
    named = [replace(trial, name=attack, values={attack: attack}) for trial in trials]
    path = write_report(tmp_path / "r.html", context=bad, entries=[hostile], trials=named, n_resamples=N_RESAMPLES)
    page = path.read_text(encoding="utf-8")
    assert "<script" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_entry_without_predictions_still_makes_a_page(context: Context, tmp_path: Path) -> None:
    bare = Entry(name="bare", title="Bare", run_id="r")
    page = write_report(tmp_path / "r.html", context=context, entries=[bare]).read_text(encoding="utf-8")
    assert "has not met the test set" in page
    assert "nan" not in re.sub(r"data:[^\"]+", "", page).lower().replace("finance", "")


def test_registered_model_that_did_not_win_is_named(entry: MakeEntry, context: Context, tmp_path: Path) -> None:
    entries = [entry("poor", skill=0.3), entry("good")]
    path = tmp_path / "r.html"
    write_report(path, context=context, entries=entries, champion="poor", n_resamples=N_RESAMPLES)
    page = path.read_text("utf-8")
    assert "The registered model is Poor, although validation put Good first" in page
    assert page.count("Poor against Good: paired difference") == 1


def test_models_without_a_score_were_not_chosen(entry: MakeEntry, context: Context, tmp_path: Path) -> None:
    entries = [entry(name, objective=float("nan"), history=pd.DataFrame(), summary={}) for name in ("one", "two")]
    path = write_report(tmp_path / "r.html", context=context, entries=entries, n_resamples=N_RESAMPLES)
    page = path.read_text("utf-8")
    assert "not chosen on validation: no validation score is known" in page
    assert "2 models, none of them chosen" in page
    assert "Chosen on validation" not in page


def test_a_model_without_a_score_beside_a_chosen_one_is_named(
    entry: MakeEntry, context: Context, tmp_path: Path
) -> None:
    entries = [entry("new", objective=float("nan"), history=pd.DataFrame()), entry("good")]
    path = write_report(tmp_path / "r.html", context=context, entries=entries, n_resamples=N_RESAMPLES)
    assert "New: not chosen on validation: no validation score is known." in path.read_text("utf-8")


def test_a_comparison_shows_its_sentence_and_chooses_no_model(
    entry: MakeEntry, context: Context, tmp_path: Path
) -> None:
    compared = replace(context, comparison=True, statements=["Over 2 seeds the one reaches more."])
    entries = [entry("a"), entry("b"), entry("c")]
    path = write_report(tmp_path / "r.html", context=compared, entries=entries, champion="", n_resamples=N_RESAMPLES)
    hero = path.read_text("utf-8").split('class="hero"')[1].split("<nav")[0]
    assert "Over 2 seeds the one reaches more." in hero
    assert "Compared over seeds, judged on test" in hero
    assert "paired difference" not in hero
    assert "Chosen on validation" not in path.read_text("utf-8")


def test_image_figures_stand_apart_from_those_of_studies(page: str) -> None:
    assert "Image level: every picture on its own" in page
    assert "F1" in page.split("Image-level figures of every model")[1].split("</table>")[0]


def test_errors_of_the_audit_stand_on_top(entry: MakeEntry, context: Context, tmp_path: Path) -> None:
    found = pd.DataFrame({"kind": ["leaking picture", "blank"], "severity": ["error", "note"], "findings": [5, 1]})
    page = write_report(tmp_path / "r.html", context=replace(context, audit=("Read.", found)), entries=[])
    top = page.read_text(encoding="utf-8").split("</header>")[0]
    assert "can make these figures wrong: leaking picture (5)." in top


def test_same_input_same_bytes(entry: MakeEntry, context: Context, tmp_path: Path) -> None:
    pages = [
        write_report(tmp_path / name, context=context, entries=[entry()], n_resamples=N_RESAMPLES).read_bytes()
        for name in ("a.html", "b.html")
    ]
    assert pages[0] == pages[1]

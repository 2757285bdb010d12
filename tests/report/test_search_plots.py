"""Figures of a search: curves, parallel coordinates, importances."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest

from muralab.report.charts import search_charts
from muralab.report.context import SearchTrial
from muralab.report.importance import MIN_TRIALS, importances, too_few_trials
from muralab.report.search_plots import plot_importances, plot_parallel, plot_trial_curves
from muralab.report.shown_trials import BEST, OTHERS, left_out, shown_trials


def trial(number: int, lr: float, objective: float, *, recipe: str = "cnn", **fields: object) -> SearchTrial:
    values = {"full.lr": lr, "augment.zoom": float(number % 3)}
    curve = pd.Series([objective - 0.1, objective], index=[1, 2])
    common = {"status": "finished", "epochs": 2, "values": values, "curve": curve, "boundary": 1.5}
    name = f"{recipe}-{number:02d}"
    return SearchTrial(recipe=recipe, name=name, run_id=name, objective=objective, **common | fields)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def rising() -> list[SearchTrial]:
    """Trials whose objective grows with their rate, and hardly depends on anything else."""
    return [trial(number, 10 ** (-4 + number / 4), 0.5 + number / 50) for number in range(8)]


def test_what_the_objective_follows_is_important_and_the_rest_is_not(rising) -> None:
    found = {one.key: one for one in importances(rising)}
    assert found["full.lr"].correlation == pytest.approx(1.0)
    assert found["full.lr"].low > 0
    zoom = found["augment.zoom"]
    assert zoom.low < 0 < zoom.high
    assert zoom.low <= zoom.correlation <= zoom.high


def test_few_trials_have_no_importance(rising) -> None:
    assert importances(rising[: MIN_TRIALS - 1]) == []
    undefined = [trial(number, 1e-3 * (number + 1), math.nan) for number in range(8)]
    assert importances(undefined) == []


def test_recipes_with_few_trials_are_named(rising) -> None:
    assert too_few_trials(rising) == ""
    few = [trial(number, 1e-3 * (number + 1), 0.6, recipe="inception") for number in range(2)]
    assert too_few_trials([*rising, *few]).endswith("5 are needed: inception (2).")
    assert "inception (2)" in search_charts([*rising, *few], "val_study_auroc")[1].caption


def test_flags_are_ranked_and_names_are_not() -> None:
    trials = [
        trial(n, 1e-3, 0.5 + 0.1 * (n % 2), values={"model.deep": str(n % 2 == 1), "model.norm": "ab"[n % 2]})
        for n in range(8)
    ]
    (one,) = importances(trials)
    assert (one.key, one.correlation) == ("model.deep", pytest.approx(1.0))


@pytest.mark.parametrize("n", [5, 8, 32])
def test_intervals_hold_where_nothing_matters(n: int) -> None:
    rng, holds = np.random.default_rng(n), 0
    for _ in range(200):
        (one,) = importances([trial(k, rng.random(), rng.random(), values={"full.lr": rng.random()}) for k in range(n)])
        holds += one.low <= 0 <= one.high
    assert holds >= 180


def test_of_very_many_trials_the_best_and_some_of_the_others_are_shown() -> None:
    many = [trial(number, 1e-3, number / 1000) for number in range(1000)]
    shown = shown_trials([*many, trial(0, 1e-3, math.nan, recipe="small")])
    objectives = [one.objective for one in shown if one.recipe == "cnn"]
    assert len(objectives) == BEST + OTHERS == len(shown) - 1
    assert objectives[-BEST:] == [one.objective for one in many[-BEST:]]
    assert objectives[0] == 0.0
    assert left_out(many).startswith("200 of 1,000 trials are shown")
    assert left_out(many[:200]) == ""


def test_importances_are_drawn_with_their_intervals(rising) -> None:
    found = importances(rising)
    axes = plot_importances(found).axes[0]
    spans = [list(line.get_xdata()) for line in axes.lines]
    assert all([one.low, one.high] in spans for one in found)
    assert [label.get_text() for label in axes.get_yticklabels()] == ["full.lr", "augment.zoom"]


def test_parallel_coordinates_go_from_each_value_to_the_objective(rising) -> None:
    axes = plot_parallel(rising, objective="val_study_auroc").axes[0]
    lines = [line for line in axes.lines if len(line.get_xdata()) == 3]
    assert len(lines) == len(rising)
    first, last = lines[0].get_ydata(), lines[-1].get_ydata()  # of the worst and of the best trial
    assert (first[0], first[-1], last[0], last[-1]) == pytest.approx((0, 0, 1, 1))


def test_a_line_passes_over_what_its_recipe_does_not_search(rising) -> None:
    other = trial(1, 1e-3, 0.6, recipe="inception", values={"full.lr": 1e-3})
    axes = plot_parallel([*rising, other], objective="val_study_auroc").axes[0]
    places = [list(line.get_xdata()) for line in axes.lines]
    assert [0, 2] in places


def test_names_of_seven_axes_do_not_overlap(rising) -> None:
    keys = ("full.lr", "augment.zoom", "augment.rotate_degrees", "augment.shift", "augment.contrast", "model.dropout")
    trials = [trial(number, 1e-3, number / 9, values=dict.fromkeys(keys, number / 9)) for number in (4, 8)]
    figure = plot_parallel(trials, objective="val_study_auroc")
    figure.draw_without_rendering()
    boxes = [label.get_window_extent() for label in figure.axes[0].get_xticklabels()]
    assert len(boxes) == 7
    assert all(left.x1 < right.x0 for left, right in itertools.pairwise(boxes))
    assert boxes[-1].x1 <= figure.bbox.x1


def test_every_trial_has_a_curve_and_the_best_one_stands_out(rising) -> None:
    pruned = trial(9, 1e-5, 0.4, status="pruned")
    axes = plot_trial_curves([*rising, pruned], objective="val_study_auroc").axes[0]
    curves = [line for line in axes.lines if list(line.get_xdata()) == [1, 2]]
    assert len(curves) == 9
    assert max(curves, key=lambda line: line.get_linewidth()).get_label() == "cnn-07 (best)"
    assert [line.get_marker() for line in axes.lines].count("x") == 1


def test_a_search_without_a_result_has_no_charts() -> None:
    assert search_charts([trial(0, 1e-3, math.nan, curve=pd.Series(dtype=float))], "val_study_auroc") == []
    assert search_charts([], "val_study_auroc") == []


def test_importances_are_the_same_each_time(rising) -> None:
    first, second = importances(rising), importances(rising)
    assert np.allclose([(one.low, one.high) for one in first], [(one.low, one.high) for one in second])

"""Figures: the numbers behind the lines, and that every degenerate input still draws."""

from __future__ import annotations

import io

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import confusion_matrix, roc_curve

from muralab.evaluation import plot_style as style
from muralab.evaluation import plots as figures
from muralab.evaluation import reliability_plots as reliability
from muralab.evaluation.bootstrap import Interval
from muralab.evaluation.plots import Scores

RNG = np.random.default_rng(0)
LABELS = (np.arange(60) % 3 == 0).astype(np.int64)
PROBABILITIES = np.round(np.clip(0.3 * LABELS + RNG.uniform(0, 0.7, 60), 0, 1), 1)


def scores(**changes: object) -> Scores:
    values = {"title": "a model", "labels": LABELS, "probabilities": PROBABILITIES, "auroc": 0.8}
    return Scores(**{**values, **changes})  # type: ignore[arg-type]


def texts(figure) -> str:
    """Every word of a figure, after it was really drawn."""
    figure.savefig(io.BytesIO(), format="svg")
    return " ".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))


def test_roc_counts_equal_sklearn() -> None:
    true, false = figures.counts_by_threshold(LABELS, PROBABILITIES)
    expected_false, expected_true, _ = roc_curve(LABELS, PROBABILITIES, drop_intermediate=False)
    np.testing.assert_allclose(true / true[-1], expected_true)
    np.testing.assert_allclose(false / false[-1], expected_false)


def test_confusion_equals_sklearn() -> None:
    expected = confusion_matrix(LABELS, PROBABILITIES >= 0.5)
    np.testing.assert_array_equal(figures.confusion(LABELS, PROBABILITIES, 0.5), expected)


def test_confusion_shows_counts_at_the_threshold() -> None:
    drawn = texts(figures.plot_confusion(np.array([0, 0, 0, 1]), np.array([0.1, 0.2, 0.9, 0.8]), 0.5)).split()
    assert {"2", "1", "0", "67%", "100%"} <= set(drawn)


def test_roc_marks_the_threshold_on_the_curve() -> None:
    axes = figures.plot_roc([scores(threshold=0.5)]).axes[0]
    mark, curve = axes.lines[-1], axes.lines[-2]
    point = (mark.get_xdata()[0], mark.get_ydata()[0])
    assert point in set(zip(curve.get_xdata(), curve.get_ydata(), strict=True))


@pytest.mark.parametrize("plot", [figures.plot_roc, figures.plot_precision_recall])
def test_one_class_says_why_there_is_no_curve(plot) -> None:
    assert "undefined: the studies are of one class" in texts(plot([scores(labels=np.zeros(60, dtype=np.int64))]))


def test_precision_recall_names_average_precision() -> None:
    assert "a model  0.712" in texts(figures.plot_precision_recall([scores(average_precision=0.712)]))


def test_net_benefit_of_certain_and_of_blind_calls() -> None:
    labels, thresholds = np.array([0, 1]), np.array([0.2, 0.5])
    np.testing.assert_allclose(reliability.net_benefit(labels, np.array([0.0, 1.0]), thresholds), [0.5, 0.5])
    np.testing.assert_allclose(reliability.net_benefit(labels, np.array([1.0, 1.0]), thresholds), [0.375, 0.0])


def test_reliability_bins_hold_all_studies_within_wilson_bounds() -> None:
    stated, observed, low, high = reliability.reliability_bins(LABELS, PROBABILITIES, 6)
    assert observed.mean() == pytest.approx(LABELS.mean())
    assert (np.diff(stated) >= 0).all()
    assert ((low <= observed) & (observed <= high)).all()


def test_reliability_without_studies_says_so() -> None:
    empty = np.array([])
    assert "no studies" in texts(reliability.plot_reliability(empty.astype(np.int64), empty, empty))


def test_decision_curve_shows_both_defaults() -> None:
    drawn = texts(reliability.plot_decision_curve([scores()]))
    assert "call all abnormal" in drawn
    assert "call none abnormal" in drawn


def test_risk_coverage_ends_at_the_whole_error_rate() -> None:
    curve = reliability.plot_risk_coverage(scores(), uncertain=(0.4, 0.6)).axes[0].lines[0]
    wrong = ((PROBABILITIES >= 0.5) != (LABELS == 1)).mean()
    assert curve.get_ydata()[np.argmax(curve.get_xdata())] == pytest.approx(wrong)


def test_distribution_shows_threshold_and_band() -> None:
    drawn = texts(figures.plot_distribution(scores(threshold=0.42), uncertain=(0.3, 0.5)))
    assert "threshold 0.420" in drawn
    assert "uncertain" in drawn


def test_undefined_interval_shows_its_reason() -> None:
    nothing = Interval(estimate=np.nan, low=np.nan, high=np.nan, n_resamples=0, reason="one class only")
    assert "one class only" in texts(figures.plot_intervals(["a"], [nothing], name="AUROC", chance=0.5))


def test_class_balance_shows_ratio_and_dash() -> None:
    labels = {"hand": [0, 0, 0, 0, 1], "wrist": [1, 1]}
    rows = [("train", part, label) for part, values in labels.items() for label in values]
    drawn = texts(figures.plot_class_balance(pd.DataFrame(rows, columns=["split", "part", "label"])))
    assert "0.25" in drawn
    assert "–" in drawn


def test_class_balance_has_a_panel_a_split() -> None:
    index = pd.DataFrame({"split": ["train", "valid"], "part": ["hand"] * 2, "label": [0, 1]})
    assert [axes.get_title(loc="left") for axes in figures.plot_class_balance(index).axes] == [
        "train: images by part",
        "valid: images by part",
    ]


def test_class_balance_of_nothing_says_so() -> None:
    assert "no images" in texts(figures.plot_class_balance(pd.DataFrame(columns=["split", "part", "label"])))


@pytest.mark.parametrize(("n_images", "n_panels"), [(1, 1), (6, 6), (7, 12)])
def test_sample_grid_has_a_panel_a_picture(n_images: int, n_panels: int) -> None:
    images = np.zeros((n_images, 8, 8), dtype=np.uint8)
    figure = figures.sample_grid(images, [f"study {i}" for i in range(n_images)])
    assert len(figure.axes) == n_panels
    assert "study 0" in texts(figure)


def test_figures_leave_settings_and_window_list_alone() -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    figures.plot_roc([scores()])
    assert dict(mpl.rcParams) == before


def test_models_are_told_apart_without_colour() -> None:
    assert len({str(style.line(i)) for i in range(6)}) == 6
    assert len({style.marker(i) for i in range(6)}) == 6

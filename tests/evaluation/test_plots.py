"""Figures: the numbers behind the lines, and that degenerate input is plotted or explained."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import roc_curve

from muralab.evaluation import plot_style as style
from muralab.evaluation import plots
from muralab.evaluation.calibration import Calibration
from muralab.evaluation.evaluated_model import EvaluatedModel

LABELS = (np.arange(60) % 3 == 0).astype(np.int64)
PROBABILITIES = np.round(np.clip(0.3 * LABELS + np.random.default_rng(0).uniform(0.05, 0.6, 60), 0, 1), 1)


def table(labels, probabilities) -> pd.DataFrame:
    """One image per study and patient."""
    names = [f"s{i:02d}" for i in range(len(labels))]
    logits = np.log(probabilities) - np.log1p(-np.asarray(probabilities))
    columns = {"image": names, "study": names, "patient": names, "part": "wrist", "label": labels, "logit": logits}
    return pd.DataFrame(columns)


@pytest.fixture(scope="module")
def model() -> EvaluatedModel:
    test = table(LABELS, PROBABILITIES)
    return EvaluatedModel(recipe="net", title="a model", run_id="r", test=test, calibration=Calibration(threshold=0.5))


@pytest.fixture
def one_class(model) -> EvaluatedModel:
    return replace(model, test=model.test.assign(label=0))


def texts(figure) -> str:
    """All text of a figure, after it was rendered."""
    figure.savefig(io.BytesIO(), format="svg")
    return " ".join(text.get_text() for text in figure.findobj(lambda artist: hasattr(artist, "get_text")))


def test_roc_equals_sklearn(model) -> None:
    curve = plots.plot_roc([model]).axes[0].lines[1]
    false_positive_rate, sensitivity, _ = roc_curve(LABELS, PROBABILITIES, drop_intermediate=False)
    np.testing.assert_allclose(curve.get_xdata(), false_positive_rate)
    np.testing.assert_allclose(curve.get_ydata(), sensitivity)


def test_roc_marks_the_threshold_on_the_curve(model) -> None:
    curve, mark = plots.plot_roc([model]).axes[0].lines[1:]
    point = (mark.get_xdata()[0], mark.get_ydata()[0])
    assert point in set(zip(curve.get_xdata(), curve.get_ydata(), strict=True))


def test_precision_recall_starts_at_the_strictest_threshold(model) -> None:
    curve = plots.plot_precision_recall([model]).axes[0].lines[0]
    highest = PROBABILITIES.max() == PROBABILITIES
    assert curve.get_ydata()[:2] == pytest.approx([LABELS[highest].mean()] * 2)
    assert (curve.get_xdata()[0], curve.get_xdata()[-1], curve.get_ydata()[-1]) == (0, 1, LABELS.mean())


@pytest.mark.parametrize("plot", [plots.plot_roc, plots.plot_precision_recall])
def test_one_class_has_a_reason_instead_of_a_curve(plot, one_class) -> None:
    assert "undefined: the studies are of one class" in texts(plot([one_class]))


def test_legends_state_the_metric(model) -> None:
    found = model.intervals()
    assert f"a model  {found['auroc'].estimate:.3f}" in texts(plots.plot_roc([model]))
    assert f"a model  {found['average_precision'].estimate:.3f}" in texts(plots.plot_precision_recall([model]))


def test_a_model_keeps_its_colour_where_another_is_missing(model) -> None:
    untested = replace(model, test=None)
    curve = plots.plot_roc([untested, model]).axes[0].lines[1]
    assert curve.get_color() == style.color(1)


def test_confusion_shows_counts_at_the_threshold(model) -> None:
    small = replace(model, test=table([0, 0, 0, 1], [0.1, 0.2, 0.9, 0.8]))
    assert plots.confusion(small).tolist() == [[2, 1], [0, 1]]
    assert {"2", "1", "0", "67%", "100%"} <= set(texts(plots.plot_confusion(small)).split())


def test_net_benefit_of_certain_and_of_constant_calls() -> None:
    labels, thresholds = np.array([0, 1]), np.array([0.2, 0.5])
    np.testing.assert_allclose(plots.net_benefit(labels, np.array([0.0, 1.0]), thresholds), [0.5, 0.5])
    np.testing.assert_allclose(plots.net_benefit(labels, np.array([1.0, 1.0]), thresholds), [0.375, 0.0])


def test_decision_curve_shows_both_defaults(model) -> None:
    drawn = texts(plots.plot_decision_curve([model]))
    assert "call all abnormal" in drawn
    assert "call none abnormal" in drawn


def test_reliability_bins_contain_all_studies() -> None:
    predicted, observed, low, high = plots.reliability_bins(LABELS, PROBABILITIES, 6)
    assert observed.mean() == pytest.approx(LABELS.mean())
    assert (np.diff(predicted) >= 0).all()
    assert ((low <= observed) & (observed <= high)).all()


def test_reliability_compares_raw_and_calibrated_probabilities(model) -> None:
    cool = replace(model, calibration=Calibration(study_temperature=2))
    raw, calibrated = plots.plot_reliability(cool).axes[0].lines[1:3]
    assert np.ptp(calibrated.get_xdata()) < np.ptp(raw.get_xdata())


def test_risk_coverage_ends_at_the_error_rate_of_all_studies(model) -> None:
    curve = plots.plot_risk_coverage(model, uncertain=(0.4, 0.6)).axes[0].lines[0]
    wrong = ((PROBABILITIES >= 0.5) != (LABELS == 1)).mean()
    assert curve.get_ydata()[np.argmax(curve.get_xdata())] == pytest.approx(wrong)


def test_distribution_shows_threshold_and_band(model) -> None:
    drawn = texts(plots.plot_distribution(model, uncertain=(0.3, 0.5)))
    assert "threshold 0.500" in drawn
    assert "uncertain" in drawn


def test_an_undefined_interval_shows_its_reason(one_class, model) -> None:
    drawn = texts(plots.plot_intervals([one_class, replace(model, test=None)], "auroc"))
    assert "all 60 rows are normal" in drawn
    assert "not evaluated on the test set" in drawn


def test_intervals_of_images_are_at_one_half(model) -> None:
    assert "Accuracy at 0.5, test images" in texts(plots.plot_intervals([model], "accuracy", level="image"))
    assert "Cohen's kappa, test studies" in texts(plots.plot_intervals([model], "kappa"))


def test_published_values_are_diamonds(model) -> None:
    axes = plots.plot_intervals([model, model], "accuracy", references=[0.8, np.nan]).axes[0]
    assert axes.lines[0].get_xdata()[0] == 0.8


def test_figures_leave_matplotlibs_settings_alone(model) -> None:
    import matplotlib as mpl

    before = dict(mpl.rcParams)
    plots.plot_roc([model])
    assert dict(mpl.rcParams) == before


def test_models_are_distinct_without_colour() -> None:
    assert len({str(style.line(i)) for i in range(6)}) == 6
    assert len({style.marker(i) for i in range(6)}) == 6

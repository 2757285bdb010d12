"""Figures of training and search."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from muralab.evaluation.evaluated_model import EvaluatedModel, TrainingRecord
from muralab.report.context import SearchTrial
from muralab.report.training_plots import (
    objective_title,
    phase_boundary,
    plot_learning_curves,
    plot_strength_response,
    searched_keys,
    shared_limits,
)


def trained(phases: list[int], *, from_scratch: bool = False) -> EvaluatedModel:
    values = np.linspace(0.4, 0.8, len(phases))
    columns = {name: values for name in ("train_loss", "val_loss", "train_accuracy", "val_accuracy", "val_study_auroc")}
    history = pd.DataFrame({**columns, "phase": phases}, index=range(1, len(phases) + 1))
    training = TrainingRecord(history=history, from_scratch=from_scratch)
    return EvaluatedModel(recipe="a", title="A", run_id="r", training=training)


def trial(epochs: int, objective: float, **values: float | str) -> SearchTrial:
    return SearchTrial(
        recipe="a", name="t", run_id="r", status="done", epochs=epochs, objective=objective, values=values
    )


def test_the_boundary_lies_between_the_phases() -> None:
    assert phase_boundary(trained([1, 1, 2, 2]).training.history) == 2.5
    assert phase_boundary(trained([2, 2]).training.history) is None


def test_curves_name_the_phases() -> None:
    names = [text.get_text() for text in plot_learning_curves(trained([1, 2, 2])).axes[0].texts]
    assert names == ["upper", "full"]


def test_a_network_from_scratch_has_a_warm_up() -> None:
    names = [text.get_text() for text in plot_learning_curves(trained([1, 2], from_scratch=True)).axes[0].texts]
    assert names == ["warm-up", "full"]


def test_curves_without_a_history_have_a_reason() -> None:
    empty = EvaluatedModel(recipe="a", title="A", run_id="r")
    assert "no epochs were recorded" in plot_learning_curves(empty).axes[0].texts[0].get_text()
    assert shared_limits([empty]) is None


def test_shared_limits_fit_every_accuracy() -> None:
    limits = shared_limits([trained([1, 2, 2])])
    assert limits is not None
    low, high = limits[1]
    assert low < 0.4 < 0.8 < high


def test_only_values_that_varied_are_searched() -> None:
    trials = [trial(1, 0.5, lr=0.1, zoom=0.2), trial(1, 0.6, lr=0.2, zoom=0.2)]
    assert searched_keys(trials) == ["lr"]


def test_learning_rates_have_a_logarithmic_axis() -> None:
    trials = [
        trial(2, 0.5, **{"full.lr": 1e-5, "augment.zoom": 0.1}),
        trial(1, 0.6, **{"full.lr": 1e-3, "augment.zoom": 0.2}),
    ]
    scales = [plot_strength_response(trials, key, objective="x").axes[0].get_xscale() for key in searched_keys(trials)]
    assert scales == ["log", "linear"]


@pytest.mark.parametrize("rates", [(3e-4, 3.1e-4), (2e-4, 4e-4), (2.97e-4, 1.45e-3), (1e-5, 1e-3)])
def test_learning_rates_have_several_ticks(rates: tuple[float, float]) -> None:
    figure = plot_strength_response([trial(1, 0.5, **{"full.lr": rate}) for rate in rates], "full.lr", objective="x")
    low, high = figure.axes[0].get_xlim()
    assert 3 <= sum(low <= tick <= high for tick in figure.axes[0].get_xticks()) <= 8


def test_stopped_trials_are_hollow() -> None:
    trials = [trial(4, 0.7, zoom=0.1), trial(2, 0.5, zoom=0.3)]
    full, stopped = plot_strength_response(trials, "zoom", objective="x").axes[0].lines
    assert full.get_markerfacecolor() != "white"
    assert stopped.get_markerfacecolor() == "white"


def test_searched_values_may_be_text() -> None:
    trials = [trial(1, 0.5, pool="max"), trial(1, 0.6, pool="mean")]
    axes = plot_strength_response(trials, "pool", objective="x").axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["max", "mean"]


def test_trials_without_an_objective_have_a_reason() -> None:
    axes = plot_strength_response([trial(0, float("nan"), zoom=0.1)], "zoom", objective="x").axes[0]
    assert axes.texts[0].get_text() == "no trial was evaluated"


def test_the_objectives_title() -> None:
    assert objective_title("val_study_auroc") == "validation AUROC, studies"
    assert objective_title("my_score") == "my score"

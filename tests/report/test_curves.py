"""Figures of training and search."""

from __future__ import annotations

import numpy as np
import pandas as pd

from muralab.report.curves import (
    objective_words,
    phase_boundary,
    plot_learning_curves,
    plot_strength_response,
    searched_keys,
    shared_limits,
)
from muralab.report.entries import Entry, Trial


def entry(phases: list[int], **changes: object) -> Entry:
    values = np.linspace(0.4, 0.8, len(phases))
    columns = {name: values for name in ("train_loss", "val_loss", "train_accuracy", "val_accuracy", "val_study_auroc")}
    history = pd.DataFrame({**columns, "phase": phases}, index=range(1, len(phases) + 1))
    return Entry(**{"name": "a", "title": "A", "run_id": "r", "history": history, **changes})  # type: ignore[arg-type]


def trial(epochs: int, objective: float, **values: float | str) -> Trial:
    return Trial(recipe="a", name="t", run_id="r", status="done", epochs=epochs, objective=objective, values=values)


def test_boundary_lies_between_the_phases() -> None:
    assert phase_boundary(entry([1, 1, 2, 2]).history) == 2.5
    assert phase_boundary(entry([2, 2]).history) is None


def test_curves_draw_the_boundary_with_its_words() -> None:
    words = [text.get_text() for text in plot_learning_curves(entry([1, 2, 2])).axes[0].texts]
    assert words == ["upper", "full"]


def test_network_from_scratch_warms_up() -> None:
    words = [text.get_text() for text in plot_learning_curves(entry([1, 2], from_scratch=True)).axes[0].texts]
    assert words == ["warm-up", "full"]


def test_curves_of_no_history_say_so() -> None:
    empty = entry([], history=pd.DataFrame())
    assert "no epochs were recorded" in plot_learning_curves(empty).axes[0].texts[0].get_text()
    assert shared_limits([empty]) is None


def test_shared_limits_hold_every_accuracy() -> None:
    limits = shared_limits([entry([1, 2, 2])])
    assert limits is not None
    low, high = limits[1]
    assert low < 0.4 < 0.8 < high


def test_only_values_that_varied_are_searched() -> None:
    trials = [trial(1, 0.5, lr=0.1, zoom=0.2), trial(1, 0.6, lr=0.2, zoom=0.2)]
    assert searched_keys(trials) == ["lr"]


def test_learning_rate_is_drawn_over_orders_of_magnitude() -> None:
    trials = [
        trial(2, 0.5, **{"full.lr": 1e-5, "augment.zoom": 0.1}),
        trial(1, 0.6, **{"full.lr": 1e-3, "augment.zoom": 0.2}),
    ]
    scales = [plot_strength_response(trials, key, objective="x").axes[0].get_xscale() for key in searched_keys(trials)]
    assert scales == ["log", "linear"]


def test_stopped_trials_are_hollow() -> None:
    trials = [trial(4, 0.7, zoom=0.1), trial(2, 0.5, zoom=0.3)]
    full, stopped = plot_strength_response(trials, "zoom", objective="x").axes[0].lines
    assert full.get_markerfacecolor() != "white"
    assert stopped.get_markerfacecolor() == "white"


def test_words_are_values_too() -> None:
    axes = plot_strength_response([trial(1, 0.5, pool="max"), trial(1, 0.6, pool="mean")], "pool", objective="x").axes[
        0
    ]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["max", "mean"]


def test_unjudged_trials_say_so() -> None:
    axes = plot_strength_response([trial(0, float("nan"), zoom=0.1)], "zoom", objective="x").axes[0]
    assert axes.texts[0].get_text() == "no trial was judged"


def test_objective_reads_as_words() -> None:
    assert objective_words("val_study_auroc") == "validation AUROC, studies"
    assert objective_words("my_score") == "my score"

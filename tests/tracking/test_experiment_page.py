"""The description and the saved views of an experiment's page, as MLflow reads them."""

from __future__ import annotations

import base64
import json
import zlib
from typing import Any

import pytest

from muralab.tracking import Store, experiment_id_of
from muralab.tracking.experiment_page import N_SEARCHES, TrialsView, build_state, write_note, write_view

SEARCHED = {"cnn": ["full.lr", "augment.zoom"], "inception": ["full.lr", "augment.zoom", "augment.contrast"]}


def view(**changes: Any) -> TrialsView:
    fields: dict[str, Any] = {"name": "All trials", "searched": SEARCHED, "objective": "val_study_auroc"}
    return TrialsView(**fields | changes)


@pytest.fixture
def experiment(store: Store, request: pytest.FixtureRequest) -> str:
    """One of this test's own."""
    return experiment_id_of(store, request.node.name)


def tags(store: Store, experiment: str) -> dict[str, str]:
    return dict(store.client.get_experiment(experiment).tags)


def test_a_view_is_kept_as_mlflow_keeps_its_own(store: Store, experiment: str) -> None:
    write_view(store.client, experiment, view())
    saved = json.loads(tags(store, experiment)["mlflow.sharedViewState.trials"])
    kind, _, text = saved["state"].partition(";")
    assert (kind, saved["name"]) == ("deflate", "All trials")
    assert json.loads(zlib.decompress(base64.b64decode(text))) == build_state(view())


def test_a_view_shows_what_was_searched_and_sorts_by_the_objective() -> None:
    state = build_state(view(parent="abc"))
    assert "tags.`mlflow.parentRunId` = 'abc'" in state["searchFilter"]
    assert (state["orderByKey"], state["orderByAsc"]) == ("metrics.`objective/best`", False)
    columns = state["selectedColumns"]
    assert columns[:2] == ["tags.`muralab.recipe`", "metrics.`objective/best`"]
    assert {
        "params.`full.lr`",
        "params.`augment.contrast`",
        "tags.`muralab.test_study_auroc`",
        "tags.`muralab.ended`",
    } <= set(columns)


def test_parallel_coordinates_have_exactly_the_searched_values_and_the_objective() -> None:
    charts = [chart for chart in build_state(view())["compareRunCharts"] if chart["type"] == "PARALLEL"]
    assert [chart["selectedParams"] for chart in charts] == [SEARCHED["cnn"], SEARCHED["inception"]]
    assert all(chart["selectedMetrics"] == ["objective/best"] for chart in charts)


def test_the_views_of_old_searches_make_room(store: Store, experiment: str) -> None:
    for number in range(N_SEARCHES + 2):
        write_view(store.client, experiment, view(parent=f"s{number:02d}"))
    kept = sorted(key for key in tags(store, experiment) if key.startswith("mlflow.sharedViewState."))
    assert (len(kept), kept[-1]) == (N_SEARCHES, f"mlflow.sharedViewState.search-s{N_SEARCHES + 1:02d}")


def test_a_description_is_rewritten_unless_somebody_wrote_another(store: Store, experiment: str) -> None:
    for note in ("First verdict.", "Second verdict."):
        write_note(store.client, experiment, note)
    assert tags(store, experiment)["mlflow.note.content"].startswith("Second verdict.")
    store.client.set_experiment_tag(experiment, "mlflow.note.content", "Our own words.")
    write_note(store.client, experiment, "Third verdict.")
    assert tags(store, experiment)["mlflow.note.content"] == "Our own words."

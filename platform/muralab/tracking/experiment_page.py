"""What MLflow's page of an experiment shows: its description, and saved views of its trials.

MLflow keeps a saved view as a tag of the experiment: its name, its time and, compressed, filter, order and columns of
the table and the charts, in the terms of its own pages (as of MLflow 3.17). It is listed under *Views*; an address with
`viewStateShareKey=<key>` opens it.
"""

from __future__ import annotations

import base64
import json
import time
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from muralab.tracking.stored_names import stored_metric
from muralab.tracking.tags import Tag

ALL_TRIALS = "trials"
"""Key of the view of all trials of an experiment."""
OF_SEARCH = "search-"
"""+ id of a search: key of the view of its trials."""
N_SEARCHES = 20
"""Newest searches whose views are kept: MLflow offers people no more than 40 views."""
CHARTED = ("epoch_objective", "val_loss", "train_loss")
"""Curves in a view, one chart each, after the parallel coordinates."""
OURS = "_MURA Lab rewrites this text after each search; remove this line to keep your own._"
RUN_NAME = "attributes.`Run Name`"
SECTION = "search"
"""Of a view's charts; MLflow adds its own below."""
_SECTION_OF_CHARTS = {
    "uuid": SECTION,
    "name": "Search",
    "display": True,
    "isReordered": True,
    "columns": 2,
    "cardHeight": 380,
}


@dataclass(frozen=True, kw_only=True)
class TrialsView:
    """A saved view of trials."""

    name: str
    """Shown in the list of views."""
    searched: Mapping[str, Sequence[str]]
    """Recipe -> the params that its trials draw: a column each, and an axis of the parallel coordinates."""
    objective: str
    """Name of the metric that selects, for titles."""
    parent: str | None = None
    """The search whose trials are shown; None: all of the experiment."""

    @property
    def key(self) -> str:
        """Of the view, within its experiment."""
        return view_key(self.parent)


def view_key(parent: str | None = None) -> str:
    """The key of the view of a search's trials; None: of all trials of the experiment."""
    return ALL_TRIALS if parent is None else f"{OF_SEARCH}{parent}"


def write_note(client: Any, experiment_id: str, note: str) -> None:
    """Set the description of an experiment, in Markdown, unless somebody has written another one.

    Does not convert MLflow's errors.
    """
    present = client.get_experiment(experiment_id).tags.get(Tag.NOTE, "")
    if not present.strip() or OURS in present:
        client.set_experiment_tag(experiment_id, Tag.NOTE, f"{note}\n\n{OURS}")


def write_view(client: Any, experiment_id: str, view: TrialsView) -> None:
    """Save a view of trials in their experiment; one with the same key is replaced, and the oldest ones are removed.

    Does not convert MLflow's errors.
    """
    now_ms = int(time.time() * 1000)
    state = zlib.compress(json.dumps(build_state(view)).encode("utf-8"))
    envelope = {
        "name": view.name,
        "createdAt": now_ms,
        "updatedAt": now_ms,
        "state": "deflate;" + base64.b64encode(state).decode("ascii"),
    }
    client.set_experiment_tag(experiment_id, f"{Tag.SHARED_VIEW}{view.key}", json.dumps(envelope))
    for old in _outdated(client.get_experiment(experiment_id).tags):
        _delete_tag(client, experiment_id, old)


def _delete_tag(client: Any, experiment_id: str, key: str) -> None:
    """Delete a tag of an experiment, unless another sweep has just done so."""
    from mlflow.exceptions import MlflowException

    try:
        client.delete_experiment_tag(experiment_id, key)
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise


def _outdated(tags: Mapping[str, str]) -> list[str]:
    ours = [key for key in tags if key.startswith(f"{Tag.SHARED_VIEW}{OF_SEARCH}")]
    return sorted(ours, key=lambda key: int(json.loads(tags[key])["createdAt"]))[:-N_SEARCHES]


def build_state(view: TrialsView) -> dict[str, Any]:
    """Filter, order, columns and charts of a view, in MLflow's terms."""
    trials = f"tags.`{Tag.KIND}` = 'trial'"
    if view.parent is not None:
        trials += f" AND tags.`{Tag.PARENT_RUN_ID}` = '{view.parent}'"
    objective, auroc = f"metrics.`{stored_metric('objective')}`", f"tags.`{Tag.TEST_STUDY_PREFIX}auroc`"
    searched = [f"params.`{key}`" for key in all_keys(view.searched)]
    # What was reached comes first: the values are many, and the table is as wide as the window leaves it.
    columns = [f"tags.`{Tag.RECIPE}`", objective, auroc, f"tags.`{Tag.ENDED}`", *searched, "attributes.`Duration`"]
    return {
        "searchFilter": trials,
        "orderByKey": objective,
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": columns,
        "columnOrder": [RUN_NAME, *columns],
        "columnWidths": {RUN_NAME: 320, **dict.fromkeys(searched, 120), objective: 120, auroc: 190},
        "runsHiddenMode": "SHOW_ALL",
        "hideEmptyCharts": True,
        "compareRunCharts": [*_parallel_coordinates(view), *(_line(metric) for metric in CHARTED)],
        "compareRunSections": [_SECTION_OF_CHARTS],
        "isAccordionReordered": True,
    }


def _card(kind: str, key: str, **fields: Any) -> dict[str, Any]:
    common = {"metricSectionId": SECTION, "isGenerated": False, "deleted": False, "runsCountToCompare": 100}
    return {"type": kind, "uuid": f"{SECTION}-{key}", **common, **fields}


def all_keys(searched: Mapping[str, Sequence[str]]) -> list[str]:
    """Every searched value, in the order of first use."""
    return list(dict.fromkeys(key for keys in searched.values() for key in keys))


def _parallel_coordinates(view: TrialsView) -> list[dict[str, Any]]:
    """One chart per set of searched values: MLflow draws only the runs that have all of a chart's."""
    groups: dict[tuple[str, ...], list[str]] = {}
    for recipe, keys in view.searched.items():
        groups.setdefault(tuple(keys), []).append(recipe)
    shared = tuple(key for key in all_keys(view.searched) if all(key in keys for keys in view.searched.values()))
    titles = {keys: ", ".join(recipes) for keys, recipes in groups.items() if keys}
    if shared and shared not in titles:
        titles = {shared: "all recipes"} | titles
    return [
        _card(
            "PARALLEL",
            f"parallel-{place}",
            selectedParams=list(keys),
            selectedMetrics=[stored_metric("objective")],
            showAllRuns=True,
            displayName=f"{view.objective} over what was searched: {title}",
        )
        for place, (keys, title) in enumerate(titles.items())
    ]


def _line(metric: str) -> dict[str, Any]:
    stored = stored_metric(metric)
    return _card(
        "LINE",
        metric,
        metricKey=stored,
        selectedMetricKeys=[stored],
        lineSmoothness=0,
        scaleType="linear",
        xAxisScaleType="linear",
        xAxisKey="step",
        selectedXAxisMetricKey="",
        yAxisKey="metric",
        yAxisExpressions=[],
        range={},
        ignoreOutliers=False,
        useGlobalXaxisKey=True,
        useGlobalLineSmoothing=True,
        displayName=stored,
    )

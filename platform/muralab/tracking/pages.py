"""Addresses of MLflow's pages: as links inside descriptions, and as what a command prints."""

from __future__ import annotations

from urllib.parse import quote

from muralab.redaction import redact
from muralab.tracking.store import Store

LOCAL = "http://127.0.0.1:5000"
"""Where `make ui` serves a local store."""
MODEL_TRAINING = "workflowType=machine_learning"
"""MLflow's pages begin with the view for language models unless an address asks for this one."""


def run_page(experiment_id: str, run_id: str) -> str:
    """The page of a run, relative to the server."""
    return f"#/experiments/{experiment_id}/runs/{run_id}?{MODEL_TRAINING}"


def artifact_page(experiment_id: str, run_id: str, path: str) -> str:
    """The page that shows an artifact of a run, relative to the server."""
    return f"#/experiments/{experiment_id}/runs/{run_id}/artifacts/{quote(path)}?{MODEL_TRAINING}"


def view_page(experiment_id: str, key: str, *, charts: bool = False) -> str:
    """The runs of an experiment in a saved view, as a table or as charts, relative to the server."""
    mode = "&compareRunsMode=CHART" if charts else ""
    return f"#/experiments/{experiment_id}/runs?viewStateShareKey={quote(key)}{mode}&{MODEL_TRAINING}"


def version_page(name: str, version: str) -> str:
    """The page of a version of a registered model, relative to the server."""
    return f"#/models/{quote(name)}/versions/{version}?{MODEL_TRAINING}"


def address(store: Store, page: str) -> str:
    """A page's address: of the tracking server, or of a local store while `make ui` runs."""
    base = redact(store.uri) if store.uri.startswith("http") else LOCAL
    return f"{base}/{page}"

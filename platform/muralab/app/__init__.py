"""MLflow's own scoring app, wrapped for exposure, with a page for people beside it."""

from __future__ import annotations

from muralab.app.run import AppRequest, run_app

__all__ = ["AppRequest", "run_app"]

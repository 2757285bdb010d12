"""Answers for files: pictures of a disk in, a table out, by a model of the registry or by a server."""

from __future__ import annotations

from muralab.predict.run import PredictRequest, run_predict

__all__ = ["PredictRequest", "run_predict"]

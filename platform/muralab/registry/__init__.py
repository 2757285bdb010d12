"""Export a trained network, prove that it answers as torch does, and register it with MLflow, ready to serve."""

from __future__ import annotations

from muralab.registry.export import export_onnx
from muralab.registry.gate import Margins, Verdict
from muralab.registry.promote import Promotion, promote_version
from muralab.registry.register import RegisteredModel, register_model

__all__ = [
    "Margins",
    "Promotion",
    "RegisteredModel",
    "Verdict",
    "export_onnx",
    "promote_version",
    "register_model",
]

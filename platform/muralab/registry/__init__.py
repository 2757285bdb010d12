"""Export a trained network to ONNX, verify the export against torch, register it in MLflow, and promote it."""

from __future__ import annotations

from muralab.registry.export import export_onnx
from muralab.registry.gate import Decision, Margins
from muralab.registry.promote import Promotion, promote_version
from muralab.registry.register import RegisteredModel, register_model

__all__ = [
    "Decision",
    "Margins",
    "Promotion",
    "RegisteredModel",
    "export_onnx",
    "promote_version",
    "register_model",
]

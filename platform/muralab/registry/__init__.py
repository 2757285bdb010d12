"""Export a trained network, prove that it answers as torch does, and register it with MLflow, ready to serve."""

from __future__ import annotations

from muralab.registry.export import export_onnx
from muralab.registry.register import RegisteredModel, register_model

__all__ = ["RegisteredModel", "export_onnx", "register_model"]

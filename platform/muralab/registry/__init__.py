"""Export a trained network to ONNX, verify the export against torch, register it in MLflow, and promote it."""

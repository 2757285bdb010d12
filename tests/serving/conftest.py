"""A tiny hand-written network for tests of the served model."""

from __future__ import annotations

from pathlib import Path

import pytest

SIZE = 32


def write_onnx(path: Path, offset: float = 4.0) -> None:
    """Write a network whose logit is 8 * mean grey / 255 - offset and whose heat map is its input."""
    from onnx import TensorProto, helper, save

    nodes = [
        helper.make_node("Cast", ["images"], ["heatmap"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["heatmap", "axes"], ["mean"], keepdims=0),
        helper.make_node("Mul", ["mean", "slope"], ["scaled"]),
        helper.make_node("Sub", ["scaled", "offset"], ["logits"]),
    ]
    constants = [
        helper.make_tensor("axes", TensorProto.INT64, [2], [1, 2]),
        helper.make_tensor("slope", TensorProto.FLOAT, [], [8 / 255]),
        helper.make_tensor("offset", TensorProto.FLOAT, [], [offset]),
    ]
    images = helper.make_tensor_value_info("images", TensorProto.UINT8, ["batch", SIZE, SIZE])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch"])
    heatmap = helper.make_tensor_value_info("heatmap", TensorProto.FLOAT, ["batch", SIZE, SIZE])
    graph = helper.make_graph(nodes, "tiny", [images], [logits, heatmap], constants)
    save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), path)


@pytest.fixture(scope="session")
def onnx_file(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("onnx") / "tiny.onnx"
    write_onnx(path)
    return path

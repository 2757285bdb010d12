"""The fast engine: built, compared with the exact one on the test studies, and left out where it is not as good."""

from __future__ import annotations

import math
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pandas as pd
import pytest
import torch
from torch import nn

from muralab.registry import fast_engine
from muralab.registry.export import export_onnx
from muralab.registry.fast_engine import EngineCheck, EngineTest, FastEngineRefusedError, run_engine, try_fast_engine
from muralab.serving.engine import open_session
from muralab.serving.familiarity import fit_familiarity
from muralab.tracking.tags import Tag
from muralab.training.network import Network
from tests.models import build_model

SIZE, N = 32, 40
IMAGES = np.random.default_rng(0).integers(0, 256, (N, SIZE // 8, SIZE // 8), dtype=np.uint8).repeat(8, 1).repeat(8, 2)


@pytest.fixture(autouse=True)
def vnni(monkeypatch):
    """A processor that has the instructions; others compute the same, but may overflow."""
    monkeypatch.setattr(fast_engine, "cpu_flags", lambda: {"avx_vnni"})


@pytest.fixture(scope="module")
def network_file(tmp_path_factory):
    """A small network with convolutions, pooling and concatenation, as it is served."""
    torch.manual_seed(0)
    backbone = nn.Sequential(nn.Conv2d(3, 8, 3, 2), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 8, 3), nn.ReLU())
    pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
    head = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 1))
    with torch.no_grad():
        head[-1].weight *= 20
    path = tmp_path_factory.mktemp("exact") / "network.onnx"
    export_onnx(Network(backbone=backbone, pool=pool, head=head).eval(), SIZE, path, verify_images=IMAGES[:4])
    return path


@pytest.fixture
def exact(network_file, tmp_path):
    return Path(shutil.copy(network_file, tmp_path / "model.onnx"))


@pytest.fixture
def engine_test(exact):
    """The exact engine's answers for the images, one study each, whose labels follow them."""
    logits = run_engine(open_session(exact), "logits", IMAGES)
    names = [f"s{n:02d}" for n in range(N)]
    table = pd.DataFrame({"image": names, "study": names, "patient": names, "part": "wrist"})
    table = table.assign(label=(logits > np.median(logits)).astype(int), logit=logits)
    return EngineTest(model=build_model(test=table), batches=[IMAGES[:25], IMAGES[25:]])


def test_a_fast_engine_that_is_as_good_is_kept_with_its_figures(exact, engine_test, tmp_path):
    features = run_engine(open_session(exact), "features", IMAGES)
    familiarity = fit_familiarity(
        features, features[::-1] * 1.01, train_squares=IMAGES, validation_squares=IMAGES[::-1]
    )
    found = try_fast_engine(exact, engine_test, IMAGES, familiarity=familiarity, validation=IMAGES)
    assert found.path == tmp_path / "fast.onnx"
    assert found.tags == {Tag.ENGINE: "fast", Tag.ENGINE_CHECK: found.text}
    assert "On 40 test studies: AUROC 1.0000 (exact 1.0000), Cohen's kappa" in found.text
    assert "similarity of heat maps 1.000" in found.text
    assert "of validation images called unlike the training images" in found.text


def test_only_the_body_is_reduced_and_nothing_is_logged(exact, engine_test, tmp_path, caplog):
    try_fast_engine(exact, engine_test, IMAGES)
    assert caplog.text == ""
    nodes = onnx.load(tmp_path / "fast.onnx").graph.node
    reduced = {name for node in nodes if node.op_type == "DequantizeLinear" for name in node.output}
    inputs = {node.op_type: [name in reduced for name in node.input] for node in nodes}
    assert inputs["Conv"] == [True, True, True]
    assert not any(inputs["Gemm"])


def test_both_engines_answer_nearly_alike(exact, engine_test, tmp_path):
    fast = open_session(try_fast_engine(exact, engine_test, IMAGES).path)
    for output, largest in (("logits", 0.1), ("features", 0.02), ("heatmap", 0.05)):
        a, b = (run_engine(session, output, IMAGES) for session in (open_session(exact), fast))
        assert a.shape == b.shape
        assert 0 < np.abs(a - b).max() < largest * np.abs(a).max()


@pytest.mark.parametrize("required", [False, True])
def test_a_fast_engine_beyond_a_tolerance_is_left_out(exact, engine_test, tmp_path, required):
    moved = replace(engine_test.model, test=engine_test.model.test.assign(logit=lambda table: table["logit"] + 1))
    test = replace(engine_test, model=moved, required=required)
    if required:
        with pytest.raises(FastEngineRefusedError, match=r"left out: .*probabilities differ by 0\.\d+ in the mean"):
            try_fast_engine(exact, test, IMAGES)
    else:
        found = try_fast_engine(exact, test, IMAGES)
        assert found.path is None
        assert found.tags[Tag.ENGINE] == "exact"
        assert found.text.endswith("The exact engine serves.")


def test_it_is_left_out_where_the_processor_cannot_check_it(exact, engine_test, tmp_path, monkeypatch):
    monkeypatch.setattr(fast_engine, "cpu_flags", lambda: {"avx2"})
    found = try_fast_engine(exact, engine_test, IMAGES)
    assert (found.path, list(tmp_path.iterdir())) == (None, [exact])
    assert "left out: this processor has neither avx512_vnni nor avx_vnni" in found.text


def test_a_network_that_cannot_be_reduced_keeps_the_exact_engine(engine_test, tmp_path):
    (tmp_path / "model.onnx").write_bytes(b"not a network")
    found = try_fast_engine(tmp_path / "model.onnx", engine_test, IMAGES)
    assert found.path is None
    assert "left out: it cannot be built or run" in found.text


FINE = EngineCheck(
    figures={"auroc": (0.9, 0.899), "kappa": (0.6, 0.7), "brier": (0.1, 0.101), "ece": (0.05, 0.05)},
    probability=0.002,
    heat=0.99,
    warned=0.01,
    n_studies=100,
)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"figures": {**FINE.figures, "auroc": (0.9, 0.89)}}, "AUROC 0.890, exact 0.900 (at most 0.005 worse)"),
        (
            {"figures": {**FINE.figures, "kappa": (0.6, math.nan)}},
            "Cohen's kappa nan, exact 0.600 (at most 0.025 worse)",
        ),
        ({"figures": {**FINE.figures, "brier": (0.1, 0.11)}}, "Brier score 0.110, exact 0.100 (at most 0.005 worse)"),
        ({"probability": 0.03}, "probabilities differ by 0.030 in the mean (at most 0.025)"),
        ({"heat": 0.5}, "heat maps have a cosine similarity of 0.50 (at least 0.9)"),
        ({"warned": 0.2}, "20.0% of validation images seem unlike the training images (at most 3%)"),
    ],
)
def test_what_exceeds_its_tolerance_is_named(changes, problem):
    assert FINE.problems == []
    assert replace(FINE, **changes).problems == [problem]
    assert replace(FINE, heat=math.nan, warned=None).problems == []

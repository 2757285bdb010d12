"""Which engine a served model runs: the fast one where model and processor have it, else the exact one."""

from __future__ import annotations

import logging
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest

from muralab.serving import engine
from muralab.serving.classifier import StudyClassifier
from muralab.serving.config import ServingConfig, write_config
from muralab.serving.engine import missing_instructions, open_engine
from tests.serving.conftest import SIZE, write_onnx
from tests.serving.test_answers import png

WHITE = {"images": np.full((1, SIZE, SIZE), 255, np.uint8)}


@pytest.fixture
def fast_file(tmp_path):
    """A network with another answer than the exact one."""
    write_onnx(tmp_path / "fast.onnx", offset=0.0)
    return tmp_path / "fast.onnx"


@pytest.fixture
def has(monkeypatch):
    """A function that gives the processor instruction sets."""
    return lambda *flags: monkeypatch.setattr(engine, "cpu_flags", lambda: frozenset(flags))


def logit(session) -> float:
    return float(session.run(["logits"], WHITE)[0][0])


@pytest.mark.parametrize("flag", ["avx512_vnni", "avx_vnni"])
def test_the_fast_engine_runs_where_the_processor_has_its_instructions(onnx_file, fast_file, has, caplog, flag):
    has("sse2", flag)
    assert logit(open_engine(onnx_file, fast_file)) == pytest.approx(8.0)
    assert caplog.records == []


def test_a_model_without_a_fast_engine_runs_the_exact_one_and_logs_nothing(onnx_file, has, caplog):
    has("avx512_vnni")
    assert logit(open_engine(onnx_file, None)) == pytest.approx(4.0)
    assert caplog.records == []


def test_without_the_instructions_one_line_says_that_the_exact_engine_runs(onnx_file, fast_file, has, caplog):
    has("avx2")
    assert logit(open_engine(onnx_file, fast_file)) == pytest.approx(4.0)
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert "exact (float32) in place of the fast one: this processor has neither avx512_vnni" in record.message


def test_a_fast_engine_that_does_not_open_is_replaced(onnx_file, fast_file, has, caplog):
    has("avx512_vnni")
    fast_file.write_bytes(b"not a network")
    assert logit(open_engine(onnx_file, fast_file)) == pytest.approx(4.0)
    assert "fast.onnx cannot be opened" in caplog.text


def test_unknown_instructions_are_not_taken_for_missing_ones():
    assert missing_instructions(frozenset()) == "its instructions are unknown"


def test_a_model_answers_with_its_fast_engine(onnx_file, fast_file, has, tmp_path):
    has("avx512_vnni")
    write_config(ServingConfig(image_size=SIZE), tmp_path / "config.json")
    artifacts = {"onnx": str(onnx_file), "fast": str(fast_file), "config": str(tmp_path / "config.json")}
    classifier = StudyClassifier()
    classifier.load_context(SimpleNamespace(artifacts=artifacts))
    answer = classifier.predict(None, pd.DataFrame({"image": [png(255)]}), {"explain": True})
    assert answer["probability"][0] == pytest.approx(1 / (1 + np.exp(-8)))
    assert answer["heatmap"][0]

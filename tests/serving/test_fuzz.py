"""Arbitrary files, cells, parameters and bodies get an answer or a short error message, never anything else."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException

from muralab.data.images.decode import decode, to_square
from muralab.errors import ImageError
from muralab.serving.classifier import StudyClassifier
from muralab.serving.config import ServingConfig, write_config
from tests.app.conftest import address, model, model_folder, post  # noqa: F401
from tests.fixtures.payloads import JSON
from tests.fixtures.strategies import (
    CELLS,
    CONTENT_TYPES,
    DAMAGED_FILES,
    MALFORMED,
    MANY,
    PARAMS,
    VALID_CELLS,
    WELL_FORMED,
)

ROWS = st.lists(st.fixed_dictionaries({"image": CELLS}, optional={"study": CELLS}), max_size=4)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory, onnx_file) -> StudyClassifier:
    config = tmp_path_factory.mktemp("fuzz") / "config.json"
    write_config(ServingConfig(image_size=32, prevalence=0.3), config)
    classifier = StudyClassifier()
    classifier.load_context(SimpleNamespace(artifacts={"onnx": str(onnx_file), "config": str(config)}))
    return classifier


def outcome(call: Callable[[], object]) -> tuple[object, str | None]:
    """The result of a call, or why it was refused; any other exception fails the test."""
    try:
        return call(), None
    except ImageError as error:
        return None, str(error)
    except MlflowException as error:
        return None, error.error_code


@MANY
@given(data=DAMAGED_FILES)
def test_a_damaged_file_is_decoded_or_refused_in_one_line(data):
    grey, reason = outcome(lambda: decode(data))
    if reason is None:
        assert to_square(grey, 32).shape == (32, 32)
    else:
        assert 0 < len(reason) < 250
        assert "\n" not in reason


@MANY
@given(rows=ROWS)
def test_arbitrary_cells_are_answered_or_refused(classifier, rows):
    answer, refused = outcome(lambda: classifier.predict(None, pd.DataFrame(rows, dtype=object), {"policy": "partial"}))
    assert refused in (None, "INVALID_PARAMETER_VALUE")
    if refused is None:
        assert (answer["error"].isna() == answer["probability"].notna()).all()
        assert len(answer) == len(rows)


@MANY
@given(params=PARAMS)
def test_arbitrary_parameters_are_used_or_refused(classifier, params):
    answer, refused = outcome(lambda: classifier.predict(None, pd.DataFrame({"image": VALID_CELLS[:1]}), params))
    assert refused in (None, "INVALID_PARAMETER_VALUE")
    assert refused or 0 <= answer["threshold"][0] <= 1


@MANY
@given(body=WELL_FORMED | MALFORMED, content_type=st.just(JSON) | CONTENT_TYPES)
def test_the_app_answers_arbitrary_requests_without_a_stack_trace(address, body, content_type):  # noqa: F811
    status, answer, _ = post(address, body, content_type)
    assert status in (200, 400, 413, 415)
    assert status == 200 or "Traceback" not in answer["message"]

"""Random files, cells, parameters and bodies: an answer or a refusal in words, never anything else."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as some
from mlflow.exceptions import MlflowException

from bench.fuzz import ODD, damage, make_case
from bench.payloads import good_files, text
from muralab.data.images.decode import decode, to_square
from muralab.errors import ImageError
from muralab.serving.classifier import StudyClassifier
from muralab.serving.config import ServingConfig, write_config
from tests.app.conftest import address, model, model_folder, post  # noqa: F401

GOOD = [text(data) for data in good_files().values()]
VALUES = (
    some.none()
    | some.booleans()
    | some.integers()
    | some.floats()
    | some.text()
    | some.binary()
    | some.lists(some.text())
)
CELLS = VALUES | some.sampled_from([*GOOD, *ODD])
ROWS = some.lists(some.fixed_dictionaries({"image": CELLS}, optional={"study": CELLS}), max_size=4)
PARAMS = some.dictionaries(some.sampled_from(["threshold", "explain", "policy"]) | some.text(), CELLS, max_size=3)
QUICK = settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)


@pytest.fixture(scope="module")
def classifier(tmp_path_factory, onnx_file) -> StudyClassifier:
    config = tmp_path_factory.mktemp("fuzz") / "config.json"
    write_config(ServingConfig(image_size=32), config)
    found = StudyClassifier()
    found.load_context(SimpleNamespace(artifacts={"onnx": str(onnx_file), "config": str(config)}))
    return found


def outcome(call: Callable[[], object]) -> tuple[object, str | None]:
    """What a call gives, or the reason of its refusal; whatever else it raises fails the test."""
    try:
        return call(), None
    except ImageError as error:
        return None, str(error)
    except MlflowException as error:
        return None, error.error_code


@QUICK
@given(file=some.sampled_from(sorted(good_files())), rng=some.randoms(use_true_random=False))
def test_a_damaged_file_is_a_picture_or_a_short_reason(file, rng):
    grey, reason = outcome(lambda: decode(damage(good_files()[file], rng)))
    if reason is None:
        assert to_square(grey, 32).shape == (32, 32)
    else:
        assert 0 < len(reason) < 250
        assert "\n" not in reason


@QUICK
@given(rows=ROWS)
def test_odd_cells_are_answered_or_named(classifier, rows):
    answer, refused = outcome(lambda: classifier.predict(None, pd.DataFrame(rows), {"policy": "partial"}))
    assert refused in (None, "INVALID_PARAMETER_VALUE")
    if refused is None:
        assert (answer["error"].isna() == answer["probability"].notna()).all()
        assert len(answer) == len(rows)


@QUICK
@given(params=PARAMS)
def test_odd_parameters_are_used_or_named(classifier, params):
    answer, refused = outcome(lambda: classifier.predict(None, pd.DataFrame({"image": GOOD[:1]}), params))
    assert refused in (None, "INVALID_PARAMETER_VALUE")
    assert refused or 0 <= answer["threshold"][0] <= 1


def test_the_app_answers_random_requests_in_words(address):  # noqa: F811
    for number in range(400):
        case = make_case(number)
        status, body, _ = post(address, case.body, case.kind)
        assert status in (200, 400, 413, 415), (number, body)
        assert status == 200 or "Traceback" not in body["message"], number

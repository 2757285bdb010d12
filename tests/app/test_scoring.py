"""The model is asked directly, and its answer is written as MLflow's server writes it."""

from __future__ import annotations

import json

import pytest
from mlflow.exceptions import MlflowException
from mlflow.pyfunc import scoring_server
from starlette.exceptions import HTTPException

from muralab.app.payload import CheckedRequest, Row
from muralab.app.scoring import MAX_MESSAGE, answer
from tests.app.conftest import text

ROWS = [{"image": text(180), "study": "s1"}, {"image": text(), "study": "s1"}, {"image": "%", "study": None}]
REQUEST = CheckedRequest(rows=[Row(**row) for row in ROWS])


@pytest.mark.parametrize("explain", [False, True])
def test_an_answer_is_byte_for_byte_that_of_mlflows_server(model, explain):
    params = {"policy": "partial", "explain": explain, "threshold": 0.25}
    body = json.dumps({"dataframe_records": ROWS, "params": params}).encode()
    expected = scoring_server.invocations(body, "application/json", model, model.metadata.get_input_schema())
    assert answer(model, CheckedRequest(rows=REQUEST.rows, params=params)) == expected.response


def test_what_the_model_refuses_is_a_400_with_its_reason(model):
    with pytest.raises(HTTPException, match=r"1 of 3 rows cannot be used .* row 3: not base64 text") as caught:
        answer(model, REQUEST)
    assert caught.value.status_code == 400


class Failing:
    def __init__(self, error: Exception):
        self.error = error

    def predict(self, data, params=None):
        raise self.error


INVALID = MlflowException.invalid_parameter_value


def test_a_reason_becomes_one_sentence_of_bounded_length():
    with pytest.raises(HTTPException) as caught:
        answer(Failing(INVALID("two\nlines " * 1000)), REQUEST)
    assert caught.value.detail.startswith("two lines two lines")
    assert len(caught.value.detail) < MAX_MESSAGE + 10


@pytest.mark.parametrize(
    "error",
    [
        ValueError(ROWS[0]["image"]),
        MlflowException(ROWS[0]["image"]),
        INVALID(f"Failed to enforce schema of data '{ROWS[0]['image']}'", error_class="SCHEMA_ENFORCEMENT_FAILED"),
    ],
)
def test_a_failing_model_is_a_500_whose_log_has_the_traceback_but_no_content(caplog, error):
    with pytest.raises(HTTPException, match="The model failed on this request") as caught:
        answer(Failing(error), REQUEST)
    assert caught.value.status_code == 500
    assert type(error).__name__ in caplog.text
    assert 'test_scoring.py", line' in caplog.text
    assert ROWS[0]["image"][:20] not in caplog.text

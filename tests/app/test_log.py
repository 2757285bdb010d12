"""What others may write to the log while the app serves."""

from __future__ import annotations

import logging

import pytest

from muralab.app.log import describe, silence


@pytest.mark.parametrize("name", ["mlflow.models.utils", "mlflow.pyfunc.scoring_server", "mlflow.later", "pydicom"])
def test_warnings_that_quote_a_request_are_kept_out(name):
    before = {known: logging.getLogger(known).level for known in logging.root.manager.loggerDict}
    silence()
    assert not logging.getLogger(name).isEnabledFor(logging.ERROR)
    for known, level in before.items():
        logging.getLogger(known).setLevel(level)


def test_an_error_is_described_by_its_places_and_those_of_its_causes():
    try:
        try:
            int("secret")
        except ValueError as cause:
            raise KeyError("secret too") from cause
    except KeyError as error:
        found = describe(error)
    assert [name in found for name in ("KeyError", "ValueError", "test_log.py")] == [True] * 3
    assert "secret" not in found.replace('int("secret")', "").replace('KeyError("secret too")', "")

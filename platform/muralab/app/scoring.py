"""Ask the model, and write its answer as `mlflow models serve` does."""

from __future__ import annotations

import io
from typing import Any

from starlette.exceptions import HTTPException

from muralab.app.log import describe, logger
from muralab.app.payload import CheckedRequest

MAX_MESSAGE = 4000
"""Characters of an error message."""


def answer(model: Any, request: CheckedRequest) -> str:
    """Answer one request.

    Args:
        model: MLflow's `PyFuncModel`.
        request: rows and parameters.

    Returns:
        JSON text with the predictions.

    Raises:
        HTTPException: 400 with the model's reason when it refuses the request, 500 when it fails.
    """
    import pandas as pd
    from mlflow.pyfunc.scoring_server import predictions_to_json

    columns = {"image": [row.image for row in request.rows], "study": [row.study for row in request.rows]}
    text = io.StringIO()
    try:
        # Columns of objects share the images' text; pandas' columns of text would copy it.
        predictions = model.predict(pd.DataFrame(columns, dtype=object), params=request.params)
        predictions_to_json(predictions, text)
    except Exception as error:
        if _is_refusal(error):
            raise HTTPException(400, _one_sentence(str(error))) from None
        logger.error("the model failed:\n%s", describe(error))
        raise HTTPException(500, "The model failed on this request; the server's log says where.") from None
    return text.getvalue()


def _is_refusal(error: Exception) -> bool:
    """Whether the model refused the request; the message of a failed signature check would quote the rows."""
    from mlflow.exceptions import MlflowException

    if not isinstance(error, MlflowException) or error.error_class == "SCHEMA_ENFORCEMENT_FAILED":
        return False
    return bool(error.error_code == "INVALID_PARAMETER_VALUE")


def _one_sentence(text: str) -> str:
    line = " ".join(text.split())
    line = line if len(line) <= MAX_MESSAGE else f"{line[:MAX_MESSAGE]} ..."
    return line if line.endswith((".", "!", "?")) else f"{line}."

"""`predict`: answers for files."""

from __future__ import annotations

from typing import Annotated

import typer

from muralab.cli.door import absolute, none

Model = Annotated[str, typer.Option(help="A registered model, models:/<name>@<alias>, or a model's folder.")]


def predict(
    images: Annotated[str, typer.Option(help="A picture, or a folder of them: MURA, DICOM or any other tree.")],
    out: Annotated[str, typer.Option(help="The table to write: .csv or .parquet.")] = "predictions.csv",
    model: Model = "models:/mura-wrist@champion",
    url: Annotated[str, typer.Option(help="A server in the model's place, http://127.0.0.1:5001; or `none`.")] = "none",
    token_file: Annotated[str, typer.Option(help="A file with the server's bearer token, or `none`.")] = "none",
    study: Annotated[str, typer.Option(help="What a study is: `folder`, or `file` (each picture alone).")] = "folder",
    rows: Annotated[int, typer.Option(help="Pictures a request; a study is never split.")] = 16,
    threshold: Annotated[str, typer.Option(help="From 0 to 1, or `model`: the model's own.")] = "model",
) -> None:
    """Answer for files with a registered model or a server, and write one table."""
    import os
    from pathlib import Path

    from muralab.commands.predict import PredictRequest, run_predict
    from muralab.tracking import absolute_uri, claim_run, open_store

    token = none(token_file)
    request = PredictRequest(
        images=Path(absolute(images)),
        out=Path(absolute(out)),
        model=model_uri(model),
        url=none(url),
        token_file=None if token is None else Path(absolute(token)),
        study=study,
        rows=rows,
        threshold=None if threshold == "model" else number("threshold", threshold),
        tracking_uri=absolute_uri(os.environ.get("MLFLOW_TRACKING_URI")),
        run_id=os.environ.pop("MLFLOW_RUN_ID", None),
    )
    if request.run_id:
        claim_run(open_store(request.tracking_uri), request.run_id)
    run_predict(request)


def model_uri(text: str) -> str:
    """A model's URI as it is, a folder made absolute."""
    return text if ":/" in text else absolute(text)


def number(name: str, text: str) -> float:
    """A number.

    Raises:
        SettingsError: the text is none.
    """
    from muralab.errors import SettingsError

    try:
        return float(text)
    except ValueError:
        raise SettingsError(f"{name}={text}: expected a number.") from None

"""`app`: a registered model as a server for others, with a page for people."""

from __future__ import annotations

from typing import Annotated

import typer

from muralab.cli.door import absolute, none
from muralab.cli.predict import Model, model_uri


def app(
    model: Model = "models:/mura-wrist@champion",
    host: Annotated[
        str, typer.Option(help="The address to listen on; other than loopback needs a token.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The port to listen on.", min=1, max=65535)] = 5001,
    token_file: Annotated[
        str, typer.Option(help="A file with the bearer token clients must send, or `none`.")
    ] = "none",
    max_megabytes: Annotated[int, typer.Option(help="Of a request's body.", min=1, max=1024)] = 48,
) -> None:
    """Serve a registered model with a token, limits, plain errors and a page for people."""
    import os
    from pathlib import Path

    from muralab.commands.app import AppRequest, run_app
    from muralab.tracking import absolute_uri

    token = none(token_file)
    run_app(
        AppRequest(
            model=model_uri(model),
            tracking_uri=absolute_uri(os.environ.get("MLFLOW_TRACKING_URI")),
            host=host,
            port=port,
            token_file=None if token is None else Path(absolute(token)),
            max_megabytes=max_megabytes,
        )
    )

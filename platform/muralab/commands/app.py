"""The command `app`: load a model, wrap it, serve it until interrupted."""

from __future__ import annotations

import json
import logging
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from muralab.app.token import read_token_file
from muralab.errors import SettingsError
from muralab.serving.config import DISCLAIMER, MAX_ROWS, read_version

LOOPBACK = ("127.0.0.1", "localhost", "::1")
TOLD = ("image_size", "threshold", "rule", "uncertain_low", "uncertain_high", "recipe", "part", "synthetic")
MIN_TOKEN = 16


@dataclass(frozen=True, kw_only=True)
class AppRequest:
    """What the command was asked; paths are absolute."""

    model: str
    tracking_uri: str
    host: str = "127.0.0.1"
    port: int = 5001
    token_file: Path | None = None
    """Holds the bearer token that clients must send."""
    max_megabytes: int = 48
    """Of a request's body."""


def run_app(request: AppRequest) -> None:
    """Serve until interrupted.

    Raises:
        MuraLabError: no such model, no usable token, or a port that is taken.
    """
    # MLflow looks at these when it is imported.
    os.environ.update({"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"})
    import uvicorn

    from muralab.app.build import build_app
    from muralab.app.limits import Limits
    from muralab.app.log import silence
    from muralab.registry.load import load_registered

    token = read_token(request)
    _check_port(request)
    model, folder = load_registered(request.model, request.tracking_uri)
    app = build_app(model, read_about(folder), token=token, limits=Limits(max_bytes=request.max_megabytes * 2**20))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    silence()
    print(f"The page: http://{request.host}:{request.port}/   {DISCLAIMER}", flush=True)
    uvicorn.run(
        app,
        host=request.host,
        port=request.port,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=10,
    )


def read_token(request: AppRequest) -> str | None:
    """The bearer token, None where none is asked for.

    Raises:
        SettingsError: the file cannot be read or holds no good token, or a server that others reach has no token.
    """
    if request.token_file is None:
        if request.host not in LOOPBACK:
            raise SettingsError(
                f"host={request.host} lets other machines in, and no token keeps strangers out. Write one to a file "
                "(`openssl rand -hex 24 > token.txt`) and say token_file=token.txt, or serve 127.0.0.1 only."
            )
        return None
    return read_token_file(request.token_file, least=MIN_TOKEN)


def read_about(folder: Path) -> dict[str, Any]:
    """What the page and `/about` tell of a model."""
    path = folder / "artifacts" / "config.json"
    stored = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    told = {key: stored.get(key) for key in TOLD}
    fixed = {"max_rows": MAX_ROWS, "disclaimer": stored.get("disclaimer") or DISCLAIMER}
    return {"model_version": read_version(path), **told, **fixed}


def _check_port(request: AppRequest) -> None:
    import socket

    try:
        with socket.create_server((request.host, request.port), family=_family(request.host)):
            pass
    except OSError as error:
        raise SettingsError(
            f"{request.host}:{request.port} cannot be served ({error.strerror or error}). Give another port."
        ) from error


def _family(host: str) -> Any:
    import socket

    return socket.AF_INET6 if ":" in host else socket.AF_INET

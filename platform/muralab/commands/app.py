"""`app`: load a registered model, wrap it, serve it until interrupted."""

from __future__ import annotations

import json
import logging
import os
from pathlib import Path
from typing import Any

from muralab.app.token import read_token_file
from muralab.config.commands import AppConfig
from muralab.config.environment import Environment
from muralab.errors import SettingsError
from muralab.serving.config import DISCLAIMER, MAX_ROWS, read_version

LOOPBACK = ("127.0.0.1", "localhost", "::1")
SHOWN_KEYS = (
    "image_size",
    "method",
    "prevalence",
    "threshold",
    "rule",
    "sensitivity_bound",
    "uncertain_low",
    "uncertain_high",
    "recipe",
    "part",
    "synthetic",
)
MIN_TOKEN = 16


def run(config: AppConfig, environment: Environment) -> None:
    """Serve until interrupted.

    Raises:
        MuraLabError: no such model, no usable token, or a port that is taken.
    """
    # MLflow reads these when it is imported.
    os.environ.update({"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"})
    import uvicorn

    from muralab.app.build import build_app
    from muralab.app.limits import Limits
    from muralab.app.log import silence
    from muralab.registry.load import load_registered

    token = read_token(config)
    _check_port(config)
    model, folder = load_registered(config.model, environment.tracking_uri, environment.registry_uri)
    app = build_app(model, read_about(folder), token=token, limits=Limits(max_bytes=config.max_megabytes * 2**20))
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(name)s %(message)s")
    silence()
    print(f"The page: http://{config.host}:{config.port}/   {DISCLAIMER}", flush=True)
    uvicorn.run(
        app,
        host=config.host,
        port=config.port,
        log_level="warning",
        access_log=False,
        server_header=False,
        timeout_graceful_shutdown=10,
    )


def read_token(config: AppConfig) -> str | None:
    """The bearer token; None where none is required.

    Raises:
        SettingsError: the file cannot be read or holds no usable token, or a server that others reach has no token.
    """
    if config.token_file is None:
        if config.host not in LOOPBACK:
            raise SettingsError(
                f"host={config.host} accepts other machines, which needs a token. Write one to a file "
                "(`openssl rand -hex 24 > token.txt`) and give token_file=token.txt, or serve 127.0.0.1 only."
            )
        return None
    return read_token_file(config.token_file, least=MIN_TOKEN)


def read_about(folder: Path) -> dict[str, Any]:
    """What the page and `/about` show of a model."""
    path = folder / "artifacts" / "config.json"
    stored = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    shown = {key: stored.get(key) for key in SHOWN_KEYS}
    fixed = {"max_rows": MAX_ROWS, "disclaimer": stored.get("disclaimer") or DISCLAIMER}
    return {"model_version": read_version(path), **shown, **fixed}


def _check_port(config: AppConfig) -> None:
    import socket

    try:
        with socket.create_server((config.host, config.port), family=_family(config.host)):
            pass
    except OSError as error:
        raise SettingsError(
            f"{config.host}:{config.port} cannot be served ({error.strerror or error}). Give another port."
        ) from error


def _family(host: str) -> Any:
    import socket

    return socket.AF_INET6 if ":" in host else socket.AF_INET

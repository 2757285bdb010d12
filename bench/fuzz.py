"""Schema, strategies and checks for schemathesis in `make soak`: damaged images, arbitrary values, damaged text.

    python -m bench.fuzz > schema.json
    SCHEMATHESIS_HOOKS=bench.fuzz st run schema.json --url http://127.0.0.1:5001 --checks survives

The schema accepts any value as an image or a parameter: what schemathesis generates from it has the form of a request
and reaches the model. What violates the schema, and damaged text, need not reach it.
"""

from __future__ import annotations

import json
import sys
from random import Random
from typing import TYPE_CHECKING, Any

import schemathesis
from hypothesis import strategies as st

from bench.payloads import CSV, JSON, base64_text, valid_files

if TYPE_CHECKING:
    from schemathesis import Case, CheckContext, HookContext, Response

DAMAGED_JSON = "application/x-damaged-json"
"""Sent as application/json, for which schemathesis itself would only generate valid JSON."""


def damage(data: bytes, seed: int) -> bytes:
    """Overwrite, delete or repeat some stretches of the data, more often close to the start."""
    rng, changed = Random(seed), bytearray(data)
    for _ in range(rng.randint(1, 6)):
        start = rng.randrange(1 + min(len(changed), rng.choice((64, 400, len(data)))))
        stretch = bytes(changed[start : start + rng.choice((1, 2, 4, 30, 500))])
        other = rng.choice((rng.randbytes(len(stretch)), b"\xff\xff\xff\xff", b"\0\0\0\0", b"]", b'"', b","))
        changed[start : start + len(stretch)] = rng.choice((b"", stretch * 2, other))
    return bytes(changed)


def damaged(values: list[bytes]) -> st.SearchStrategy[bytes]:
    """A strategy of damaged copies."""
    return st.builds(damage, st.sampled_from(values), st.integers(0, 2**32))


def _object(required: list[str], properties: dict[str, Any]) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": required, "additionalProperties": False}


def _form(key: str, record: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    records = {"type": "array", "items": record, "minItems": 1, "maxItems": 3}
    return _object([key, "params"], {key: records, "params": _object([], params)})


def build_schema() -> dict[str, Any]:
    """The OpenAPI schema of `/invocations`: damaged images with valid parameters, or any values for both."""
    image = {"type": "string", "format": "radiograph"}
    params = {"explain": {"type": "boolean"}, "policy": {"enum": ["refuse", "partial"]}}
    forms = [
        _form("dataframe_records", _object(["image"], {"image": image}), params),
        _form("instances", _object(["image"], {"image": {}, "study": {}}), {**params, "threshold": {}, "policy": {}}),
    ]
    text = {"schema": {"type": "string", "format": "binary"}}
    content = {JSON: {"schema": {"anyOf": forms}}, DAMAGED_JSON: text, CSV: text}
    post = {"requestBody": {"required": True, "content": content}, "responses": {"200": {"description": "answer"}}}
    information = {"title": "muralab", "version": "1"}
    return {"openapi": "3.1.0", "info": information, "paths": {"/invocations": {"post": post}}}


schemathesis.openapi.format("radiograph", damaged(list(valid_files().values())).map(base64_text))
_image = base64_text(valid_files()["png"])
schemathesis.openapi.media_type(CSV, damaged([f"image,study\n{_image},s\n".encode()]))
schemathesis.openapi.media_type(
    DAMAGED_JSON, damaged([json.dumps({"inputs": {"image": [_image]}, "params": {"explain": False}}).encode()])
)


@schemathesis.hook
def before_call(context: HookContext, case: Case[Any], kwargs: dict[str, Any]) -> None:
    """Send damaged JSON as JSON."""
    del context, kwargs
    if case.media_type == DAMAGED_JSON:
        case.headers["Content-Type"] = JSON


@schemathesis.check
def survives(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """No request may cause a server error or a stack trace."""
    del ctx, case
    if response.status_code >= 500 or "Traceback" in response.text:
        raise AssertionError(f"{response.status_code}: {response.text[-200:]!r}")


@schemathesis.check
def survives_well_formed(ctx: CheckContext, response: Response, case: Case[Any]) -> None:
    """The same for requests that reach the model; MLflow's server answers all others itself."""
    if case.media_type == JSON and case.meta is not None and case.meta.generation.mode.is_positive:
        survives(ctx, response, case)


if __name__ == "__main__":
    json.dump(build_schema(), sys.stdout)

"""Random requests from a seed and a number: damaged files, odd cells, odd parameters, damaged text.

A case is made again by its number: `python -m bench.fuzz 1234 > body` writes the body of case 1234.
"""

from __future__ import annotations

import json
import struct
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from random import Random
from typing import Any

from bench.payloads import CSV, JSON, chunk, good_files, text

KINDS = ("file", "file", "file", "cells", "params", "text")
ODD: tuple[Any, ...] = (
    None, True, 0, -1, 7, 1e308, 2**70, float("nan"), float("inf"), "", " ", "\0", "nan", "null", "refuse", "é" * 50,
    "\ud800", "=" * 9, "A" * 5000, "data:image/png;base64,", [], [1], {}, {"a": [None]}, [[["x"]]],
)  # fmt: skip
NAMES = ("threshold", "explain", "policy", "", "image", "thresh", "x" * 300)
SEED = 5


@dataclass(frozen=True, kw_only=True)
class Case:
    """One request."""

    body: bytes
    kind: str
    """The Content-Type."""
    reaches_model: bool
    """Whether the body is a request by its form, so that MLflow's server must not answer it with 5xx."""


def make_case(number: int, seed: int = SEED) -> Case:
    """The case of a number."""
    rng = Random(seed * 10_000_019 + number)
    makers: dict[str, Callable[[Random], Case]] = {
        "file": _file_case,
        "cells": _cells_case,
        "params": _params_case,
        "text": _text_case,
    }
    return makers[rng.choice(KINDS)](rng)


def damage(data: bytes, rng: Random) -> bytes:
    """A file with some bytes changed, cut, doubled or taken from another; a PNG's checksums are mended, mostly."""
    damaged = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4, 16))):
        _strike(damaged, rng)
    return mend_png(bytes(damaged)) if rng.random() < 0.8 else bytes(damaged)


def mend_png(data: bytes) -> bytes:
    """Correct checksums and lengths of a PNG's chunks, so that damage reaches what lies behind them."""
    found, place = [data[:8]], 8
    while data[:8] == b"\x89PNG\r\n\x1a\n" and place + 12 <= len(data):
        length = min(struct.unpack(">I", data[place : place + 4])[0], len(data) - place - 12)
        found.append(chunk(data[place + 4 : place + 8], data[place + 8 : place + 8 + length]))
        place += 12 + length
    return b"".join(found) if len(found) > 1 else data


def _strike(data: bytearray, rng: Random) -> None:
    if not data:
        return
    # Headers decide more than pixels do, so they are hit more often.
    place = rng.randrange(min(len(data), rng.choice((64, 400, 10**9))))
    length = rng.choice((1, 2, 4, 30, 500))
    kind = rng.randrange(7)
    if kind == 0:
        data[place] ^= 1 << rng.randrange(8)
    elif kind == 1:
        data[place : place + length] = rng.randbytes(length)
    elif kind == 2:
        del data[place : place + length]
    elif kind == 3:
        data[place:place] = data[place : place + length]
    elif kind == 4:
        data[place : place + 4] = rng.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\0\0\x80\0"))
    elif kind == 5:
        del data[place:]
    else:
        other = rng.choice(list(good_files().values()))
        data[place : place + length] = other[place : place + length]


def _repack(data: bytes, rng: Random) -> bytes:
    """A PNG whose unpacked pixel lines, not the packed ones, are damaged."""
    start = data.find(b"IDAT")
    if start < 0:
        return damage(data, rng)
    length = struct.unpack(">I", data[start - 4 : start])[0]
    lines = bytearray(zlib.decompress(data[start + 4 : start + 4 + length]))
    _strike(lines, rng)
    return data[: start - 4] + chunk(b"IDAT", zlib.compress(bytes(lines))) + data[start + 8 + length :]


def _file_case(rng: Random) -> Case:
    file = rng.choice(list(good_files().values()))
    harm = _repack if rng.random() < 0.15 else damage
    params = {"policy": rng.choice(("refuse", "partial")), "explain": rng.random() < 0.05}
    return _as_json({"dataframe_records": [{"image": text(harm(file, rng)), "study": "s"}], "params": params})


def _cells_case(rng: Random) -> Case:
    good = text(good_files()["png"])
    texts = (good, good[:-3], good.replace("A", "-"), good[:50] + "\n" + good[50:], "data:image/png;base64," + good)
    pool = [*ODD, *texts]
    rows = [[rng.choice(pool), rng.choice(pool)] for _ in range(rng.choice((1, 1, 2, 5, 70)))]
    table = [dict(zip(("image", "study"), row)) for row in rows]
    forms: tuple[dict[str, Any], ...] = (
        {"dataframe_records": table},
        {"instances": table},
        {"inputs": {"image": [row[0] for row in rows], "study": [row[1] for row in rows]}},
        {"dataframe_split": {"columns": ["image", "study"], "data": rows}},
    )
    return _as_json({**rng.choice(forms), "params": {"policy": rng.choice(("refuse", "partial"))}})


def _params_case(rng: Random) -> Case:
    params = {rng.choice(NAMES[: rng.choice((3, 7))]): rng.choice(ODD) for _ in range(rng.randrange(1, 4))}
    return _as_json({"dataframe_records": [{"image": text(good_files()["png"])}], "params": params})


def _text_case(rng: Random) -> Case:
    good = text(good_files()["png"])
    body, kind = rng.choice(
        (
            (json.dumps({"dataframe_split": {"columns": ["image"], "data": [[good]]}}).encode(), JSON),
            (json.dumps({"inputs": {"image": [good]}, "params": {"explain": False}}).encode(), JSON),
            (f"image,study\n{good},s\n".encode(), CSV),
        )
    )
    damaged = bytearray(body)
    for _ in range(rng.choice((1, 2, 8))):
        _strike(damaged, rng)
    return Case(body=bytes(damaged), kind=rng.choice((kind, kind, kind, JSON, CSV, "text/plain")), reaches_model=False)


def _as_json(payload: dict[str, Any]) -> Case:
    return Case(body=json.dumps(payload).encode(), kind=JSON, reaches_model=True)


if __name__ == "__main__":
    sys.stdout.buffer.write(make_case(int(sys.argv[1])).body)

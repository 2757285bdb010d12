"""Plans whose folders move."""

from __future__ import annotations

from pathlib import Path

import muralab
from muralab.tune.folders import Folders
from muralab.tune.portable import to_local, to_portable

CHECKOUT = Path(muralab.__file__).parents[2]


def folders(cache: str) -> Folders:
    return Folders(cache=Path(cache), sweep=Path(cache) / "sweeps" / "abc")


def test_paths_below_the_cache_and_the_checkout_move_with_them() -> None:
    plan = {"a": "/old/sweeps/abc/trials/x", "b": ["/old/pixels", "/older"], "c": f"{CHECKOUT}/data", "n": 3, "e": ""}
    stored = to_portable(plan, folders("/old"))
    assert stored == {
        "a": "{sweep}/trials/x",
        "b": ["{cache}/pixels", "/older"],
        "c": "{checkout}/data",
        "n": 3,
        "e": "",
    }
    moved = to_local(stored, folders("/new"))
    assert moved == {**plan, "a": "/new/sweeps/abc/trials/x", "b": ["/new/pixels", "/older"]}

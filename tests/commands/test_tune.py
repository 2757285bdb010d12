"""`tune`: its options reach the search."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from muralab.commands import tune
from muralab.config.commands import TuneConfig
from muralab.config.options import parse_options
from muralab.tune.ray_handle import EarlyRay
from tests.tune.recorder import Recorder


@pytest.mark.parametrize(("text", "prunes"), [("on", True), ("off", False)])
def test_pruning_is_an_option(monkeypatch: pytest.MonkeyPatch, text: str, prunes: bool) -> None:
    passed: dict[str, Any] = {}
    monkeypatch.setattr(tune, "run_search", lambda *_, **options: passed.update(options))
    monkeypatch.setattr(tune, "read_children", lambda *_, **__: [])
    monkeypatch.setattr(tune, "with_histories", lambda *_: [])
    monkeypatch.setattr(tune, "is_described", lambda *_: True)
    monkeypatch.setattr(tune, "write_plan", lambda _: None)
    config = parse_options(TuneConfig, {"pruning": text, "recipes": "cnn"})
    sweep = SimpleNamespace(
        resumed="abc",
        extended=0,
        accepted="",
        folders=SimpleNamespace(plan=None),
        config=SimpleNamespace(pruning=config.pruning, options=config),
    )
    logger = SimpleNamespace(parent="abc", restore=lambda _: {}, storage=None)
    tune.search(sweep, logger, SimpleNamespace(writer=Recorder(), store=None, console=None), EarlyRay(is_wanted=False))
    assert passed["prune"] is prunes

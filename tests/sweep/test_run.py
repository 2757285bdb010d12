"""The steps of a sweep around its search: what a resumed one takes up, and what an interrupted one says."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from muralab.sweep import run
from muralab.sweep.run import _take_up
from muralab.training.trainer import best_name


def ended(name: str, objective: float) -> Any:
    """The record of a trial that has finished one full epoch."""
    return SimpleNamespace(
        run_id=name,
        recipe="cnn",
        tags={"muralab.trial": name, "muralab.ended": "finished"},
        metrics={"objective": objective},
        history=pd.DataFrame({"phase": [2.0], "val_study_auroc": [objective]}),
    )


def test_a_trial_whose_weights_are_gone_is_no_candidate_of_a_resumed_sweep(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "read_children", lambda *_: [ended("cnn-00", 0.9), ended("cnn-01", 0.8)])
    names, considered = ("cnn-00", "cnn-01"), []
    specs = {name: SimpleNamespace(folder=str(tmp_path), objective="val_study_auroc") for name in names}
    specs["cnn-00"].folder = str(tmp_path / "cleaned")
    (tmp_path / best_name("full")).touch()
    rows = {name: SimpleNamespace(state="") for name in names}
    book: Any = SimpleNamespace(parent="p", specs=specs, runs={}, board=SimpleNamespace(rows=rows))
    book.consider = lambda name, _: considered.append(name)
    past = _take_up(SimpleNamespace(store=None), book)  # type: ignore[arg-type]
    assert (considered, set(past)) == (["cnn-01"], set(names))

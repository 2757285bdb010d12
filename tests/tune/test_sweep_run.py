"""The steps of a sweep around its search: what a resumed one takes up, and what an interrupted one says."""

from __future__ import annotations

import io
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from muralab.config.settings import Request
from rich.console import Console

from muralab.commands import tune as run
from muralab.commands.tune import _take_up
from muralab.errors import StoreError
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


@pytest.mark.parametrize("error", [StoreError("The store went away."), OSError(28, "No space left"), SystemExit(1)])
def test_whatever_stops_a_sweep_tells_how_to_go_on_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: BaseException
) -> None:
    def stop(*_: Any) -> None:
        raise error

    monkeypatch.setattr(run, "RunWriter", lambda _: nullcontext(SimpleNamespace()))
    monkeypatch.setattr(run, "_open_parent", lambda *_: "abc")
    monkeypatch.setattr(run, "_describe", stop)
    sweep: Any = SimpleNamespace(
        settings=SimpleNamespace(request=Request(), resources=SimpleNamespace(max_concurrent=1)),
        **dict.fromkeys(("store", "dataset", "facts", "resumed")),
        specs=[],
        console=Console(file=io.StringIO(), width=200),
    )
    with pytest.raises(type(error)):
        run._run(sweep, None, {})  # type: ignore[arg-type]
    assert "go on with it by:\n  make tune PART=wrist ARGS='-P resume=abc'" in sweep.console.file.getvalue()

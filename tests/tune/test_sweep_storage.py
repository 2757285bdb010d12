"""A sweep that is resumed on other machines: the plan and the weights of the command that worked on it last count."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from rich.console import Console

from muralab.console import TrialRow, TrialTable
from muralab.errors import StorageUnavailableError
from muralab.storage import Storage
from muralab.tracking import RunRecord
from muralab.tracking.tags import Tag
from muralab.training.trainer import best_name
from muralab.trial import TrialSpec
from muralab.tune import trial_logger
from muralab.tune.folders import Folders
from muralab.tune.search import build_logger
from muralab.tune.stored_epochs import EpochUploader
from muralab.tune.sweep_storage import SweepStorage, planned_storage
from muralab.tune.trial_ending import TrialEnding, write_ending
from muralab.tune.trial_logger import TrialLogger
from tests.tune.recorder import Recorder

NAMES = ("cnn-00", "cnn-01")
BEST = best_name("full")


@pytest.fixture
def storage(tmp_path: Path) -> Storage:
    (tmp_path / "storage").mkdir()
    return Storage(str(tmp_path / "storage"))


def machine(name: str, storage: Storage, tmp_path: Path) -> SweepStorage:
    cache = tmp_path / name
    return SweepStorage(storage=storage, folders=Folders(cache=cache, sweep=cache / "sweeps" / "r1"))


def work(on: SweepStorage, attempt: str, **plan: object) -> None:
    """A command starts to work on the sweep on a machine."""
    on.folders.sweep.mkdir(parents=True, exist_ok=True)
    on.folders.plan.write_text(json.dumps({"attempt": attempt, **plan}))
    on.folders.table.touch()
    on.start()


def train(on: SweepStorage, name: str, epochs: int, text: str) -> None:
    """A trial leaves the weights of some epochs in the storage."""
    node = on.folders.cache / "node" / name
    node.mkdir(parents=True)
    with EpochUploader(on.storage, f"{on.name}/trials/{name}", node) as uploader:
        for epoch in range(1, epochs + 1):
            (node / "new").write_text(f"{text} {epoch}")
            (node / "new").replace(node / BEST)
            uploader.submit(epoch)
            uploader.wait(epoch)


def logger(on: SweepStorage, monkeypatch: pytest.MonkeyPatch) -> TrialLogger:
    monkeypatch.setattr(trial_logger, "log_description", lambda *_: None)
    monkeypatch.setattr(trial_logger, "log_sets", lambda *_: None)
    folder = on.folders.sweep / "trials"
    specs = {n: TrialSpec(name=n, recipe="cnn", table="", cache_folder="", folder=str(folder / n)) for n in NAMES}
    table = TrialTable({n: TrialRow(n, [1.0]) for n in NAMES}, 1, "val_study_auroc", Console(file=io.StringIO()))
    given: Any = {"writer": Recorder(), "dataset": SimpleNamespace(hide_names=str)}
    return TrialLogger(table=table, specs=specs, parent="p", tags={}, storage=on, **given)


def ended(name: str, objective: float, epochs: int) -> RunRecord:
    history = pd.DataFrame({"phase": [2.0] * epochs, "val_study_auroc": [objective] * epochs}, range(1, epochs + 1))
    tags = {Tag.TRIAL: name, Tag.ENDED: "finished", Tag.RECIPE: "cnn"}
    fields: Any = {"metrics": {"objective": objective}, "history": history.rename_axis(index="step")}
    return RunRecord(run_id=name, experiment_id="1", name=name, status="FINISHED", tags=tags, params={}, **fields)


def test_the_plan_of_the_command_that_worked_last_replaces_an_earlier_one(storage: Storage, tmp_path: Path) -> None:
    a, b = machine("a", storage, tmp_path), machine("b", storage, tmp_path)
    work(a, "1")
    (a.folders.sweep / "trials" / "cnn-00").mkdir(parents=True)
    a.restore()
    assert (a.folders.sweep / "trials" / "cnn-00").is_dir()
    b.restore()
    work(b, "2", specs=[{"drawn": {"lr": 1e-4}}])
    a.restore()
    assert a.folders.plan.read_bytes() == b.folders.plan.read_bytes()
    assert not (a.folders.sweep / "trials").exists()


def test_what_is_here_is_kept_until_everything_has_arrived(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a, b = machine("a", storage, tmp_path), machine("b", storage, tmp_path)
    work(a, "1")
    (a.folders.sweep / "trials" / "cnn-00").mkdir(parents=True)
    b.restore()
    work(b, "2")
    earlier, download = a.folders.plan.read_bytes(), Storage.download

    def cut_off(self: Storage, name: str, into: Path) -> None:
        if name.endswith("plan.json"):
            raise StorageUnavailableError("it does not answer")
        download(self, name, into)

    monkeypatch.setattr(Storage, "download", cut_off)
    with pytest.raises(StorageUnavailableError):
        a.restore()
    assert a.folders.plan.read_bytes() == earlier
    assert (a.folders.sweep / "trials" / "cnn-00").is_dir()
    assert sorted(one.name for one in a.folders.sweep.iterdir()) == ["plan.json", "split.csv", "trials"]


def test_the_best_trial_is_selected_wherever_it_ended(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A starts the sweep, B goes on with it and is interrupted, A takes it back: B's trial is the best."""
    a, b = machine("a", storage, tmp_path), machine("b", storage, tmp_path)
    work(a, "1")
    train(a, "cnn-00", 2, "a")
    a.fetch("cnn-00", 2)
    write_ending(a.folders.sweep / "trials" / "cnn-00", TrialEnding(how="finished", history=[]))
    b.restore()
    work(b, "2")
    train(b, "cnn-01", 3, "b")
    a.restore()
    back = logger(a, monkeypatch)
    back.restore([ended("cnn-00", 0.6, 2), ended("cnn-01", 0.8, 2)])
    assert back.best == {"cnn": (0.8, "cnn-01")}
    kept = Path(back.specs["cnn-01"].folder) / BEST
    assert kept.read_text() == "b 2"  # of the last logged epoch: training was ahead of it
    assert a.trials() == {"cnn-01"} or storage.names(f"{a.name}/trials/cnn-00") == []
    assert back.weights_notes() == []


def test_a_trial_that_lost_its_weights_is_not_passed_over_in_silence(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    b = machine("b", storage, tmp_path)
    work(b, "1")
    train(b, "cnn-00", 2, "b")
    back = logger(b, monkeypatch)
    back.restore([ended("cnn-00", 0.6, 2), ended("cnn-01", 0.8, 2)])
    assert back.best == {"cnn": (0.6, "cnn-00")}
    assert back.weights_notes() == [
        "The weights of cnn-01 are missing, which reached 0.8000: more than the tested trial of cnn."
    ]


def test_weights_of_another_epoch_are_not_taken_for_those_that_were_logged(storage: Storage, tmp_path: Path) -> None:
    b = machine("b", storage, tmp_path)
    train(b, "cnn-00", 2, "b")
    b.fetch("cnn-00", 2)
    b.fetch_ended("cnn-00", 7)
    assert not (b.folders.sweep / "trials" / "cnn-00").exists()


def test_what_happens_to_a_sweep_is_in_its_stored_plan_too(storage: Storage, tmp_path: Path) -> None:
    a = machine("a", storage, tmp_path)
    work(a, "1", notes=[], options={"max_concurrent": 4}, specs=[{"name": "cnn-00"}])
    resources, options = SimpleNamespace(max_concurrent=4), SimpleNamespace(objective="val_study_auroc")
    config = SimpleNamespace(resources=resources, options=options)
    sweep: Any = SimpleNamespace(specs=[], config=config, dataset=None, tags={}, folders=a.folders)
    given: Any = {"epoch_s": {}, "on_interrupt": lambda: None, "storage": a}
    found = build_logger(sweep, Recorder(), Console(file=io.StringIO()), parent="p", **given)  # type: ignore[arg-type]
    found.on_adapted("Memory ran out.", 2)
    found.on_chosen("cnn-00", {"lr": 1e-4})
    plan = json.loads(storage.read(f"{a.name}/plan.json"))
    assert (plan["notes"], plan["options"]["max_concurrent"]) == (["Memory ran out."], 2)
    assert plan["specs"][0]["drawn"] == {"lr": 1e-4}


def test_the_storage_of_a_plan_is_read_without_reading_the_rest(storage: Storage, tmp_path: Path) -> None:
    a = machine("a", storage, tmp_path)
    assert planned_storage(a.folders) is None
    work(a, "1", options={"storage": "{cache}/shared"})
    assert planned_storage(a.folders) == str(a.folders.cache / "shared")
    assert planned_storage(replace(a.folders, sweep=tmp_path)) is None

"""A trial on nodes that share nothing but a storage: the same epochs as on one machine, wherever it continues."""

from __future__ import annotations

import errno
import json
import tempfile
from collections.abc import Callable
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from muralab import storage as storages
from muralab.data.cache import open_cache
from muralab.data.digests import FileDigests
from muralab.errors import StorageError, StorageUnavailableError, UnfitNodeError
from muralab.experiment import predictions_path, run_trial
from muralab.storage import Storage
from muralab.training.trainer import LAST, EpochResult, best_name
from muralab.trial import TrialSpec, read_table
from muralab.tune import node as nodes
from muralab.tune.folders import Folders
from muralab.tune.node import fetch_inputs, open_trial, why_unfit
from muralab.tune.sweep_storage import SweepStorage, weights_name

SIZE = 36
NODE = {"packages": {}, "is_cluster": True, "needs_gpu": False, "usual_epoch_s": 0.0}


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(cache=tmp_path / "driver", sweep=tmp_path / "driver" / "sweeps" / "r1")


@pytest.fixture
def spec(build_spec: Any, folders: Folders, tiny_table: Path, tmp_path: Path) -> TrialSpec:
    """A trial whose images nobody can see any more, except decoded in the cache of the command's machine."""
    index = read_table(tiny_table)
    open_cache(index, size=SIZE, folder=folders.cache / "pixels")
    content = str(FileDigests(index, folders.cache / "pixels").key(index))
    folders.sweep.mkdir(parents=True)
    index.assign(path="/gone/" + index["image"]).to_csv(folders.table, index=False)
    folders.plan.write_text("{}")
    own = folders.sweep / "trials" / "trial"
    return build_spec(table=str(folders.table), cache_folder=str(folders.cache), folder=str(own), content=content)


@pytest.fixture
def shared(tmp_path: Path, folders: Folders, spec: TrialSpec) -> SweepStorage:
    (tmp_path / "storage").mkdir()
    shared = SweepStorage(storage=Storage(str(tmp_path / "storage")), folders=folders)
    cache = open_cache(read_table(spec.table), size=SIZE, folder=folders.cache / "pixels", content=spec.content)
    dataset: Any = SimpleNamespace(caches={SIZE: cache})
    shared.start()
    shared.upload_inputs([spec], dataset)
    return shared


@pytest.fixture
def run(shared: SweepStorage, spec: TrialSpec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    def run(node: str, stop_after: int | None = None, **changes: Any) -> list[EpochResult]:
        monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / node))
        monkeypatch.setattr(nodes, "_fit_for", set())  # a new process
        sent = {"spec": shared.spec_on_nodes(spec), "storage": shared.storage.uri, "sweep": shared.name}
        with open_trial({**sent, **NODE, **changes}) as (_, epochs):
            return [replace(result, seconds=0.0) for result in islice(epochs, stop_after)]

    return run


def test_a_trial_continues_on_another_node_as_if_nothing_had_happened(
    run: Callable[..., Any], spec: TrialSpec, shared: SweepStorage
) -> None:
    with closing(run_trial(replace(spec, folder=f"{spec.folder}-alone"))) as epochs:
        alone = [replace(result, seconds=0.0) for result in epochs]
    run("node1", stop_after=3)
    assert run("node2") == alone
    shared.fetch("trial", len(alone))
    own = Path(spec.folder)
    assert {path.name for path in own.iterdir()} == {
        *map(best_name, ("upper", "full")), "validation_upper.csv", "validation_full.csv",
    }  # fmt: skip
    written = predictions_path(own, "full").read_text()
    assert written == predictions_path(f"{spec.folder}-alone", "full").read_text()


def test_nodes_keep_squares_and_features_and_nothing_of_the_trial(run: Callable[..., Any], tmp_path: Path) -> None:
    run("node1", stop_after=1)
    kept = {path.parent.name for path in (tmp_path / "node1").rglob("*.npy")}
    assert kept == {"pixels", "features"}
    assert not list(Path(tempfile.gettempdir()).glob("muralab-*/trials"))


def test_squares_that_are_there_are_not_fetched_again(run: Callable[..., Any], tmp_path: Path) -> None:
    run("node1", stop_after=1)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "node1").rglob("squares-*.npy")}
    run("node1", stop_after=1)
    assert {path: path.stat().st_mtime_ns for path in before} == before


@pytest.mark.parametrize("suffix", [".npy", ".json"])
def test_squares_that_are_damaged_are_fetched_again(
    run: Callable[..., Any], shared: SweepStorage, tmp_path: Path, suffix: str
) -> None:
    expected = run("node1", stop_after=1)
    (kept,) = (tmp_path / "node1").rglob(f"squares-*{suffix}")
    content = kept.read_bytes()
    kept.write_bytes(content[:-9] + b"9" + content[-8:])
    assert run("node1", stop_after=1) == expected
    assert kept.read_bytes() == content


def test_squares_that_are_damaged_in_the_storage_are_named(
    run: Callable[..., Any], shared: SweepStorage, tmp_path: Path
) -> None:
    (stored,) = (tmp_path / "storage" / "pixels").glob("*.npy")
    stored.write_bytes(stored.read_bytes()[:-1])
    with pytest.raises(StorageError, match=rf"pixels/{stored.name} is damaged there\. Remove it from the storage"):
        run("node1")


def test_weights_that_are_damaged_are_fetched_again(shared: SweepStorage, spec: TrialSpec, tmp_path: Path) -> None:
    weights = tmp_path / "w.safetensors"
    weights.write_bytes(b"weights")
    name = f"weights/{weights_name(str(weights))}"
    shared.storage.upload(weights, name)
    cache = tmp_path / "node"
    own = replace(spec, weights=str(cache / name), table=str(tmp_path / "sweep" / "split.csv"))
    fetch_inputs(shared.storage, shared.name, own, cache)
    (cache / name).write_bytes(b"Weights")
    fetch_inputs(shared.storage, shared.name, own, cache)
    assert (cache / name).read_bytes() == b"weights"
    shared.storage.write(name, b"Weights")
    (cache / name).unlink()
    with pytest.raises(StorageError, match=rf"storage=.*: {name} is damaged there"):
        fetch_inputs(shared.storage, shared.name, own, cache)


def test_what_travels_names_no_folder_of_this_machine(shared: SweepStorage, spec: TrialSpec, tmp_path: Path) -> None:
    weights = tmp_path / "elsewhere" / "w.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"w")
    sent = shared.spec_on_nodes(replace(spec, weights=str(weights)))
    assert str(tmp_path) not in json.dumps(sent)
    assert sent["folder"] == "{sweep}/trials/trial"
    assert sent["weights"].startswith("{cache}/weights/")
    assert sent["weights"].endswith("-w.safetensors")


def test_a_sweep_is_brought_to_another_machine(run: Callable[..., Any], shared: SweepStorage, tmp_path: Path) -> None:
    run("node1", stop_after=2)
    there = Folders(cache=tmp_path / "new", sweep=tmp_path / "new" / "sweeps" / "r1")
    elsewhere = SweepStorage(storage=shared.storage, folders=there)
    elsewhere.restore()
    elsewhere.fetch_ended("trial", 2)
    assert there.plan.read_text() == "{}"
    assert there.table.is_file()
    assert (there.sweep / "trials" / "trial" / best_name("upper")).is_file()
    assert not (there.sweep / "trials" / "trial" / LAST).exists()


def test_a_sweep_leaves_only_what_others_may_use(run: Callable[..., Any], shared: SweepStorage) -> None:
    run("node1", stop_after=1)
    shared.forget("trial")
    assert shared.storage.folders(f"{shared.name}/trials") in ([], ["trial"])
    assert shared.storage.names(f"{shared.name}/trials/trial") == []
    assert shared.remove() == []
    assert shared.storage.folders("") in (["pixels", "sweeps"], ["pixels"])


def test_a_sweep_that_has_ended_does_not_fail_over_what_it_leaves(
    shared: SweepStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(_: str) -> None:
        raise StorageError("storage=/x cannot remove sweeps/r1: access denied.")

    monkeypatch.setattr(shared.storage, "remove_folder", refuse)
    assert shared.remove() == ["storage=/x cannot remove sweeps/r1: access denied. Nothing needs sweeps/r1 any more."]


def test_a_node_that_joined_with_other_packages_does_not_train(run: Callable[..., Any]) -> None:
    with pytest.raises(UnfitNodeError, match=r"torch 2\S* \(the command has 1\.0\)"):
        run("node1", packages={"torch": "1.0"})


def test_a_node_that_sees_another_folder_at_the_storages_path_does_not_train(
    run: Callable[..., Any], tmp_path: Path
) -> None:
    (tmp_path / "unmounted").mkdir()
    with pytest.raises(UnfitNodeError, match="unmounted: this folder is another one here: is it mounted"):
        run("node1", storage=str(tmp_path / "unmounted"))
    assert list((tmp_path / "unmounted").iterdir()) == []


def test_what_fails_on_one_node_alone_is_that_nodes_fault(shared: SweepStorage, tmp_path: Path) -> None:
    config = {**NODE, "storage": shared.storage.uri, "sweep": shared.name, "spec": {"table": "{sweep}/split.csv"}}
    refused = StorageError("cannot write x: access denied.")
    assert why_unfit(refused, config) == ""  # this node writes there: another trial's file is missing, or the like
    assert "there is no folder" in why_unfit(refused, {**config, "storage": str(tmp_path / "absent")})
    full = OSError(errno.ENOSPC, "No space left on device", "/cache/x")
    assert why_unfit(full, config) == "The disk is full at /cache/x. Free some space and try again."
    assert why_unfit(full, {**config, "is_cluster": False}) == ""
    assert why_unfit(ValueError("a bug"), config) == ""


def test_a_storage_that_does_not_answer_is_no_nodes_fault(
    run: Callable[..., Any], shared: SweepStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Storage, __: str) -> None:
        raise StorageUnavailableError("storage=/x cannot be used: it does not answer.")

    monkeypatch.setattr(nodes, "OUTAGE_S", 0.0)
    monkeypatch.setattr(Storage, "_check", fail)
    with pytest.raises(StorageUnavailableError, match="does not answer"):
        run("node1")
    config = {**NODE, "storage": shared.storage.uri, "sweep": shared.name, "spec": {"table": "{sweep}/split.csv"}}
    assert why_unfit(StorageError("cannot write x: access denied."), config) == ""
    assert why_unfit(StorageUnavailableError("down"), {**config, "packages": {"torch": "1.0"}}) == ""


def test_a_node_is_checked_again_while_the_storage_does_not_answer(
    shared: SweepStorage, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = [StorageUnavailableError("down")]
    check = Storage._check

    def fail(storage: Storage, witness: str) -> None:
        if failures:
            raise failures.pop()
        check(storage, witness)

    monkeypatch.setattr(storages, "RETRY_EVERY_S", 0.01)
    monkeypatch.setattr(Storage, "_check", fail)
    config = {**NODE, "storage": shared.storage.uri, "sweep": shared.name, "spec": {"table": "{sweep}/absent.csv"}}
    assert "this folder is another one here" in why_unfit(StorageError("cannot write x: access denied."), config)


def test_a_full_storage_is_no_nodes_fault(shared: SweepStorage) -> None:
    error = StorageError("cannot write x: the disk is full")
    error.__cause__ = OSError(errno.ENOSPC, "No space left on device")
    assert why_unfit(error, {**NODE, "storage": "/absent", "sweep": "s", "spec": {"table": "t"}}) == ""


def test_a_storage_without_the_squares_is_an_error(run: Callable[..., Any], tmp_path: Path) -> None:
    for file in (tmp_path / "storage" / "pixels").glob("*.npy"):
        file.unlink()
    with pytest.raises(StorageError, match=r"cannot read pixels/squares-36-.*npy: it does not exist"):
        run("node1")

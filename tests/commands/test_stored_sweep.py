"""What `resume` does with a sweep in a storage before it reads its plan."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from muralab.commands import tune
from muralab.commands.session import Session, open_session
from muralab.commands.stored_sweep import bring_here, fetch_folds, folders_of
from muralab.config.commands import TuneConfig
from muralab.config.environment import Environment
from muralab.errors import SettingsError, StorageError, StoreError
from muralab.storage import Storage
from muralab.tracking import Store
from muralab.tracking.tags import Tag
from muralab.tune import sweep_owner
from muralab.tune.sweep_lock import own_identity


@pytest.fixture
def storage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Storage:
    monkeypatch.setattr(sweep_owner, "SETTLE_S", 0.1)
    (tmp_path / "storage").mkdir()
    return Storage(str(tmp_path / "storage"))


@pytest.fixture
def session(store: Store, tmp_path: Path) -> Iterator[Session]:
    with open_session("tune", Environment(tracking_uri=store.uri, cache=tmp_path / "cache")) as session:
        yield session


@pytest.fixture
def run_id(session: Session, storage: Storage) -> str:
    """A sweep whose plan is in the storage."""
    run_id = session.start_run(name="sweep", part="wrist", tags={})
    storage.write(f"sweeps/{run_id}/split.csv", b"image\n")
    storage.write(f"sweeps/{run_id}/plan.json", b'{"attempt": "2"}')
    return run_id


def plan_here(session: Session, run_id: str, storage: Storage) -> Path:
    """The plan of an earlier command on this machine."""
    plan = session.cache / "sweeps" / run_id / "plan.json"
    plan.parent.mkdir(parents=True)
    plan.write_text(json.dumps({"attempt": "1", "options": {"storage": storage.uri}}))
    return plan


def test_the_storage_of_the_plan_on_this_machine_is_looked_into(
    session: Session, run_id: str, storage: Storage
) -> None:
    plan = plan_here(session, run_id, storage)
    bring_here(run_id, None, session)
    assert json.loads(plan.read_text()) == {"attempt": "2"}
    assert storage.exists(f"sweeps/{run_id}/owner.json")


def test_a_sweep_that_another_machine_works_on_is_refused(session: Session, run_id: str, storage: Storage) -> None:
    storage.write(f"sweeps/{run_id}/owner.json", json.dumps({**own_identity(), Tag.HOST: "gpu2"}).encode())
    with pytest.raises(SettingsError, match=rf"resume={run_id}: this sweep is being run by process \d+ on gpu2"):
        bring_here(run_id, storage.uri, session)
    assert not (session.cache / "sweeps" / run_id).exists()


def test_a_sweep_that_has_ended_on_another_machine_is_refused(session: Session, run_id: str, storage: Storage) -> None:
    plan = plan_here(session, run_id, storage)
    storage.remove_folder(f"sweeps/{run_id}")
    bring_here(run_id, None, session)  # it has not ended: nothing of it had been uploaded
    session.writer.finish(run_id)
    session.writer.flush()
    with pytest.raises(StoreError, match=f"this sweep has ended, on another machine.* {plan.parent} is out of date"):
        bring_here(run_id, None, session)
    other = plan.parents[3] / "other"
    other.mkdir()
    bring_here(run_id, str(other), session)  # it may have failed trials, which only the plan here knows
    assert json.loads(plan.read_text())["attempt"] == "1"


def test_a_run_that_no_storage_holds_leaves_nothing_there(session: Session, storage: Storage) -> None:
    bring_here("unknown", storage.uri, session)
    bring_here("../unknown", storage.uri, session)
    bring_here("unknown", None, session)
    assert list(Path(storage.uri).iterdir()) == []


def test_a_storage_that_is_not_mounted_is_named_and_not_created(
    session: Session, run_id: str, storage: Storage
) -> None:
    plan = plan_here(session, run_id, storage)
    shutil.rmtree(storage.uri)
    for given in (None, storage.uri):
        with pytest.raises(StorageError, match="there is no folder"):
            bring_here(run_id, given, session)
    with pytest.raises(StorageError, match="there is no folder"):
        fetch_folds(run_id, storage.uri, session)
    assert json.loads(plan.read_text())["attempt"] == "1"
    assert not Path(storage.uri).exists()


def test_folds_that_another_machine_works_on_leave_nothing_here(
    session: Session, run_id: str, storage: Storage
) -> None:
    storage.write(f"sweeps/{run_id}/folds.json", b"{}")
    storage.write(f"sweeps/{run_id}/owner.json", json.dumps({**own_identity(), Tag.HOST: "gpu2"}).encode())
    with pytest.raises(SettingsError, match=rf"resume={run_id}: this sweep is being run by process \d+ on gpu2"):
        fetch_folds(run_id, storage.uri, session)
    assert not (session.cache / "sweeps" / run_id / "folds.json").exists()


def test_a_sweep_that_another_machine_extends_is_refused_before_its_run_is_touched(
    session: Session, run_id: str, storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had ended: nothing of it is in the storage until the other command has written its plan."""
    storage.remove_folder(f"sweeps/{run_id}")
    storage.write(f"sweeps/{run_id}/owner.json", json.dumps({**own_identity(), Tag.HOST: "gpu2"}).encode())
    options = TuneConfig(resume=run_id, trials="+8", storage=storage.uri)
    config = SimpleNamespace(options=options, recipes=("cnn",))
    extended: Any = SimpleNamespace(resumed=run_id, notes=(), config=config, folders=folders_of(run_id, session))
    monkeypatch.setattr(tune, "load", lambda *_: extended)
    monkeypatch.setattr(
        tune, "plan", lambda sweep: (sweep, SimpleNamespace(disk_bytes=0, present_bytes=0, weights_bytes=0))
    )
    for name in ("plan_table", "plan_summary", "check_space", "check_places"):
        monkeypatch.setattr(tune, name, lambda *_: "")
    opened: list[object] = []
    monkeypatch.setattr(tune, "open_run", lambda *given: opened.append(given))
    no_ray: Any = None
    with pytest.raises(SettingsError, match=r"this sweep is being run by .* on gpu2"):
        tune.search_once(options, session, no_ray)
    assert opened == []

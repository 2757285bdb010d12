"""What changes between two commands: pictures under the same names, a recipe, the platform's code, folders."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from muralab.results import changes as changes_module
from muralab.tracking import RunRecord, Store, download_artifact
from muralab.tracking.platform_version import PlatformVersion
from tests.cli.conftest import Muralab, all_runs
from tests.commands.conftest import interrupt_after
from tests.conftest import SMALL_NET, write_easy_tree

pytestmark = pytest.mark.slow
RECIPE = "own_lab.net"
QUICK = {"recipe": RECIPE, "epochs": "1+2", "cpus_per_trial": 1}
OTHER = PlatformVersion(version="9.9", commit="f" * 40, code="other")


@pytest.fixture
def own_tree(tmp_path: Path) -> Path:
    return write_easy_tree(tmp_path / "data" / "MURA-v1.1")


@pytest.fixture
def own_lab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file of the recipe `own_lab.net`, which a test may edit."""
    (tmp_path / "own_lab").mkdir()
    (tmp_path / "own_lab" / "net.py").write_text(SMALL_NET)
    monkeypatch.syspath_prepend(tmp_path)
    yield tmp_path / "own_lab" / "net.py"
    forget()


def forget() -> None:
    """Import the recipe anew, as the next process does."""
    for module in [name for name in sys.modules if name.startswith("own_lab")]:
        del sys.modules[module]


def edit(recipe: Path, old: str, new: str) -> None:
    assert old in recipe.read_text()
    recipe.write_text(recipe.read_text().replace(old, new))
    forget()


def swap(tree: Path, split: str) -> list[str]:
    """Exchange the pictures of two patients; returns their names."""
    one, other = sorted(tree.glob(f"{split}/*/*/*/image1.png"))[:2]
    bytes_of = one.read_bytes(), other.read_bytes()
    one.write_bytes(bytes_of[1])
    other.write_bytes(bytes_of[0])
    return [path.relative_to(tree).as_posix() for path in (one, other)]


@pytest.fixture
def interrupted(
    muralab: Muralab, store: Store, own_tree: Path, own_lab: Path, monkeypatch: pytest.MonkeyPatch
) -> RunRecord:
    """A training that was interrupted after its first epoch."""

    with monkeypatch.context() as patch:
        interrupt_after(1, patch)
        assert muralab("train", data=own_tree, **QUICK).code == 130
    (found,) = all_runs(store)
    return found


def only(store: Store, kind: str) -> RunRecord:
    (found,) = [run for run in all_runs(store) if run.kind == kind]
    return found


def plan_of(run: RunRecord, tmp_path: Path) -> Path:
    return tmp_path / "cache" / "muralab" / "sweeps" / run.run_id / "plan.json"


def test_changes_are_refused_in_one_list_and_accepted_on_request(
    interrupted: RunRecord,
    muralab: Muralab,
    store: Store,
    own_tree: Path,
    own_lab: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert {"muralab.recipe_code", "muralab.platform_code", "muralab.content"} <= set(interrupted.tags)
    kept = download_artifact(store, interrupted.run_id, "recipe/sources.json", tmp_path)
    assert json.loads(kept.read_text()) == {"own_lab/net.py": SMALL_NET}
    names = swap(own_tree, "train")
    edit(own_lab, "warmup_epochs=0.5", "warmup_epochs=0.25")
    monkeypatch.setattr(changes_module, "platform_version", lambda: OTHER)
    refused = muralab("train", resume=interrupted.run_id)
    assert refused.code == 2
    for text in (
        "1. The recipe 'own_lab.net' has changed (own_lab/net.py)",
        f"2. The code of the platform has changed: from {interrupted.tags['muralab.platform']} to 9.9+ffffffffffff.",
        f"3. 2 of 108 pictures ({', '.join(names)}) at {own_tree} have changed.",
        f"-P resume={interrupted.run_id} -P accept_changes=true",
    ):
        assert text in refused.complaint
    resumed = muralab("train", resume=interrupted.run_id, accept_changes="true")
    assert resumed.code == 0, resumed
    found = only(store, "train")
    assert found.tags["muralab.accepted_changes"] in resumed.out
    accepted = found.tags["muralab.accepted_changes"]
    assert re.search(r"2 of 108 pictures \(i-\w{16}, i-\w{16}\) at ", accepted)
    assert all(part in accepted for part in ("own_lab/net.py", "9.9+"))
    assert not any(name in accepted for name in names)
    kept = download_artifact(store, found.run_id, "recipe/net.py", tmp_path)
    assert "warmup_epochs=0.25" in kept.read_text()


def test_a_moved_cache_and_a_moved_tree_are_resumed(
    interrupted: RunRecord,
    muralab: Muralab,
    store: Store,
    own_tree: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert str(tmp_path / "cache") not in plan_of(interrupted, tmp_path).read_text()
    (tmp_path / "cache").rename(tmp_path / "other")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "other"))
    moved = own_tree.parent.rename(tmp_path / "elsewhere")
    missing = muralab("train", resume=interrupted.run_id)
    assert missing.code == 2
    assert "If the tree has moved, also give data=<where it is now>." in missing.complaint
    monkeypatch.setattr("muralab.data.files.decode", lambda _: pytest.fail("decoded again"))
    outcome = muralab("train", resume=interrupted.run_id, data=moved)
    assert outcome.code == 0, outcome
    assert only(store, "train").status == "FINISHED"
    assert not (tmp_path / "cache").exists()


def test_an_evaluation_uses_the_recipe_of_its_run_and_names_what_has_changed(
    muralab: Muralab, store: Store, own_tree: Path, own_lab: Path
) -> None:
    assert muralab("train", data=own_tree, **QUICK).code == 0
    trained = only(store, "train")
    report = muralab("report", runs=trained.run_id)
    assert not re.search(r"ha(s|ve) changed|the platform", report.out)
    edit(own_lab, "nn.AdaptiveMaxPool2d(1)", "nn.AdaptiveAvgPool2d(1)")
    edit(own_lab, '"filters": 8', '"filters": 9')
    outcome = muralab("evaluate", model=trained.run_id)
    assert outcome.code == 0, outcome
    assert "The recipe 'own_lab.net' has changed since the run was trained" in outcome.out
    evaluated = only(store, "evaluate")
    assert evaluated.tags["muralab.changes"] in outcome.out
    assert evaluated.metrics["test_auroc"] == pytest.approx(trained.metrics["test_auroc"])
    swap(own_tree, "valid")
    assert "2 of 108 pictures (i-" in muralab("evaluate", model=trained.run_id).out
    report = muralab("report", runs=trained.run_id)
    assert "2 of 36 pictures (i-" in report.out
    assert "The recipe 'own_lab.net' is not as in this checkout" in report.out

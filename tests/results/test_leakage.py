"""What `run` stands for in the options of `evaluate`, and which images are leaked."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pandas as pd
import pytest

from muralab.demo.dataset import default_folder
from muralab.errors import SettingsError
from muralab.evaluation.leakage import Leakage, find_known_leakage
from muralab.results.leakage import data_of, leakage_note, leakage_of_run, split_of
from muralab.tracking import LoggedData, RunRecord, open_store, read_run
from tests.registry.conftest import log_run

RECORD = RunRecord(run_id="1", name="cnn", status="FINISHED", experiment_id="0", part="hand")


def logged(path: Path) -> LoggedData:
    return LoggedData(name="mura-hand-training", digest="0", source=str(path))


def test_run_is_the_trees_path_and_its_part() -> None:
    assert data_of(RECORD, "run", "run", logged(Path("/data/MURA-v1.1"))) == ("/data/MURA-v1.1", "hand")


def test_the_demo_is_generated_again_where_it_was_deleted() -> None:
    assert data_of(RECORD, "run", "run", logged(default_folder() / "MURA-v1.1")) == ("demo", "hand")


def test_given_values_hold() -> None:
    assert data_of(RECORD, "/other", "all", logged(Path("/data/MURA-v1.1"))) == ("/other", "all")


def test_a_run_without_data_is_refused() -> None:
    assert data_of(RECORD, "demo", "run", None) == ("demo", "hand")
    with pytest.raises(SettingsError, match="does not name its data: give data=<path>"):
        data_of(RECORD, "run", "run", None)


def test_run_is_the_trained_runs_split() -> None:
    trained = RunRecord(
        run_id="1", name="cnn", status="FINISHED", experiment_id="0",
        tags={"muralab.protocol": "valid-as-test", "muralab.seed": "3"},
    )  # fmt: skip
    assert split_of(trained) == ("valid-as-test", 3)
    assert split_of(trained, "valid-as-validation", 5) == ("valid-as-validation", 5)


@pytest.mark.parametrize("key", ["protocol", "seed"])
def test_a_run_that_does_not_state_its_split_is_refused(key: str) -> None:
    given = {"protocol": "valid-as-test", "seed": 1}
    given[key] = "run" if key == "protocol" else None
    with pytest.raises(SettingsError, match=f"does not state its {key}: give {key}=<its own>"):
        split_of(RECORD, **given)  # type: ignore[arg-type]


def test_the_note_counts_leaked_images() -> None:
    images = pd.DataFrame({"image": list("abcdefghij"), "patient": list("abcdefghij")})
    assert leakage_note(Leakage(evaluated=images)) == ""
    sets = dict.fromkeys("abc", "train") | dict.fromkeys("de", "validation")
    note = leakage_note(Leakage(evaluated=images, set_of_patient=sets))
    assert "of the 10 evaluated images, the model has seen 5: 3 of patients that it was trained on and 2" in note
    assert "`report` refuses them" in note


def test_the_note_says_where_only_pictures_could_be_compared() -> None:
    """Of two data sets: a patient may be in both with other images, under another name."""
    rows = pd.DataFrame({"image": ["a"], "patient": ["p"], "pixels": ["A"], "group": [""], "hash": ["h"]})
    other = pd.DataFrame({"image": ["b"], "patient": ["q"], "pixels": ["B"], "hash": ["g"], "set": ["train"]})
    note = leakage_note(find_known_leakage(rows, other, same_tree=False))
    assert note.startswith("Leakage: none found. But the evaluated images and those that the model was trained on are")
    assert leakage_note(find_known_leakage(rows, other, same_tree=True)) == ""
    copied = leakage_note(find_known_leakage(rows, other.assign(pixels="A"), same_tree=False))
    assert "the model has seen 1: 1 of patients that it was trained on. But the evaluated images" in copied


def test_unknown_leakage_is_stated() -> None:
    assert leakage_note(None).startswith("Leakage: not known, because the trained run logged no split")


def test_an_evaluation_on_copies_under_other_names_is_leaked(
    empty_database: Path, tmp_path: Path, write_tree: Callable[..., Path]
) -> None:
    store = open_store(f"sqlite:///{shutil.copy(empty_database, tmp_path / 'mlflow.db')}")
    tree = write_tree(tmp_path / "tree", parts=("wrist",), n_train=8, n_valid=10)
    identities = {"file": "", "group": "", "hash": ""}
    trained = pd.DataFrame({"image": ["a", "b"], "patient": ["a", "b"], "pixels": ["A", "B"], "set": "train"})
    run = log_run(store, tree, 1.0, split=trained.assign(**identities))
    test = read_run(store, run).predictions["test"]
    pixels = ["B", *(str(row) for row in range(1, len(test)))]  # the first image is a copy of b
    evaluated = test[["image", "patient"]].assign(pixels=pixels, set="test", **identities)
    evaluation = log_run(store, write_copy(tree), 1.0, split=evaluated, **{"muralab.evaluates": run})
    found = leakage_of_run(store, read_run(store, evaluation))
    assert found is not None
    assert found.set_of_patient == {test["patient"].iloc[0]: "train"}


def write_copy(tree: Path) -> Path:
    """The tree at another path, so that names alone do not decide."""
    return Path(shutil.copytree(tree, tree.parent.parent / "copied" / tree.name))

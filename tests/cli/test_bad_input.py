"""A user error gives exit code 2 and one clear paragraph, before any run is started."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path
from typing import Any

import pytest

from muralab.cli import app
from muralab.config.commands import EvaluateConfig, ExploreConfig, TrainConfig, TuneConfig
from muralab.config.options import CommandOptions
from muralab.errors import MuraLabError
from muralab.tracking import Store
from tests.cli.conftest import SMALL, Muralab, all_runs, flags, refused, spoil

# The data


@pytest.mark.parametrize("command", ["tune", "train", "explore"])
def test_a_data_path_that_does_not_exist(muralab: Muralab, store: Store, tmp_path: Path, command: str) -> None:
    absent = tmp_path / "absent"
    outcome = refused(muralab, store, command, **flags(command, absent))
    assert f"The data path {absent} does not exist. Give the MURA-v1.1 folder" in outcome.complaint


@pytest.mark.parametrize("command", ["tune", "train", "explore"])
def test_a_folder_that_is_not_a_mura_tree(muralab: Muralab, store: Store, tmp_path: Path, command: str) -> None:
    (tmp_path / "photos" / "holiday").mkdir(parents=True)
    outcome = refused(muralab, store, command, **flags(command, tmp_path / "photos"))
    assert "Looked for train/XR_*/ and valid/XR_*/ in it" in outcome.complaint
    assert "The folder holds: holiday." in outcome.complaint


@pytest.mark.parametrize("command", ["tune", "train", "explore"])
@pytest.mark.parametrize("part", ["elbow", "", "../wrist"])
def test_a_part_that_the_tree_lacks(muralab: Muralab, store: Store, tiny_tree: Path, command: str, part: str) -> None:
    outcome = refused(muralab, store, command, **{**flags(command, tiny_tree), "part": part})
    assert f"has no part '{part}'. It has: hand, wrist (or all)." in outcome.complaint


@pytest.mark.parametrize("name", ["weights", "data"])
def test_an_empty_path_is_not_the_working_directory(muralab: Muralab, store: Store, tiny_tree: Path, name: str) -> None:
    outcome = refused(muralab, store, "train", **{**flags("train", tiny_tree), name: ""})
    assert f"{name}: the path is empty; expected" in outcome.complaint


def test_a_list_that_names_missing_files(muralab: Muralab, store: Store, tmp_path: Path, write_tree: Any) -> None:
    root = write_tree(tmp_path, parts=("wrist",), n_train=24)
    gone = [path for path in sorted(root.glob("train/XR_WRIST/*/*/image*.png"))][:25]
    for path in gone:
        path.unlink()
    outcome = refused(muralab, store, "tune", **flags("tune", root))
    assert f"train_image_paths.csv names 25 files that are missing below {root}" in outcome.complaint
    named = [path.relative_to(root).as_posix() in outcome.err for path in gone]
    assert named == [True] * 20 + [False] * 5
    assert "... and 5 more" in outcome.err


@pytest.mark.parametrize("command", ["tune", "train"])
@pytest.mark.parametrize(
    ("lost", "message"),
    [
        (
            "valid/*/*/*_negative",
            "The test split has no normal (0) image: 0 normal and 3 abnormal images",
        ),
        ("train/*/*/*_positive", "split has no abnormal (1) image"),
        ("valid", "There is no image in valid/: a split needs both of MURA's folders"),
        ("train", "There is no image in train/: a split needs both of MURA's folders"),
    ],
)
def test_an_empty_class(muralab: Muralab, store: Store, tree: Path, command: str, lost: str, message: str) -> None:
    for folder in tree.glob(lost):
        shutil.rmtree(folder)
    assert message in refused(muralab, store, command, **flags(command, tree)).complaint


@pytest.mark.parametrize("command", ["tune", "train"])
def test_a_class_that_is_empty_because_nothing_decodes_names_the_files(
    muralab: Muralab, store: Store, tree: Path, command: str
) -> None:
    files = spoil(tree, "valid/*/*/*_negative/image*.png")
    outcome = refused(muralab, store, command, **flags(command, tree))
    assert "The test split has no normal (0) image" in outcome.complaint
    assert f"{len(files)} images cannot be decoded and are left out" in outcome.complaint
    assert all(file.relative_to(tree).as_posix() in outcome.err for file in files)


# Weights


@pytest.mark.parametrize("command", ["tune", "train"])
@pytest.mark.usefixtures("no_hub")
def test_real_data_without_a_network_name_the_offline_way_in_time(
    muralab: Muralab, store: Store, tiny_tree: Path, command: str
) -> None:
    own = {"tune": {"recipes": "all"}, "train": {}}[command]
    start_s = time.monotonic()
    outcome = refused(muralab, store, command, data=tiny_tree, **own)
    assert time.monotonic() - start_s < 40  # timm itself retries for 54 s
    assert "cannot be reached" in outcome.complaint
    assert "use weights=<its path>; or train from random weights with weights=none" in outcome.complaint


@pytest.mark.parametrize(
    ("content", "message"), [(None, "there is no such file"), (b"", "is not a state dict of tensors")]
)
def test_unreadable_weights(
    muralab: Muralab, store: Store, tiny_tree: Path, tmp_path: Path, content: bytes | None, message: str
) -> None:
    file = tmp_path / "w.pth"
    if content is not None:
        file.write_bytes(content)
    outcome = refused(muralab, store, "train", data=tiny_tree, recipe="inception", image_size=80, weights=file)
    assert message in outcome.complaint
    assert str(file) in outcome.complaint
    assert "weights_only" not in outcome.err, "torch advises to run the code in a file"


def test_weights_that_do_not_fit(muralab: Muralab, store: Store, tiny_tree: Path, tmp_path: Path) -> None:
    import torch

    torch.save({"Conv2d_1a_3x3.conv.weight": torch.zeros(1)}, tmp_path / "w.pth")
    weights = tmp_path / "w.pth"
    outcome = refused(muralab, store, "train", data=tiny_tree, recipe="inception", image_size=80, weights=weights)
    assert "do not fit the recipe's backbone" in outcome.complaint


# Parameters


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"recipes": "inceptoin"}, "There is no recipe 'inceptoin' in recipes/. Did you mean 'inception'?"),
        ({"set": "full.lrr=1"}, "unknown key 'full.lrr'. Did you mean 'full.lr'?"),
        ({"set": "upper.trains=haed.*"}, f"The recipe '{SMALL}', upper.trains: A phase trains nothing"),
        ({"set": "model.filters=-1"}, "cannot build its network with image_size=36, filters=-1"),
        ({"epochs": "0+0"}, "the full phase has no epochs"),
        ({"epochs": "1"}, "expected `recipe`, or upper+full such as 2+3"),
        ({"trials": "0"}, "trials=0: expected a whole number from 1"),
        ({"gpus_per_trial": "99"}, "gpus_per_trial=99: this machine has"),
        ({"cpus_per_trial": "9999"}, "cpus_per_trial=9999: this machine has"),
        ({"max_concurrent": "-1"}, "max_concurrent=-1: expected"),
        ({"time_budget": "-5"}, "time_budget=-5: expected seconds, minutes or hours"),
        ({"time_budget": "0.001"}, "from 1 s to a year"),
        ({"time_budget": "9" * 400}, "from 1 s to a year"),
        ({"objective": "val_loss"}, "objective=val_loss is unknown"),
        ({"protocol": "valid"}, "protocol=valid is unknown. Did you mean 'valid-as-test' or 'valid-as-validation'?"),
        ({"pictures": "maybe"}, "pictures=maybe is unknown"),
        ({"dry_run": "maybe"}, "dry_run=maybe: expected true or false"),
        ({"resume": "../../etc"}, "resume=../../etc: nothing of this sweep is left"),
    ],
    ids=str,
)
def test_an_impossible_parameter(
    muralab: Muralab, store: Store, tiny_tree: Path, values: dict[str, str], message: str
) -> None:
    outcome = refused(muralab, store, "tune", **{**flags("tune", tiny_tree), **values})
    assert message in outcome.complaint


@pytest.mark.parametrize("command", ["tune", "train", "explore"])
@pytest.mark.parametrize("seed", [-1, "one", 2**32])
def test_an_impossible_seed(muralab: Muralab, store: Store, tiny_tree: Path, command: str, seed: object) -> None:
    outcome = muralab(command, **flags(command, tiny_tree), seed=seed)
    assert outcome.code == 2
    assert f"seed={seed}: expected a whole number from 0 to" in outcome.complaint
    assert all_runs(store) == []


@pytest.mark.parametrize("command", ["tune", "train", "report"])
@pytest.mark.parametrize("word", ["maybe", "yes"])
def test_an_unknown_value_of_pictures(muralab: Muralab, store: Store, tiny_tree: Path, command: str, word: str) -> None:
    own = {"runs": "x"} if command == "report" else flags(command, tiny_tree)
    complaint = refused(muralab, store, command, **own, pictures=word).complaint
    assert f"pictures={word} is unknown. Known: auto, false, true." in complaint


@pytest.mark.parametrize("names", ["all", "cnn,inception"])
def test_a_training_takes_one_recipe(muralab: Muralab, store: Store, tiny_tree: Path, names: str) -> None:
    outcome = refused(muralab, store, "train", data=tiny_tree, recipe=names, weights="none")
    assert f"recipe={names}: a training takes one recipe." in outcome.complaint


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"recipes": SMALL}, "compare needs at least two recipes, such as recipes=inception,inception_add_gate."),
        ({"seeds": 0}, "seeds=0: expected a whole number from 1 to 99,999; 5 is a good start."),
        ({"seeds": 10**6}, "seeds=1000000: expected a whole number"),
        ({"threshold": "half"}, "threshold=half: Unknown threshold rule 'half'."),
    ],
    ids=str,
)
def test_nothing_to_compare(muralab: Muralab, store: Store, tiny_tree: Path, values: Any, message: str) -> None:
    given = {"data": tiny_tree, "recipes": f"{SMALL},cnn", **values}
    assert message in refused(muralab, store, "compare", **given).complaint


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"model": "0" * 32}, "has no run '00000000000000000000000000000000'. Take the id from the run's page"),
        ({"model": "models:/mura-wrist@champion"}, "There is no registered model 'models:/mura-wrist@champion'"),
        ({"model": "x", "set": "tests"}, "set=tests is unknown. Did you mean 'test'?"),
    ],
    ids=str,
)
def test_nothing_to_evaluate(muralab: Muralab, store: Store, tiny_tree: Path, values: Any, message: str) -> None:
    assert message in refused(muralab, store, "evaluate", data=tiny_tree, **values).complaint


@pytest.mark.parametrize("command", ["tune", "train", "explore", "evaluate", "compare"])
@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"part": "wirst"}, "The demo has no part 'wirst'. It has: hand, wrist (or all)."),
        ({"data": "/absent"}, "The data path /absent does not exist."),
        ({"data": "/absent.csv"}, "The manifest /absent.csv does not exist."),
    ],
)
def test_data_that_are_not_there_are_named_before_recipes_are_imported_or_the_demo_is_drawn(
    command: str, given: dict[str, str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("muralab.cli.generate.parse_options", None)
    chosen = {"evaluate": {"model": "1", "data": "demo"}, "train": {"recipe": "cnn"}, "compare": {"recipes": "cnn"}}
    texts = chosen.get(command, {}) | given
    words = [word for name, text in texts.items() for word in (f"--{name}", text)]
    with pytest.raises(MuraLabError, match=re.escape(message)):
        app([command, *words], standalone_mode=False)


@pytest.mark.parametrize(
    ("command", "texts"),
    [
        (TuneConfig, {"part": "elbow", "resume": "latest"}),
        (TrainConfig, {"data": "s3://bucket/tree", "part": "elbow"}),
        (EvaluateConfig, {"part": "elbow"}),
        (ExploreConfig, {"data": "", "part": "elbow"}),
        (ExploreConfig, {}),
    ],
)
def test_data_that_cannot_be_looked_up_yet_pass_at_first(command: type[CommandOptions], texts: dict[str, str]) -> None:
    command.require_inputs(texts)

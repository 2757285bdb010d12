"""`explore` from the command line: class balance, audit and sample images of a tree."""

from __future__ import annotations

from pathlib import Path

import pandas as pd
import pytest

from muralab.commands.explore import class_balance
from muralab.data.mura import read_index
from muralab.tracking import RunRecord, Store, download_artifact
from tests.cli.conftest import Muralab, all_runs, spoil
from tests.fixtures.documented import undocumented


def explored(muralab: Muralab, store: Store, **values: object) -> tuple[RunRecord, str]:
    outcome = muralab("explore", **values)
    assert outcome.code == 0, outcome
    (run,) = all_runs(store)
    return run, outcome.out


def figures(store: Store, run: RunRecord) -> set[str]:
    return {file.path.removeprefix("figures/") for file in store.client.list_artifacts(run.run_id, "figures")}


def test_the_balance_counts_images_and_studies_of_each_part_and_split(tiny_tree: Path) -> None:
    index = read_index(tiny_tree, "all")
    balance = class_balance(index).set_index(["part", "split"])
    assert list(balance.index) == [(part, split) for part in ("hand", "wrist") for split in ("train", "valid")]
    row, images = balance.loc[("hand", "train")], index.query("part == 'hand' and split == 'train'")
    assert (row["images"], row["abnormal"], row["normal"]) == (24, images["label"].sum(), 24 - images["label"].sum())
    assert (row["studies"], row["abnormal_studies"], row["patients"]) == (12, 6, 12)
    assert row["ratio"] == round(row["abnormal"] / row["normal"], 3)


def test_a_part_without_normal_images_has_no_ratio(tiny_tree: Path) -> None:
    index = read_index(tiny_tree, "hand")
    assert class_balance(index[index["label"] == 1])["ratio"].isna().all()


def test_the_balance_is_logged_as_it_is_shown(muralab: Muralab, store: Store, tiny_tree: Path, tmp_path: Path) -> None:
    run, out = explored(muralab, store, data=tiny_tree)
    logged = pd.read_csv(download_artifact(store, run.run_id, "class_balance.csv", tmp_path))
    pd.testing.assert_frame_equal(logged, class_balance(read_index(tiny_tree, "all")))
    assert logged.to_string(index=False).splitlines()[1].strip() in out
    assert (run.kind, run.status, run.tags["muralab.parts"]) == ("explore", "FINISHED", "hand,wrist")


def test_images_of_patients_are_logged_only_if_asked(muralab: Muralab, store: Store, tiny_tree: Path) -> None:
    run, out = explored(muralab, store, data=tiny_tree)
    assert figures(store, run) == {"class_balance.png"}
    assert "No image was logged; pictures=true logs sample grids." in out


def test_sample_grids_are_drawn_of_each_part(muralab: Muralab, store: Store, tiny_tree: Path) -> None:
    run, _ = explored(muralab, store, data=tiny_tree, pictures="true")
    assert figures(store, run) == {"class_balance.png", "samples_hand.png", "samples_wrist.png"}
    assert undocumented(store, run.run_id) == []


def test_every_strength_of_augmentation_is_previewed_on_synthetic_images(
    muralab: Muralab, store: Store, tiny_tree: Path
) -> None:
    run, _ = explored(muralab, store, data=tiny_tree)
    logged = {Path(file.path).stem for file in store.client.list_artifacts(run.run_id, "augmentation")}
    assert {"zoom", "contrast", "gamma", "noise", "blur", "clahe", "cutout", "elastic"} <= logged


def test_one_official_folder_is_enough(muralab: Muralab, store: Store, tree: Path) -> None:
    import shutil

    shutil.rmtree(tree / "valid")
    run, _ = explored(muralab, store, data=tree, part="wrist")
    assert run.tags["muralab.part"] == "wrist"


def test_unreadable_files_are_counted_and_named(muralab: Muralab, store: Store, tree: Path, tmp_path: Path) -> None:
    bad = spoil(tree, "train/*/patient0000[2-4]/*/image1.png")
    run, out = explored(muralab, store, data=tree, pictures="true")
    assert run.metrics["audit_unreadable"] == len(bad) == 3
    logged = pd.read_csv(download_artifact(store, run.run_id, "audit.csv", tmp_path))
    local = pd.read_csv(next((tmp_path / "cache" / "muralab" / "names").glob("*-audit.csv")))
    assert set(local["images"][local["kind"] == "unreadable"]) == {path.relative_to(tree).as_posix() for path in bad}
    assert logged["images"].str.startswith("i-").sum() == local["images"].str.startswith("train/").sum()
    assert all(name in out for name in logged["images"][logged["kind"] == "unreadable"])


@pytest.mark.parametrize("pictures", ["", "maybe"])
def test_pictures_is_true_false_or_auto(muralab: Muralab, store: Store, tiny_tree: Path, pictures: str) -> None:
    outcome = muralab("explore", data=tiny_tree, pictures=pictures)
    assert outcome.code == 2
    assert f"pictures={pictures} is unknown. Known: auto, false, true." in outcome.complaint
    assert all_runs(store) == []

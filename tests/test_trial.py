"""One trial, from its specification to its test predictions, and the cached features that trials share."""

from __future__ import annotations

import json
import shutil
from contextlib import closing
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from PIL import Image

from muralab.data.loader import evaluation_batches
from muralab.experiment import (
    OBJECTIVES,
    build_network,
    load_trained,
    predict_sets,
    predictions_path,
    run_trial,
    warm_up,
)
from muralab.training.trainer import EpochResult
from muralab.trial import ImageData, TrialSpec, read_data, recipes_of, uses_bfloat16, write_table


def run(spec: TrialSpec, stop_after: int | None = None) -> list[EpochResult]:
    with closing(run_trial(spec)) as epochs:
        return list(islice(epochs, stop_after))


def plain(results: list[EpochResult]) -> list[EpochResult]:
    return [replace(result, seconds=0.0) for result in results]


def test_a_specification_can_be_stored_as_json(build_spec: Any) -> None:
    spec = build_spec(overrides={"full.lr": "3e-5", "full.epochs": 2}, drawn={"augment.zoom": 0.1}, seed=3)
    assert TrialSpec(**json.loads(json.dumps(spec.to_dict()))) == spec


def test_searched_strengths_apply_to_the_full_phase_only(build_spec: Any) -> None:
    base, resolved = recipes_of(build_spec(drawn={"augment.shift": 0.09, "full.lr": 0.011}))
    assert (base.augment.shift, resolved.augment.shift) == (0.05, 0.09)
    assert base.full.lr == resolved.full.lr == 0.011


def test_a_trial_trains_with_a_searched_strength(build_spec: Any, tmp_path: Path) -> None:
    plain_run, noisy = (
        run(build_spec(folder=str(tmp_path / name), drawn=drawn))
        for name, drawn in (("plain", {}), ("noisy", {"augment.noise": 1.0}))
    )
    assert plain(noisy)[:2] == plain(plain_run)[:2], "the upper phase uses the recipe's own strengths"
    assert [r.train_loss for r in noisy[2:]] != [r.train_loss for r in plain_run[2:]]


def test_a_trial_augments_larger_squares_and_evaluates_its_own(build_spec: Any, tmp_path: Path) -> None:
    spec = build_spec(overrides={"source_scale": 2.0})
    data = read_data(spec.table, spec.cache_folder, 36)
    images = ImageData(spec, data, "cpu")
    assert images.source.size == 72
    with closing(images.batches("full", 1)) as batches:
        assert next(batches).images.shape[1:] == (36, 36)
    usual, larger = (
        run(build_spec(folder=str(tmp_path / str(scale)), overrides={"source_scale": scale})) for scale in (1.0, 2.0)
    )
    assert [r.train_loss for r in larger] != [r.train_loss for r in usual]


def test_overridden_strengths_apply_to_both_phases(build_spec: Any) -> None:
    base, resolved = recipes_of(build_spec(overrides={"augment.shift": "0.2"}))
    assert base.augment.shift == resolved.augment.shift == 0.2


def test_the_table_keeps_names_and_sets_as_text(tmp_path: Path) -> None:
    index = pd.DataFrame(
        {"image": ["a", "b", "c"], "patient": ["007", "7", "NA"], "label": [0, 1, 0], "split": "train"}
    )
    write_table(tmp_path / "deep" / "split.csv", index, {"train": index[:1], "test": index[1:2]})
    table = pd.read_csv(tmp_path / "deep" / "split.csv", dtype=str, keep_default_na=False)
    assert list(table["set"]) == ["train", "test", ""]
    assert list(table["patient"]) == ["007", "7", "NA"]


def test_patients_named_by_numbers_stay_distinct(build_spec: Any, tmp_path: Path) -> None:
    spec = build_spec()
    table = pd.read_csv(spec.table)
    table["patient"] = ["01", "1"] * (len(table) // 2) + ["01"] * (len(table) % 2)
    table.to_csv(tmp_path / "split.csv", index=False)
    data = read_data(str(tmp_path / "split.csv"), spec.cache_folder, 36)
    assert set(pd.concat(data.tables.values())["patient"]) == {"01", "1"}


def test_sets_do_not_share_patients(build_spec: Any) -> None:
    spec = build_spec()
    tables = read_data(spec.table, spec.cache_folder, 36).tables.values()
    patients = [patient for table in tables for patient in set(table["patient"])]
    assert len(patients) == len(set(patients)) > 0


def test_a_trial_yields_every_epoch_with_every_metric(build_spec: Any) -> None:
    results = run(build_spec())
    assert [(r.phase, r.epoch) for r in results] == [("upper", 1), ("upper", 2), ("full", 1), ("full", 2), ("full", 3)]
    assert {"val_loss", *OBJECTIVES} <= set(results[-1].validation)


@pytest.mark.parametrize(("stop", "precision"), [(1, "float32"), (2, "float32"), (3, "float32"), (3, "bfloat16")])
def test_a_resumed_trial_gives_the_same_results(build_spec: Any, tmp_path: Path, stop: int, precision: str) -> None:
    whole = run(build_spec(folder=str(tmp_path / "whole"), precision=precision))
    run(build_spec(precision=precision), stop)
    assert plain(run(build_spec(precision=precision))) == plain(whole)


def test_bfloat16_changes_the_training_and_not_the_precision_of_the_final_predictions(build_spec: Any) -> None:
    losses = {p: [row.train_loss for row in run(build_spec(folder=f"{build_spec().folder}-{p}", precision=p))]
              for p in ("float32", "bfloat16")}  # fmt: skip
    assert losses["bfloat16"] != losses["float32"]
    assert losses["bfloat16"] == pytest.approx(losses["float32"], rel=0.05)
    spec = build_spec(folder=f"{build_spec().folder}-bfloat16", precision="bfloat16")
    in_float32 = predict_sets(replace(spec, precision="float32"), "full")[1]["test"]
    pd.testing.assert_frame_equal(predict_sets(spec, "full")[1]["test"], in_float32)


def test_a_plan_without_a_precision_trains_as_it_did() -> None:
    spec = TrialSpec(name="a", recipe="cnn", table="", cache_folder="", folder="")
    assert not uses_bfloat16(spec)
    assert uses_bfloat16(replace(spec, precision="bfloat16"))


def test_predictions_of_the_best_epoch_are_written(build_spec: Any) -> None:
    spec = build_spec()
    results = run(spec)
    for phase in ("upper", "full"):
        table = pd.read_csv(predictions_path(spec.folder, phase))
        assert set(table["image"]) == set(read_data(spec.table, spec.cache_folder, 36).tables["validation"]["image"])
        best = [r for r in results if r.phase == phase and r.best][-1]
        loss = np.mean(np.logaddexp(0, table["logit"]) - table["label"] * table["logit"])
        assert loss == pytest.approx(best.validation["val_loss"], abs=1e-5)


@pytest.mark.parametrize("phase", ["upper", "full"])
def test_the_test_set_is_predicted_with_the_best_weights_of_a_phase(build_spec: Any, phase: str) -> None:
    spec = build_spec()
    run(spec)
    network, tables = predict_sets(spec, phase)
    kept = pd.read_csv(predictions_path(spec.folder, phase))
    np.testing.assert_allclose(tables["validation"]["logit"], kept["logit"], atol=1e-5)
    assert set(tables["test"]["study"]).isdisjoint(tables["validation"]["study"])
    assert not network.training


def test_missing_validation_predictions_are_recomputed(build_spec: Any) -> None:
    spec = build_spec()
    run(spec)
    predictions_path(spec.folder, "full").unlink()
    assert len(predict_sets(spec, "full")[1]["validation"])


def test_a_backbone_trained_before_the_head_is_kept(build_spec: Any) -> None:
    spec = build_spec(overrides={"upper.trains": "*", "full.trains": "head.*"})
    start = build_network(spec, read_data(spec.table, spec.cache_folder, 36)).backbone.state_dict()
    run(spec)
    trained = load_trained(spec, "full")[0].backbone.state_dict()
    assert not torch.equal(start["0.weight"], trained["0.weight"])


def test_initial_weights_depend_on_the_seed_only(build_spec: Any) -> None:
    spec = build_spec(seed=5)
    data = read_data(spec.table, spec.cache_folder, 36)
    one, two, other = (build_network(s, data).state_dict() for s in (spec, spec, replace(spec, seed=6)))
    assert all(torch.equal(value, two[key]) for key, value in one.items())
    assert not torch.equal(one["head.weight"], other["head.weight"])


# Frozen features


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of images of each computation of features."""
    from muralab import trial

    calls: list[int] = []
    compute = trial.compute_features

    def count(network: Any, batches: Any, n_images: int, *rest: Any) -> np.ndarray:
        calls.append(n_images)
        return compute(network, batches, n_images, *rest)

    monkeypatch.setattr(trial, "compute_features", count)
    return calls


def test_two_trials_share_one_computation(build_spec: Any, tmp_path: Path, computed: list[int]) -> None:
    run(build_spec(), 1)
    assert len(computed) == 3, "two views of the training images, one of the validation images"
    run(build_spec(folder=str(tmp_path / "other"), drawn={"full.lr": 0.011, "augment.shift": 0.02}), 1)
    assert len(computed) == 3


@pytest.mark.parametrize(
    "fields", [{"seed": 1}, {"overrides": {"augment.shift": 0.2}}, {"overrides": {"image_size": 40}}]
)
def test_other_settings_need_other_features(build_spec: Any, computed: list[int], fields: Any) -> None:
    run(build_spec(), 1)
    run(build_spec(folder=build_spec().folder + "-other", **fields), 1)
    assert len(computed) == 6


def test_other_images_with_the_same_names_need_other_features(
    build_spec: Any, computed: list[int], tiny_tree: Path, tmp_path: Path
) -> None:
    run(build_spec(), 1)
    for path in shutil.copytree(tiny_tree, tmp_path / "copy").rglob("image*.png"):
        Image.open(path).point(lambda level: 255 - level).save(path)
    table = Path(build_spec().table).read_text().replace(str(tiny_tree), str(tmp_path / "copy"))
    (tmp_path / "split.csv").write_text(table)
    run(build_spec(folder=build_spec().folder + "-other", table=str(tmp_path / "split.csv")), 1)
    assert len(computed) == 6


def test_there_are_at_most_as_many_views_as_epochs(build_spec: Any, computed: list[int]) -> None:
    run(build_spec(overrides={"upper.epochs": 1}), 1)
    assert len(computed) == 2


def test_cached_features_equal_those_of_the_backbone(build_spec: Any) -> None:
    spec = build_spec()
    data = read_data(spec.table, spec.cache_folder, 36)
    network, images = build_network(spec, data).eval(), ImageData(spec, data, "cpu")
    features = images.features(network)
    with torch.inference_mode():
        plain = torch.cat(
            [network.pooled(b.images) for b in evaluation_batches(data.cache, data.tables["validation"], batch_size=4)]
        )
        view = torch.zeros(features.train.shape[1:])
        for batch in images.batches("upper", 2):
            view[batch.rows] = network.pooled(batch.images)
    np.testing.assert_allclose(features.validation, plain, atol=1e-5)
    np.testing.assert_allclose(features.train[1], view, atol=1e-5)


def test_an_incomplete_pair_of_feature_files_is_recomputed(build_spec: Any, computed: list[int]) -> None:
    run(build_spec(), 1)
    folder = Path(build_spec().cache_folder) / "features"
    next(folder.glob("*-validation.npy")).unlink()
    run(build_spec(folder=build_spec().folder + "-other"), 1)
    assert len(computed) == 6


def test_warming_up_computes_no_features_for_a_network_from_scratch(build_spec: Any, computed: list[int]) -> None:
    warm_up(build_spec())
    assert computed == []
    assert (Path(build_spec().cache_folder) / "pixels").is_dir()

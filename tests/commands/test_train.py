"""`train` from the command line: what is logged, what an interruption leaves, which errors are shown."""

from __future__ import annotations

import errno
import json
import os
import re
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch

from muralab.evaluation.metrics import METRICS
from muralab.tracking import RunRecord, Store, download_artifact, read_run, start_run
from muralab.training.phase_trainer import PhaseTrainer
from tests.cli.conftest import SMALL, Muralab, all_runs, image_codes, spoil
from tests.commands.conftest import interrupt_after
from tests.fixtures.documented import undocumented

QUICK = {"recipe": SMALL, "epochs": "1+2", "cpus_per_trial": 1}


def only_run(store: Store) -> RunRecord:
    (run,) = all_runs(store)
    return run


def break_steps(error: BaseException, monkeypatch: pytest.MonkeyPatch) -> None:
    def step(*_: Any) -> None:
        raise error

    monkeypatch.setattr(PhaseTrainer, "_step", step)


def mislabel_full_phase(monkeypatch: pytest.MonkeyPatch) -> None:
    step = PhaseTrainer._step

    def mislabelled(trainer: PhaseTrainer, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        return step(trainer, inputs, 1 - labels if trainer.name == "full" else labels)

    monkeypatch.setattr(PhaseTrainer, "_step", mislabelled)


@pytest.fixture
def trained(muralab: Muralab, store: Store, tiny_tree: Path) -> RunRecord:
    assert muralab("train", data=tiny_tree, **QUICK).code == 0
    return only_run(store)


def test_a_training_is_one_run_with_everything(trained: RunRecord, store: Store, tmp_path: Path) -> None:
    assert (trained.kind, trained.status, trained.recipe, trained.part) == ("train", "FINISHED", SMALL, "wrist")
    assert list(trained.history["train_loss"].dropna().index) == [1, 2, 3]
    assert {"test_study_auroc", "upper_val_accuracy", "full_val_accuracy"} <= set(trained.metrics)
    assert f"{trained.tags['muralab.kept_phase']}_eval_train_loss" in trained.metrics
    assert {f"test_study_{name}" for name in METRICS} <= set(trained.metrics)
    assert trained.params["resolved.full.epochs"] == "2"
    assert undocumented(store, trained.run_id) == []
    for name in ("report.html", "results.csv", "calibration.json", "weights/weights.safetensors"):
        assert download_artifact(store, trained.run_id, name, tmp_path).stat().st_size
    assert list((tmp_path / "cache" / "muralab" / "sweeps").iterdir()) == [], "only shared files are left on disk"


def test_the_threshold_is_fitted_by_the_given_rule(
    muralab: Muralab, store: Store, easy_tree: Path, tmp_path: Path
) -> None:
    assert muralab("train", data=easy_tree, threshold="sensitivity>=0.4", **QUICK).code == 0
    run = only_run(store).run_id
    text, page = (download_artifact(store, run, name, tmp_path) for name in ("calibration.json", "report.html"))
    assert json.loads(text.read_text())["rule"] == "sensitivity>=0.4"
    assert "<small>sensitivity&gt;=0.4, lower bound 0." in page.read_text("utf-8")


def test_a_training_prints_figures_with_intervals_and_a_rough_calibration_which_stands_in_the_report(
    muralab: Muralab, store: Store, easy_tree: Path, tmp_path: Path
) -> None:
    outcome = muralab("train", data=easy_tree, **QUICK)
    assert re.search(r"auroc \d\.\d+ \[\d\.\d+, \d\.\d+\], kappa", outcome.out), outcome.out
    page = download_artifact(store, only_run(store).run_id, "report.html", tmp_path).read_text("utf-8")
    for text in (outcome.out, page):
        assert "small network: Calibration and threshold rest on " in text
        assert "small network: calibrated by slope and intercept of the log-odds" in text
    assert "Right: the same with its Grad-CAM" not in page, "radiographs of patients are shown only if asked for"
    assert "no patient’s radiographs unless pictures=true" in page


def test_a_sensitivity_that_so_few_patients_cannot_show_is_refused_before_training(
    muralab: Muralab, store: Store, easy_tree: Path
) -> None:
    outcome = muralab("train", data=easy_tree, threshold="sensitivity>=0.9", **QUICK)
    assert outcome.code == 2
    assert "needs at least 29 abnormal validation patients; there are" in outcome.complaint
    assert all_runs(store) == []


def test_a_training_on_real_data_shows_images_if_asked(
    muralab: Muralab, store: Store, easy_tree: Path, tmp_path: Path
) -> None:
    assert muralab("train", data=easy_tree, pictures="true", **QUICK).code == 0
    page = download_artifact(store, only_run(store).run_id, "report.html", tmp_path).read_text("utf-8")
    assert "Right: the same with its Grad-CAM" in page
    assert "no patient’s radiographs unless pictures=true" not in page


def test_a_full_phase_that_spoils_the_model_is_not_kept(
    muralab: Muralab, store: Store, easy_tree: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mislabel_full_phase(monkeypatch)
    values = {**QUICK, "epochs": "6+3", "set": "upper.trains=*,upper.lr=0.05,full.lr=0.1"}
    assert muralab("train", data=easy_tree, **values).code == 0
    run = only_run(store)
    upper, full = (run.metrics[f"{phase}_val_study_auroc"] for phase in ("upper", "full"))
    assert (run.metrics["objective"], run.tags["muralab.kept_phase"]) == (upper, "upper")
    assert upper > full
    table = pd.read_csv(download_artifact(store, run.run_id, "results.csv", tmp_path)).set_index("phase")
    assert table.loc["upper", "validation_study_auroc"] == pytest.approx(upper)
    assert table["test_studies"].to_dict() == {"upper": 24, "full": 0}
    page = download_artifact(store, run.run_id, "report.html", tmp_path).read_text("utf-8")
    assert "best epoch of the upper phase (the phase that validated better" in page


def test_the_studys_schedule_is_carried_out_and_named(muralab: Muralab, store: Store, easy_tree: Path) -> None:
    values = {"recipe": "cnn", "epochs": "0+2", "image_size": 64, "batch_size": 16, "cpus_per_trial": 1}
    outcome = muralab("train", data=easy_tree, set="study,model.filters=2", **values)
    assert outcome.code == 0, outcome
    assert "The study's split is protocol=valid-as-validation; this is valid-as-test" in " ".join(outcome.out.split())
    run = only_run(store)
    expected = {"kept_phase": "full", "model.channels": "3", "class_weighting": "False", "ema_decay": "0.0"}
    assert {key: run.params[f"resolved.{key}"] for key in expected} == expected
    assert (run.metrics["full_epochs"], run.params["resolved.model.filters"]) == (2, "2")
    assert {"full_eval_train_loss", "full_eval_train_accuracy"} <= set(run.metrics)


# Interrupted


@pytest.mark.slow
def test_an_interrupted_training_resumes_where_it_was(
    muralab: Muralab, store: Store, tiny_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupt_after(2, patch)
        stopped = muralab("train", data=tiny_tree, **QUICK)
    run = only_run(store)
    assert (stopped.code, run.status) == (130, "KILLED")
    assert f"  mlflow run . -e train --env-manager local -P resume={run.run_id}\n" in stopped.out
    assert muralab("train", resume=run.run_id).code == 0
    assert only_run(store).status == "FINISHED"
    points = store.client.get_metric_history(run.run_id, "train/loss")
    assert [point.step for point in points] == [1, 2, 3]


@pytest.fixture
def interrupted(muralab: Muralab, store: Store, tiny_tree: Path, monkeypatch: pytest.MonkeyPatch) -> RunRecord:
    with monkeypatch.context() as patch:
        interrupt_after(1, patch)
        muralab("train", data=tiny_tree, **QUICK)
    return only_run(store)


def plan_of(run: RunRecord, tmp_path: Path) -> Path:
    return tmp_path / "cache" / "muralab" / "sweeps" / run.run_id / "plan.json"


def test_tune_does_not_resume_a_training(interrupted: RunRecord, muralab: Muralab, tmp_path: Path) -> None:
    outcome = muralab("tune", resume=interrupted.run_id)
    assert outcome.code == 2
    assert f"resume={interrupted.run_id}: `train` started this run, not `tune`." in outcome.complaint
    assert plan_of(interrupted, tmp_path).is_file()


def test_a_run_that_is_still_running_is_not_resumed(interrupted: RunRecord, muralab: Muralab, store: Store) -> None:
    from muralab.tracking.process import process_tags
    from muralab.tracking.stored_names import stored_tag

    for key, value in process_tags().items():
        store.client.set_tag(interrupted.run_id, stored_tag(key), value)
    store.client.update_run(interrupted.run_id, status="RUNNING")
    outcome = muralab("train", resume=interrupted.run_id)
    assert outcome.code == 2
    assert f"this run is still running, in process {os.getpid()} of this machine" in outcome.complaint


def test_changed_data_are_not_resumed(
    muralab: Muralab, store: Store, tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        interrupt_after(1, patch)
        muralab("train", data=tree, **QUICK)
    next(path for path in tree.glob("train/*/*/*/image1.png")).unlink()
    outcome = muralab("train", resume=only_run(store).run_id)
    assert outcome.code == 2
    assert f"the data at {tree} have changed since that sweep started" in outcome.complaint


def test_missing_weights_are_reported_before_anything_resumes(
    interrupted: RunRecord, muralab: Muralab, store: Store, tmp_path: Path
) -> None:
    plan = plan_of(interrupted, tmp_path)
    text = json.loads(plan.read_text())
    text["specs"][0]["weights"] = str(tmp_path / "gone.safetensors")
    plan.write_text(json.dumps(text))
    outcome = muralab("train", resume=interrupted.run_id)
    assert outcome.code == 2
    assert f"weights={tmp_path / 'gone.safetensors'}: there is no such file" in outcome.complaint
    assert only_run(store).status == "KILLED"


@pytest.mark.parametrize("text", ["", '{"options": {', '{"options": {"colour": 1}, "specs": []}', "{}"])
def test_a_damaged_plan_is_named(interrupted: RunRecord, muralab: Muralab, tmp_path: Path, text: str) -> None:
    plan_of(interrupted, tmp_path).write_text(text)
    outcome = muralab("train", resume=interrupted.run_id)
    assert outcome.code == 2
    assert f"the plan {plan_of(interrupted, tmp_path)} is damaged, or another version wrote it" in outcome.complaint


# What goes wrong while it runs


def test_exceeded_memory_is_a_paragraph_and_a_failed_run(
    muralab: Muralab, store: Store, tiny_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_steps(torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), monkeypatch)
    outcome = muralab("train", data=tiny_tree, **QUICK)
    assert (outcome.code, only_run(store).status) == (2, "FAILED")
    for name in ("batch_size", "image_size", "gpus_per_trial", "Tried to allocate 2.00 GiB"):
        assert name in outcome.complaint


def test_a_full_disk_is_a_paragraph_and_a_failed_run(
    muralab: Muralab, store: Store, tiny_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_steps(OSError(errno.ENOSPC, "No space left on device", "/cache/last.tmp"), monkeypatch)
    outcome = muralab("train", data=tiny_tree, **QUICK)
    assert (outcome.code, only_run(store).status) == (2, "FAILED")
    complaint = (
        "muralab: The disk is full at /cache/last.tmp. Free some space and try again. Once it is fixed, resume with: "
    )
    assert outcome.complaint.startswith(complaint)
    assert outcome.out.strip().endswith(f"-P resume={only_run(store).run_id}")


def test_a_bug_keeps_its_traceback_and_leaves_no_run_open(
    muralab: Muralab, store: Store, tiny_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    break_steps(ZeroDivisionError("a bug"), monkeypatch)
    with pytest.raises(ZeroDivisionError, match="a bug"):
        muralab("train", data=tiny_tree, **QUICK)
    assert only_run(store).status == "FAILED"


def test_the_run_of_mlflow_run_is_adopted_and_no_other_is_created(
    muralab: Muralab, store: Store, tiny_tree: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = start_run(store, experiment="own", kind="", name="project")
    monkeypatch.setenv("MLFLOW_RUN_ID", given)
    assert muralab("train", data=tiny_tree, **QUICK).code == 0
    run = only_run(store)
    assert (run.run_id, run.kind) == (given, "train")
    assert "test_study_auroc" in run.metrics


# Images that cannot be read


@pytest.mark.slow
def test_an_unreadable_image_is_left_out_and_named_in_warning_and_report(
    muralab: Muralab, store: Store, tree: Path, tmp_path: Path
) -> None:
    bad = spoil(tree, "train/*/patient00002/*/image*.png")
    outcome = muralab("train", data=tree, **QUICK)
    assert outcome.code == 0, outcome
    run = only_run(store)
    report = download_artifact(store, run.run_id, "report.html", tmp_path).read_text("utf-8")
    codes = image_codes(tmp_path)
    for code in (codes[path.relative_to(tree).as_posix()] for path in bad):
        assert f"{code}: not a PNG, JPEG, TIFF, BMP or DICOM file" in outcome.out
        assert code in report


def test_an_unreadable_image_is_not_replaced(muralab: Muralab, store: Store, tree: Path, tmp_path: Path) -> None:
    (bad,) = spoil(tree, "valid/*/patient00014/*/image1.png")
    assert muralab("train", data=tree, **QUICK).code == 0
    images = only_test_predictions(store)["image"]
    shown = [path for path in tree.glob("valid/*/*/*/image*.png") if path != bad]
    codes = image_codes(tmp_path)
    assert sorted(images) == sorted(codes[path.relative_to(tree).as_posix()] for path in shown)


def only_test_predictions(store: Store) -> pd.DataFrame:
    return read_run(store, only_run(store).run_id).predictions["test"]


@pytest.mark.slow
def test_an_evaluation_names_unreadable_images_too(
    trained: RunRecord, muralab: Muralab, store: Store, tree: Path, tmp_path: Path
) -> None:
    (bad,) = spoil(tree, "valid/*/patient00014/*/image1.png")
    outcome = muralab("evaluate", model=trained.run_id, data=tree)
    assert outcome.code == 0, outcome
    assert image_codes(tmp_path)[bad.relative_to(tree).as_posix()] in " ".join(outcome.out.split())
    found = next(run for run in all_runs(store) if run.kind == "evaluate")
    assert (found.status, found.tags["muralab.evaluates"]) == ("FINISHED", trained.run_id)

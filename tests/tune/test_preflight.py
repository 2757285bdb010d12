"""What does not fit is told before anything starts."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from muralab.errors import MemoryExceededError, RecipeError, WeightsError
from muralab.tune import preflight
from muralab.tune.preflight import check_trial, measure_pace, memory_notes


@pytest.mark.parametrize(
    ("recipe", "overrides", "message"),
    [
        (
            "cnn",
            {"model.filters": -3},
            r"'cnn' cannot build its network with image_size=224, filters=-3.*in .*\.py, line \d+",
        ),
        ("cnn", {"model.dropout": 2.0}, "dropout probability has to be between 0 and 1"),
        ("inception", {"image_size": 40}, "'inception' cannot build its network with image_size=40"),
        ("tiny_lab.small_net", {"upper.trains": "haed.*"}, r"no parameter matches haed\.\*"),
        ("tiny_lab.small_net", {"full.trains": "haed.*"}, r"no parameter matches haed\.\*"),
    ],
)
def test_values_that_make_no_network_are_refused(build_spec: Any, recipe: str, overrides: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        check_trial(build_spec(recipe, overrides=overrides))


def test_weights_of_another_network_are_refused(build_spec: Any, tmp_path: Path) -> None:
    torch.save({"Conv2d_1a_3x3.conv.weight": torch.zeros(1)}, tmp_path / "w.pth")
    with pytest.raises(WeightsError, match=r"do not fit the recipe's backbone: tensors \d+ missing"):
        check_trial(build_spec("inception", overrides={"image_size": 80}, weights=str(tmp_path / "w.pth")))


def test_logits_of_another_shape_are_refused(build_spec: Any, lab: Path) -> None:
    text = (lab / "tiny_lab" / "small_net.py").read_text()
    (lab / "tiny_lab" / "wide_net.py").write_text(text.replace("nn.Linear(filters, 1)", "nn.Linear(filters, 2)"))
    with pytest.raises(RecipeError, match=r"logits of shape \(2, 2\) for 2 images: expected \(2,\)"):
        check_trial(build_spec("tiny_lab.wide_net"))


def test_what_fits_passes(build_spec: Any) -> None:
    check_trial(build_spec())


def test_pace_is_measured(build_spec: Any) -> None:
    pace = measure_pace(build_spec())
    assert 0 < pace.infer_s < 1
    assert 0 < pace.train_s < 1
    assert pace.frozen_upper
    assert pace.checkpoint_bytes == 9 * pace.weights_bytes > 0
    assert (pace.batch_parts, memory_notes({"small": pace})) == (1, [])


def test_memory_that_a_step_exceeds_is_told(build_spec: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise torch.cuda.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(torch, "autocast", full)
    with pytest.raises(MemoryExceededError, match=r"smaller batch_size or image_size, or a larger gpus_per_trial"):
        measure_pace(build_spec())


def test_a_batch_that_memory_does_not_hold_is_measured_in_parts(
    build_spec: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = build_spec(overrides={"batch_size": 20})
    pace = measure_pace(spec)

    def measure(_: Any, batch: int, *, parts: int) -> Any:
        if batch > 5:
            raise MemoryExceededError("It does not fit.")
        return replace(pace, batch_parts=parts)

    monkeypatch.setattr(preflight, "_measure", measure)
    found = measure_pace(replace(spec, gpu=True))
    assert found.batch_parts == 4
    assert (
        "small: a batch does not fit into the GPU's memory and is computed in 4 parts"
        in memory_notes({"small": found})[0]
    )

"""An epoch's validation metrics: at which threshold they are computed."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from muralab.errors import DivergedError
from muralab.evaluation.calibration import fit_calibration
from muralab.evaluation.evaluated_model import EvaluatedModel
from muralab.evaluation.metrics import evaluate_predictions
from muralab.experiment import ValidationEvaluator


def validate(threshold: str, scale: float = 1.0) -> tuple[dict[str, float], pd.DataFrame]:
    """The metrics of a model whose logits are far too low."""
    rng = np.random.default_rng(0)
    label = np.repeat(np.arange(60) % 2, 2)
    names = [f"s{number // 2:02d}" for number in range(120)]
    images = [f"{name}/{number}.png" for number, name in enumerate(names)]
    table = pd.DataFrame({"image": images, "study": names, "patient": names, "part": "wrist", "label": label})
    pooled = scale * torch.tensor(rng.normal(2.0 * label - 3.0)[:, None])
    spec: Any = SimpleNamespace(threshold=threshold, gpu=False, precision="float32")
    evaluator = ValidationEvaluator(spec, SimpleNamespace(tables={"validation": table}))  # type: ignore[arg-type]
    return evaluator(SimpleNamespace(head=nn.Identity()), pooled), evaluator.predictions  # type: ignore[arg-type]


@pytest.mark.parametrize("rule", ["max-kappa", "youden", "sensitivity>=0.9"])
def test_the_accuracy_of_studies_is_that_of_the_calibrated_model_at_its_own_threshold(rule: str) -> None:
    metrics, predictions = validate(rule)
    calibration = fit_calibration(predictions, rule=rule)
    model = EvaluatedModel(recipe="cnn", title="cnn", run_id="1", test=predictions, calibration=calibration)
    assert metrics["val_study_accuracy"] == model.intervals()["accuracy"].estimate
    assert metrics["val_study_accuracy"] > validate("")[0]["val_study_accuracy"]


def test_plans_of_earlier_versions_keep_the_threshold_of_a_half() -> None:
    metrics, predictions = validate("")
    assert metrics["val_study_accuracy"] == evaluate_predictions(predictions, level="study")["accuracy"]


def test_the_accuracy_of_images_is_at_a_half_as_in_the_wrist_study() -> None:
    assert validate("max-kappa")[0]["val_accuracy"] == validate("")[0]["val_accuracy"]


def test_outputs_that_are_not_finite_end_the_trial_with_their_reason() -> None:
    with pytest.raises(DivergedError, match=r"outputs on the validation images are not finite.*clip_norm"):
        validate("max-kappa", scale=math.inf)

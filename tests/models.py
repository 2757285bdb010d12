"""Made-up evaluated models, for tests of what is done with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from muralab.evaluation.calibration import Calibration
from muralab.evaluation.evaluated_model import EvaluatedModel


def predictions(skill: float, *, seed: int = 0, n_patients: int = 40) -> pd.DataFrame:
    """Two views of one study per patient; every second patient is abnormal."""
    noise = np.random.default_rng(seed).normal(size=(n_patients, 2))
    rows = [
        (f"valid/XR_WRIST/p{p:03d}/study1/image{view + 1}.png", f"valid/XR_WRIST/p{p:03d}/study1", f"p{p:03d}", p % 2,
         skill * (2 * (p % 2) - 1) + noise[p, view])
        for p in range(n_patients) for view in range(2)
    ]  # fmt: skip
    table = pd.DataFrame(rows, columns=["image", "study", "patient", "label", "logit"])
    return table.assign(part="wrist")[["image", "study", "patient", "part", "label", "logit"]]


def build_model(recipe: str = "cnn", skill: float = 1.5, **fields: Any) -> EvaluatedModel:
    """A model whose test AUROC grows with its skill, and whose objective is 0.8 unless given."""
    common: dict[str, Any] = {
        "title": f"{recipe} network",
        "run_id": f"run-{recipe}",
        "validation": predictions(skill, seed=1),
        "test": predictions(skill),
        "calibration": Calibration(threshold=0.4),
        "objective": 0.8,
    }
    return EvaluatedModel(recipe=recipe, **common | fields)

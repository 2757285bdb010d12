"""Predictions with several studies per patient, and a registered metric."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from muralab.evaluation.metrics import METRICS, register_metric


@pytest.fixture
def predictions():
    """60 patients, 90 studies, about 200 images, sorted by image."""
    rng = np.random.default_rng(11)
    patient = np.append(np.arange(60), rng.integers(0, 60, 30))
    label = rng.integers(0, 2, 90)
    study = np.repeat(np.arange(90), rng.integers(1, 5, 90))
    centre = 1.5 * (label - 0.4) + rng.normal(0, 1, 90)
    return pd.DataFrame(
        {
            "image": [f"i{i:05d}" for i in range(len(study))],
            "study": [f"s{s:03d}" for s in study],
            "patient": [f"p{patient[s]:03d}" for s in study],
            "part": "wrist",
            "label": label[study],
            "logit": 2 * (centre[study] + rng.normal(0, 1, len(study))),
        }
    )


def simulate(n_patients, seed, *, n_studies=2, alike=0.8):
    """One-image studies, whose labels and errors are correlated within a patient."""
    rng = np.random.default_rng(seed)
    patient = np.repeat(np.arange(n_patients), n_studies)
    label = (rng.normal(0, 1, n_patients)[patient] + rng.normal(0, 1, len(patient)) > 0.3).astype(int)
    logit = 1.2 * label + alike * rng.normal(0, 1, n_patients)[patient] + rng.normal(0, 1, len(patient))
    names = [f"i{i:06d}" for i in range(len(patient))]
    return pd.DataFrame(
        {"image": names, "study": names, "patient": patient, "part": "wrist", "label": label, "logit": logit}
    )


@pytest.fixture
def resampled_metric():
    """A registered metric."""
    register_metric("right", title="Right", f=lambda y, p: float(((p >= 0.5) == y).mean()), needs="rows")
    yield "right"
    METRICS.pop("right")

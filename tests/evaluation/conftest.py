"""A predictions table with several studies per patient and several views per study."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest


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

"""Time and disk of a search, from the pace of each recipe."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest

from muralab.trial import TrialSpec
from muralab.tune.estimate import START_S, Estimate, estimate
from muralab.tune.preflight import Pace

N_TRAIN, N_VALIDATION = 100, 20


@pytest.fixture
def estimated(lab: Any, tmp_path: Path) -> Any:
    """A function that estimates two trials of a small network whose every epoch takes 100 s."""
    pace = Pace(train_s=1.0, infer_s=0.0, frozen_upper=False, weights_bytes=10, checkpoint_bytes=50)
    common: Any = {"recipe": "tiny_lab.small_net", "overrides": {"upper.epochs": 0, "full.epochs": 1}, "table": ""}
    specs = [
        TrialSpec(name=f"n-{n:02d}", drawn=drawn, cache_folder=str(tmp_path), folder=str(tmp_path / str(n)), **common)
        for n, drawn in enumerate(({}, {"full.lr": 0.02}))
    ]
    tables = {"train": pd.DataFrame(index=range(N_TRAIN)), "validation": pd.DataFrame(index=range(N_VALIDATION))}
    dataset: Any = SimpleNamespace(tables=tables, index=pd.DataFrame(index=range(N_TRAIN + N_VALIDATION)))

    def call(**values: int) -> Estimate:
        return estimate(specs, dataset, 2, paces={"tiny_lab.small_net": pace}, **values)

    return call


def test_trials_that_share_a_gpu_take_as_long_as_one_after_the_other(estimated: Any) -> None:
    assert estimated().wall_s == START_S + 100
    assert estimated(gpus=1).wall_s == START_S + 200
    assert estimated(gpus=4).wall_s == START_S + 100


def test_the_disk_holds_decoded_images_checkpoints_and_weights(estimated: Any) -> None:
    assert estimated().disk_bytes == 2 * 50 + 10 + (N_TRAIN + N_VALIDATION) * 36**2

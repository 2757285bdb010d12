"""From a network to the predictions table, and from images to studies."""

from __future__ import annotations

import types

import numpy as np
import pandas as pd
import pytest
import torch

from muralab.errors import DataError
from muralab.evaluation.predictions import PREDICTION_COLUMNS, check_predictions, level_rows, predict_images, to_studies
from muralab.serving.scaling import Scaling


class Brightness(torch.nn.Module):
    """Logit = mean grey value; one submodule is frozen in evaluation mode."""

    def __init__(self):
        super().__init__()
        self.frozen = torch.nn.BatchNorm1d(1).eval()
        self.seen = []

    def forward(self, images):
        self.seen.append((self.training, self.frozen.training, torch.is_inference_mode_enabled()))
        return images.float().mean(dim=(1, 2))


@pytest.fixture
def cache(monkeypatch):
    """Images whose grey value is their row; the loader yields them in reverse order, two at a time."""

    def evaluation_batches(cache, table, *, batch_size):
        rows = torch.arange(len(table)).flip(0)
        for some in rows.split(batch_size):
            yield types.SimpleNamespace(images=some[:, None, None].expand(-1, 4, 4).to(torch.uint8), rows=some)

    loader = types.ModuleType("muralab.data.loader")
    loader.evaluation_batches = evaluation_batches
    monkeypatch.setitem(__import__("sys").modules, "muralab.data.loader", loader)
    return types.SimpleNamespace(readable=lambda table: table[table["image"] != "broken"])


def index(n):
    names = [f"i{i}" for i in range(n)]
    return pd.DataFrame({"image": names, "study": names, "patient": "p", "part": "wrist", "label": 0, "path": names})


def test_each_image_gets_its_own_logit(cache):
    found = predict_images(Brightness(), cache, index(7), batch_size=2)
    assert tuple(found.columns) == PREDICTION_COLUMNS
    assert found["logit"].tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert found["logit"].dtype == np.float32


def test_unreadable_images_are_left_out(cache):
    table = index(3)
    table.loc[1, "image"] = "broken"
    assert predict_images(Brightness(), cache, table)["image"].tolist() == ["i0", "i2"]


def test_each_module_keeps_its_mode(cache):
    network = Brightness().train()
    network.frozen.eval()
    predict_images(network, cache, index(1))
    assert network.seen == [(False, False, True)]
    assert (network.training, network.frozen.training) == (True, False)


def test_the_mode_is_restored_after_an_error(cache):
    network = Brightness().train()
    network.forward = lambda images: 1 / 0
    with pytest.raises(ZeroDivisionError):
        predict_images(network, cache, index(1))
    assert network.training


def table(logits, studies, labels=None):
    n = len(logits)
    return pd.DataFrame(
        {
            "image": [f"i{i}" for i in range(n)],
            "study": studies,
            "patient": studies,
            "part": "wrist",
            "label": labels or [0] * n,
            "logit": logits,
        }
    )


def test_a_study_is_the_mean_of_its_images():
    studies = to_studies(table([2.0, -1.0, 0.5], ["b", "a", "b"], [1, 0, 1]))
    mean = (1 / (1 + np.exp(-2.0)) + 1 / (1 + np.exp(-0.5))) / 2
    assert studies["study"].tolist() == ["a", "b"]
    assert studies["n_views"].tolist() == [1, 2]
    assert studies["label"].tolist() == [0, 1]
    assert studies["probability"][1] == pytest.approx(mean, abs=1e-12)
    assert studies["logit"].tolist() == pytest.approx([-1.0, np.log(mean / (1 - mean))], abs=1e-12)


def test_extreme_logits_stay_finite():
    studies = to_studies(table([800.0, 700.0, -800.0], ["a", "a", "b"]))
    assert studies["logit"].tolist() == pytest.approx([700 + np.log(2), -800])


def test_a_temperature_applies_to_its_own_level():
    rows = table([2.0, -1.0], ["a", "a"])
    assert level_rows(rows, level="image", scaling=Scaling(temperature=2))["probability"][0] == pytest.approx(
        1 / (1 + np.exp(-1))
    )
    study = level_rows(rows, level="study", scaling=Scaling(temperature=2))
    assert study["probability"][0] == pytest.approx(1 / (1 + np.exp(-study["logit"][0] / 2)))


@pytest.mark.parametrize(
    ("break_table", "message"),
    [
        (lambda t: t.iloc[:0], "The predictions are empty"),
        (lambda t: t.drop(columns=["logit", "part"]), "lack the columns part, logit"),
        (lambda t: t.assign(logit=[0.1, np.nan, np.inf]), "2 of 3 predicted images have no finite logit(.|\n)*1. i1"),
        (lambda t: t.assign(logit=["0.1", "x", "0"]), "1 of 3 predicted images have no finite logit"),
        (lambda t: t.assign(label=[0, 1, 2]), "1 of 3 predicted images have a label other than 0 or 1"),
        (lambda t: t.assign(image="same"), "2 of 3 predicted images occur more than once"),
        (lambda t: t.assign(patient=["p", None, "p"]), "have no study or no patient(.|\n)*i1"),
        (lambda t: t.assign(label=[0, 1, 0]), "1 of 2 studies have more than one label(.|\n)*1. a"),
        (lambda t: t.assign(patient=["p", "q", "p"]), "1 of 2 studies have more than one patient"),
    ],
)
def test_a_broken_table_is_refused(break_table, message):
    with pytest.raises(DataError, match=message):
        check_predictions(break_table(table([0.1, 0.2, 0.3], ["a", "a", "b"])))

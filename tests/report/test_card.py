"""The model's card."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace

import pandas as pd

from muralab.report import (
    Context,
    Entry,
    model_card,
)

MakeEntry = Callable[..., Entry]
N_RESAMPLES = 100


def test_card_states_use_limits_and_figures(entry: MakeEntry, context: Context) -> None:
    card = model_card(entry(skill=0.5), context, n_resamples=N_RESAMPLES)
    assert "Not a medical device" in card
    assert "Synthetic data" in card
    assert re.search(r"\| AUROC \| 0\.\d{3} \[0\.\d{3}, [01]\.\d{3}\] \|", card)
    assert "Threshold 0.450" in card


def test_card_of_an_untested_model_says_so(entry: MakeEntry, context: Context) -> None:
    card = model_card(entry(test=None, calibration=None), context)
    assert "No test figures: this model has not met the test set." in card
    assert "Uncalibrated, at 0.5" in card


def test_card_states_the_errors_of_the_audit(entry: MakeEntry, context: Context) -> None:
    found = pd.DataFrame({"kind": ["leaking picture"], "severity": ["error"], "findings": [5]})
    card = model_card(entry(), replace(context, audit=("All were read.", found)), n_resamples=N_RESAMPLES)
    assert "Audit: All were read." in card
    assert "can make the figures below wrong: leaking picture (5)" in card


def test_card_states_the_models_own_image_size(entry: MakeEntry, context: Context) -> None:
    one, several = replace(entry(), resolved={"image_size": "112"}), replace(context, image_size="112 / 128")
    assert "image size 112 px" in model_card(one, several, n_resamples=N_RESAMPLES)

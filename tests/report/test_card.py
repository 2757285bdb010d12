"""The model's card."""

from __future__ import annotations

import re
from dataclasses import replace

import pandas as pd

from muralab.evaluation.calibration import Calibration
from muralab.evaluation.metrics import METRICS
from muralab.report.card import model_card


def test_card_states_use_limitations_and_metrics(build_model, context) -> None:
    card = model_card(build_model(skill=0.5), context)
    assert "Not a medical device" in card
    assert "Synthetic data" in card
    assert re.search(r"\| AUROC \| 0\.\d{3} \[0\.\d{3}, [01]\.\d{3}\] \|", card)
    assert "threshold 0.450" in card


def test_card_has_every_metric(build_model, context) -> None:
    card = model_card(build_model(skill=0.5), context)
    assert [metric.title for metric in METRICS.values() if f"| {metric.title} |" not in card] == []


def test_card_states_the_warnings_of_the_calibration(build_model, context) -> None:
    card = model_card(build_model(calibration=Calibration(warnings=("It rests on 3 patients.",))), context)
    assert "- **Good: It rests on 3 patients.**" in card


def test_card_states_the_phase_of_the_weights(build_model, context) -> None:
    card = model_card(build_model(training={"kept_phase": "upper"}), context)
    assert "best epoch of the upper phase" in card


def test_card_of_an_untested_model_has_the_reason(build_model, context) -> None:
    card = model_card(build_model(test=None, calibration=None), context)
    assert "No test results: this model was not evaluated on the test set." in card
    assert "uncalibrated, at 0.5" in card


def test_card_states_the_errors_of_the_audit(build_model, context) -> None:
    found = pd.DataFrame({"kind": ["leaking picture"], "severity": ["error"], "findings": [5]})
    card = model_card(build_model(), replace(context, audit=("All were read.", found)))
    assert "Audit: All were read." in card
    assert "can make the metrics below wrong: leaking picture (5)" in card


def test_card_states_the_models_own_image_size(build_model, context) -> None:
    model = build_model(training={"values": {"image_size": "112"}})
    assert "image size 112 px" in model_card(model, replace(context, image_size="112 / 128"))

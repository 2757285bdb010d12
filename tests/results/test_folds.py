"""Figures over folds are those of all studies, each as its own fold's model answered."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from sklearn.metrics import cohen_kappa_score, roc_auc_score

from muralab.errors import DataError
from muralab.evaluation.calibration import Calibration
from muralab.evaluation.evaluated_model import EvaluatedModel, paired_difference
from muralab.evaluation.metrics import METRICS
from muralab.evaluation.pooled_model import pool_models
from muralab.results.folds import fold_lines, fold_metrics, fold_table, pooled_studies


def model_of(fold: int, n: int = 40, first: int | None = None) -> EvaluatedModel:
    """A model that ranks its studies fairly well, with a calibration and a threshold of its own."""
    rng = np.random.default_rng(fold)
    names = [f"p{number:04d}" for number in range(n * fold if first is None else first, n * (fold + 1))]
    labels = np.arange(len(names)) % 2
    logits = (2 + fold) * (labels - 0.5) + rng.normal(0, 2, len(names)) + fold
    test = pd.DataFrame(
        {"image": names, "study": names, "patient": names, "part": "wrist", "label": labels, "logit": logits}
    )
    calibration = Calibration(study_temperature=1.0 + fold, study_intercept=-0.5 * fold, threshold=0.3 + 0.2 * fold)
    return EvaluatedModel(recipe="cnn", title="CNN", run_id=f"run{fold}", test=test, calibration=calibration)


def rng_signs(model: EvaluatedModel) -> np.ndarray:
    """Of a third of the images, the sign is turned."""
    assert model.test is not None
    return np.where(np.random.default_rng(7).random(len(model.test)) < 1 / 3, -1.0, 1.0)


@pytest.fixture
def models() -> list[EvaluatedModel]:
    return [model_of(fold) for fold in range(3)]


def test_ranking_compares_calibrated_probabilities_of_all_folds(models: list[EvaluatedModel]) -> None:
    studies = pd.concat([model.studies() for model in models])
    found = pool_models(models).intervals()["auroc"]
    assert found.estimate == pytest.approx(roc_auc_score(studies["label"], studies["calibrated"]), abs=1e-12)
    assert found.low < found.estimate < found.high


def test_every_study_is_called_at_its_own_folds_threshold(models: list[EvaluatedModel]) -> None:
    studies = pd.concat([model.studies() for model in models])
    found = pool_models(models).intervals()["kappa"]
    assert found.estimate == pytest.approx(cohen_kappa_score(studies["label"], studies["called"]), abs=1e-12)


def test_one_fold_has_the_models_own_figures() -> None:
    model = model_of(1)
    found = pool_models([model]).intervals()
    for name in METRICS:
        assert found[name].estimate == pytest.approx(model.intervals()[name].estimate, abs=1e-12), name


def test_more_patients_give_a_narrower_interval(models: list[EvaluatedModel]) -> None:
    alone, together = models[0].intervals()["auroc"], pool_models(models).intervals()["auroc"]
    assert together.high - together.low < alone.high - alone.low


def test_the_table_has_each_fold_all_of_them_and_their_mean(models: list[EvaluatedModel]) -> None:
    pooled = pool_models(models)
    table = fold_table(pooled)
    assert table["fold"].tolist() == ["1", "2", "3", "all", "mean"]
    own = [model.intervals()["auroc"].estimate for model in models]
    assert table["auroc"].tolist() == [*own, pooled.intervals()["auroc"].estimate, pytest.approx(np.mean(own))]
    assert table.set_index("fold").loc["all", ["studies", "patients", "abnormal"]].tolist() == [120, 120, 60]
    assert fold_metrics(pooled, table)["folds_mean_study_auroc"] == pytest.approx(np.mean(own))
    assert fold_lines(pooled, table)[0].startswith("cnn, 3 folds: 120 studies of 120 patients")


def test_the_studies_of_all_folds_name_their_fold_and_call(models: list[EvaluatedModel]) -> None:
    studies = pooled_studies(pool_models(models)).set_index("study")
    for fold, model in enumerate(models, start=1):
        own = model.studies().set_index("study")
        assert (studies.loc[own.index, "fold"] == fold).all()
        assert studies.loc[own.index, "called"].equals(own["called"])


def test_two_recipes_are_compared_over_all_patients(models: list[EvaluatedModel]) -> None:
    worse = [replace(model, test=model.test.assign(logit=model.test["logit"] * rng_signs(model))) for model in models]
    a, b = pool_models(models), pool_models(worse)
    difference = paired_difference(a, b)
    estimates = [one.intervals()["auroc"].estimate for one in (a, b)]
    assert difference.estimate == pytest.approx(estimates[0] - estimates[1])
    assert difference.low > 0
    assert paired_difference(a, pool_models(models)).estimate == 0


def test_some_studies_of_all_folds(models: list[EvaluatedModel]) -> None:
    chosen = models[0].studies()["study"].tolist()
    assert pool_models(models).on(chosen).intervals()["kappa"] == models[0].intervals()["kappa"]


def test_a_patient_of_two_folds_is_refused() -> None:
    with pytest.raises(DataError, match=r"1 patients are in several test folds:\n  1\. p0039"):
        pool_models([model_of(0), model_of(1, first=39)])

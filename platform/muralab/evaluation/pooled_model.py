"""The models of all folds as one: every patient is answered by the model that was trained without their fold.

Each study has the probability that its own model calibrated, and is called at its own model's threshold. An AUROC over
folds therefore also compares studies that different models have ranked. S: studies of all folds.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from muralab.errors import DataError, numbered
from muralab.evaluation.evaluated_model import EvaluatedModel, SetName
from muralab.evaluation.intervals import ClusteredSample
from muralab.evaluation.predictions import Level
from muralab.serving.scaling import Scaling


@dataclass(frozen=True, kw_only=True, eq=False)
class PooledModel(EvaluatedModel):
    """What the models of several folds answer together; made by `pool_models`."""

    folds: tuple[EvaluatedModel, ...]
    """One per fold, in their order."""

    @property
    def is_pooled(self) -> bool:
        """True: it has neither a training nor a calibration of its own."""
        return True

    def threshold_of(self, level: Level) -> float:
        """NaN for studies: each fold has its own."""
        return math.nan if level == "study" else 0.5

    def on(self, studies: Sequence[str], set_name: SetName = "test") -> EvaluatedModel:
        """The same models on some of their test studies; a fold may have none of them."""
        chosen = set(studies)
        kept = [fold.on(studies, set_name) for fold in self.folds if chosen & set(fold.predictions()["study"])]
        return pool_models(kept, title=self.title, name=self.name)

    def _build_studies(self, set_name: SetName) -> pd.DataFrame:
        each = [fold.studies(set_name).assign(fold=number) for number, fold in enumerate(self.folds, start=1)]
        return pd.concat(each, ignore_index=True).sort_values("study", kind="stable", ignore_index=True)

    def _sample(self, set_name: SetName, level: Level, scaling: Scaling) -> ClusteredSample:
        if level != "study":
            return super()._sample(set_name, level, scaling)
        studies = self.studies(set_name)
        thresholds = np.array([fold.threshold for fold in self.folds])[studies["fold"].to_numpy() - 1]
        return ClusteredSample(studies.assign(probability=studies["calibrated"]), threshold=thresholds)


def pool_models(models: Sequence[EvaluatedModel], *, title: str | None = None, name: str = "") -> PooledModel:
    """The models of one recipe over several folds as one.

    Args:
        models: one per fold, in the order of the folds.
        title: of all of them; None: that of the first.
        name: see `EvaluatedModel`.

    Raises:
        DataError: a fold's predictions cannot be evaluated, or two folds have a patient in common.
    """
    tables = [model.predictions().assign(fold=fold) for fold, model in enumerate(models, start=1)]
    pooled = pd.concat(tables, ignore_index=True)
    folds = pooled.groupby("patient")["fold"].nunique()
    if (folds > 1).any():
        names = [str(patient) for patient in folds.index[folds > 1]]
        raise DataError(numbered(f"{len(names)} patients are in several test folds:", names))
    first = models[0]
    return PooledModel(
        recipe=first.recipe,
        title=first.title if title is None else title,
        run_id=", ".join(model.run_id for model in models),
        name=name,
        test=pooled.drop(columns="fold"),
        folds=tuple(models),
    )

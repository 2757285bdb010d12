"""A model with its predictions on validation and test, and every figure that follows from them, computed once.

It knows neither trials nor MLflow: `muralab.results` builds it from a trial that was just tested, or from an MLflow
run. Report, model card, gate, comparison, gallery and tables all take it. Shapes: S studies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar

import pandas as pd

from muralab.errors import DataError
from muralab.evaluation.bootstrap import Interval, bootstrap
from muralab.evaluation.bootstrap import paired_difference as paired_difference_of_tables
from muralab.evaluation.calibration import Calibration
from muralab.evaluation.metrics import METRICS
from muralab.evaluation.predictions import Level, check_predictions, level_rows, to_studies

SetName = Literal["validation", "test"]
T = TypeVar("T")
CHANCE_AUROC = 0.5
NOT_TESTED = "this model was not evaluated on the test set"
NO_VALIDATION = "no validation predictions were kept"


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """How a model was trained: what learning curves and the study's table show."""

    values: Mapping[str, str] = field(default_factory=dict)
    """Every resolved value that the run was carried out with, such as `full.lr`."""
    history: pd.DataFrame = field(default_factory=pd.DataFrame)
    """Index: global epoch from 1. Columns train_loss, train_accuracy, val_loss, val_accuracy, val_auroc,
    val_study_auroc, phase (1 or 2), lr."""
    summary: Mapping[str, float] = field(default_factory=dict)
    """Values at each phase's best epoch: upper_train_loss, ..., full_val_accuracy; test_loss, test_accuracy."""
    from_scratch: bool = False
    """Whether the network has no pretrained backbone, so that the study's table has no upper row for it."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EvaluatedModel:
    """One trained model with its predictions. Figures are computed when first asked for, and kept."""

    recipe: str
    """Name of its recipe, such as `inception_add_gate`."""
    title: str
    """The same for people, such as `InceptionV3 with an add gate`; unique among models that are shown together."""
    run_id: str
    name: str = ""
    """Unique among models that are shown together, such as `cnn-seed1`; empty: the recipe's name."""
    validation: pd.DataFrame | None = None
    """Predictions of the validation set, one row per image; None where they were not kept."""
    test: pd.DataFrame | None = None
    """Predictions of the test set, one row per image; None for a model that was not evaluated on it."""
    calibration: Calibration | None = None
    """Fitted on the validation set; None: evaluated at 0.5, uncalibrated."""
    objective: float = math.nan
    """The validation value that the model was selected by; higher is better. NaN where it is not known."""
    training: TrainingRecord = field(default_factory=TrainingRecord)
    _cache: dict[object, object] = field(default_factory=dict, init=False, repr=False)

    @property
    def label(self) -> str:
        """Its name in tables."""
        return self.name or self.recipe

    @property
    def threshold(self) -> float:
        """The operating point on the calibrated probability of a study."""
        return self.threshold_of("study")

    def threshold_of(self, level: Level) -> float:
        """The operating point of a level: fitted for studies, 0.5 for images."""
        return 0.5 if self.calibration is None else self.calibration.threshold_of(level)

    def temperature_of(self, level: Level) -> float:
        """What the logits of a level are divided by."""
        return 1.0 if self.calibration is None else self.calibration.temperature(level)

    @property
    def selection_score(self) -> float:
        """What selects the best model: the objective, or else the validation AUROC of studies. Never a test figure."""
        if not math.isnan(self.objective):
            return self.objective
        value = self.training.summary.get("full_val_study_auroc", math.nan)
        if math.isnan(value) and "val_study_auroc" in self.training.history:
            value = float(self.training.history["val_study_auroc"].max())
        return value

    @property
    def beats_chance(self) -> bool:
        """Whether the lower end of the test AUROC's interval (studies) lies above 0.5."""
        interval = self.intervals().get("auroc")
        return interval is not None and interval.low > CHANCE_AUROC

    def problem(self, set_name: SetName = "test") -> str | None:
        """Why there are no figures of a set; None where there are."""
        return self._once(("problem", set_name), lambda: self._find_problem(set_name))

    def predictions(self, set_name: SetName = "test") -> pd.DataFrame:
        """Predictions of a set, one row per image.

        Raises:
            DataError: there are none, or they cannot be evaluated.
        """
        problem = self.problem(set_name)
        table = self.test if set_name == "test" else self.validation
        if problem is not None or table is None:
            raise DataError(f"{self.title}: {problem}")
        return table

    def studies(self, set_name: SetName = "test") -> pd.DataFrame:
        """One row per study: `to_studies` with `calibrated` (probability) and `called` (bool, at the threshold), [S].

        Raises:
            DataError: as `predictions`.
        """
        return self._once(("studies", set_name), lambda: self._build_studies(set_name))

    def intervals(self, set_name: SetName = "test", level: Level = "study") -> Mapping[str, Interval]:
        """Every registered metric with its patient-clustered interval; empty where `problem` says why.

        Studies are evaluated calibrated, at the fitted threshold; images at 0.5, uncalibrated, as in the study's table.
        """
        return self._once(("intervals", set_name, level), lambda: self._bootstrap(set_name, level))

    def on(self, studies: Sequence[str], set_name: SetName = "test") -> EvaluatedModel:
        """The same model on some of a set's studies, for subgroups."""
        table = self.predictions(set_name)
        return replace(self, **{set_name: table[table["study"].isin(set(studies))]})

    def _once(self, key: object, compute: Callable[[], T]) -> T:
        if key not in self._cache:
            self._cache[key] = compute()
        return self._cache[key]  # type: ignore[return-value]

    def _find_problem(self, set_name: SetName) -> str | None:
        table = self.test if set_name == "test" else self.validation
        if table is None:
            return NOT_TESTED if set_name == "test" else NO_VALIDATION
        try:
            check_predictions(table)
        except DataError as error:
            return str(error)
        return None

    def _build_studies(self, set_name: SetName) -> pd.DataFrame:
        table = self.predictions(set_name)
        rows = level_rows(table, level="study", temperature=self.temperature_of("study"))
        calibrated = rows["probability"]
        return to_studies(table).assign(calibrated=calibrated, called=calibrated >= self.threshold)

    def _bootstrap(self, set_name: SetName, level: Level) -> Mapping[str, Interval]:
        if self.problem(set_name) is not None:
            return {}
        calibrated = level == "study"
        return bootstrap(
            self.predictions(set_name),
            level=level,
            metrics=list(METRICS),
            threshold=self.threshold_of(level),
            temperature=self.temperature_of(level) if calibrated else 1.0,
        )


def paired_difference(
    a: EvaluatedModel, b: EvaluatedModel, *, metric: str = "auroc", level: Level = "study"
) -> Interval:
    """How much a test metric of `a` exceeds that of `b` on the same images, each at its own calibration and threshold.

    Computed once for a pair, metric and level.

    Raises:
        DataError: a model has no test predictions, or the two were evaluated on different images.
    """
    return a._once(
        ("difference", b, metric, level),
        lambda: paired_difference_of_tables(
            a.predictions(),
            b.predictions(),
            level=level,
            metric=metric,
            threshold_a=a.threshold_of(level),
            threshold_b=b.threshold_of(level),
            temperature_a=a.temperature_of(level),
            temperature_b=b.temperature_of(level),
        ),
    )


def best_of(models: Sequence[EvaluatedModel]) -> EvaluatedModel | None:
    """The model that validation selected, or the only one; None where several have no known score."""
    scored = [model for model in models if not math.isnan(model.selection_score)]
    if scored:
        return max(scored, key=lambda model: model.selection_score)
    return models[0] if len(models) == 1 else None

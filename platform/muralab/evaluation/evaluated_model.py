"""A trained model with its predictions on validation and test; every value that follows from them is computed once.

It knows neither trials nor MLflow: `muralab.results` builds it from a trial that was just tested, or from an MLflow
run. Report, model card, gate, comparison, gallery and tables all take it. Shapes: S studies, T thresholds.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, TypeVar, cast

import pandas as pd

from muralab.errors import DataError
from muralab.evaluation.calibration import Calibration
from muralab.evaluation.intervals import ClusteredSample, Interval, Resampled, metric_interval, resample
from muralab.evaluation.metrics import METRICS
from muralab.evaluation.paired_difference import check_same_images, difference_interval
from muralab.evaluation.predictions import UNCALIBRATED, Level, check_predictions, level_rows, to_studies
from muralab.evaluation.weighted_sums import Floats
from muralab.serving.scaling import Scaling

SetName = Literal["validation", "test"]
T = TypeVar("T")
CHANCE_AUROC = 0.5
MIXED_PHASES = "mixed"
"""Stands for the phase of an ensemble whose networks kept the weights of different phases."""
NOT_TESTED = "this model was not evaluated on the test set"
NO_VALIDATION = "no validation predictions were kept"


@dataclass(frozen=True, kw_only=True)
class TrainingRecord:
    """How a model was trained: what learning curves and the study's table show."""

    values: Mapping[str, str] = field(default_factory=dict)
    """Every resolved value that the run was trained with, such as `full.lr`."""
    history: pd.DataFrame = field(default_factory=pd.DataFrame)
    """Index: global epoch from 1. Columns train_loss, train_accuracy, val_loss, val_accuracy, val_auroc,
    val_study_auroc, phase (1 or 2), lr."""
    summary: Mapping[str, float] = field(default_factory=dict)
    """Values at each phase's best epoch: upper_train_loss, ..., full_val_accuracy; test_loss, test_accuracy.
    `train_*` is measured while training, on augmented images; `eval_train_*` afterwards, like the other sets."""
    kept_phase: str = ""
    """`upper` or `full`: the phase whose weights were tested; MIXED_PHASES for networks of an ensemble that differ in
    it. Empty in runs of versions that always kept full's."""
    from_scratch: bool = False
    """Whether the network has no pretrained backbone, so that the study's table has no upper row for it."""

    def train_value(self, phase: str, measure: str) -> tuple[float, bool]:
        """The training images' `loss` or `accuracy` after a phase, and whether it was measured in evaluation mode."""
        evaluated = self.summary.get(f"{phase}_eval_train_{measure}", math.nan)
        if not math.isnan(evaluated):
            return evaluated, True
        return self.summary.get(f"{phase}_train_{measure}", math.nan), False

    @property
    def tested_phase(self) -> str:
        """The phase whose weights were tested; "full", the last one, also where an ensemble's networks differ in it."""
        return "full" if self.kept_phase in ("", MIXED_PHASES) else self.kept_phase


@dataclass(frozen=True, kw_only=True, eq=False)
class Curves:
    """Receiver operating and precision-recall curve of a set of studies, from the strictest threshold on."""

    false_positive_rate: Floats
    """At each distinct threshold, starting at 0, [T + 1]."""
    sensitivity: Floats
    """At each distinct threshold, starting at 0, [T + 1]."""
    precision: Floats
    """At each distinct threshold, [T]."""
    recall: Floats
    """At each distinct threshold, [T]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EvaluatedModel:
    """One trained model with its predictions. Values are computed when first asked for, and kept."""

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
    def is_pooled(self) -> bool:
        """Whether it stands for the models of several folds, see `PooledModel`."""
        return False

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

    def scaling_of(self, level: Level) -> Scaling:
        """What calibrates the logits of a level."""
        return UNCALIBRATED if self.calibration is None else self.calibration.scaling(level)

    @property
    def selection_score(self) -> float:
        """What selects the best model: the objective, or else the validation AUROC of studies. Never a test value."""
        if not math.isnan(self.objective):
            return self.objective
        value = self.training.summary.get(f"{self.training.tested_phase}_val_study_auroc", math.nan)
        if math.isnan(value) and "val_study_auroc" in self.training.history:
            value = float(self.training.history["val_study_auroc"].max())
        return value

    @property
    def beats_chance(self) -> bool:
        """Whether the lower bound of the test AUROC (studies) lies above 0.5."""
        interval = self.intervals().get("auroc")
        return interval is not None and interval.low > CHANCE_AUROC

    def problem(self, set_name: SetName = "test") -> str | None:
        """Why a set cannot be evaluated; None where it can."""
        return self._once(("problem", set_name), lambda: self._find_problem(set_name))

    def predictions(self, set_name: SetName = "test") -> pd.DataFrame:
        """Predictions of a set, one row per image.

        Raises:
            DataError: there are none, or they cannot be evaluated.
        """
        problem, table = self.problem(set_name), self._table(set_name)
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
        if self.problem(set_name) is not None:
            return {}
        scaling = self.scaling_of(level) if level == "study" else UNCALIBRATED
        return self._once(
            ("intervals", set_name, level),
            lambda: {name: metric_interval(self._resampled(set_name, level, scaling), name) for name in METRICS},
        )

    def resampled(self, level: Level = "study") -> Resampled:
        """Every registered metric of the test set under each draw of patients, calibrated: for paired differences.

        Raises:
            DataError: as `predictions`.
        """
        return self._resampled("test", level, self.scaling_of(level))

    def curves(self) -> Curves | None:
        """Receiver operating and precision-recall curve of the test studies; None where they are of one class.

        Raises:
            DataError: as `predictions`.
        """
        return self._once("curves", self._build_curves)

    def on(self, studies: Sequence[str], set_name: SetName = "test") -> EvaluatedModel:
        """The same model on some of a set's studies, for subgroups; the model itself for all of them.

        Raises:
            DataError: as `predictions`.
        """
        chosen, table = frozenset(studies), self.predictions(set_name)
        kept = table["study"].isin(chosen)
        if kept.all():
            return self
        return self._once(("on", set_name, chosen), lambda: replace(self, **{set_name: table[kept]}))

    def _once(self, key: object, compute: Callable[[], T]) -> T:
        if key not in self._cache:
            self._cache[key] = compute()
        return cast(T, self._cache[key])

    def _table(self, set_name: SetName) -> pd.DataFrame | None:
        return self.test if set_name == "test" else self.validation

    def _find_problem(self, set_name: SetName) -> str | None:
        table = self._table(set_name)
        if table is None:
            return NOT_TESTED if set_name == "test" else NO_VALIDATION
        try:
            check_predictions(table)
        except DataError as error:
            return str(error)
        return None

    def _build_studies(self, set_name: SetName) -> pd.DataFrame:
        table = self.predictions(set_name)
        rows = level_rows(table, level="study", scaling=self.scaling_of("study"))
        calibrated = rows["probability"]
        return to_studies(table).assign(calibrated=calibrated, called=calibrated >= self.threshold)

    def _resampled(self, set_name: SetName, level: Level, scaling: Scaling) -> Resampled:
        def compute() -> Resampled:
            return resample(self._sample(set_name, level, scaling), list(METRICS))

        return self._once(("resampled", set_name, level, scaling), compute)

    def _sample(self, set_name: SetName, level: Level, scaling: Scaling) -> ClusteredSample:
        rows = level_rows(self.predictions(set_name), level=level, scaling=scaling)
        return ClusteredSample(rows, threshold=self.threshold_of(level))

    def _build_curves(self) -> Curves | None:
        from sklearn.metrics import precision_recall_curve, roc_curve

        studies = self.studies()
        labels, probabilities = studies["label"].to_numpy(), studies["calibrated"].to_numpy()
        if len(set(labels.tolist())) < 2:
            return None
        false_positive_rate, sensitivity, _ = roc_curve(labels, probabilities, drop_intermediate=False)
        precision, recall, _ = precision_recall_curve(labels, probabilities)
        # scikit-learn goes from the loosest threshold on, and adds a point at recall 0 that no threshold reaches.
        return Curves(
            false_positive_rate=false_positive_rate,
            sensitivity=sensitivity,
            precision=precision[-2::-1],
            recall=recall[-2::-1],
        )


def paired_difference(
    a: EvaluatedModel, b: EvaluatedModel, *, metric: str = "auroc", level: Level = "study"
) -> Interval:
    """How much a test metric of `a` exceeds that of `b` on the same images, each at its own calibration and threshold.

    Computed once for a pair, metric and level.

    Raises:
        DataError: a model has no test predictions, or the two were evaluated on different images.
    """

    def compute() -> Interval:
        check_same_images(a.predictions(), b.predictions())
        return difference_interval(a.resampled(level), b.resampled(level), metric)

    return a._once(("difference", b, metric, level), compute)


def best_of(models: Sequence[EvaluatedModel]) -> EvaluatedModel | None:
    """The model that validation selected, or the only one; None where several have no known score."""
    scored = [model for model in models if not math.isnan(model.selection_score)]
    if scored:
        return max(scored, key=lambda model: model.selection_score)
    return models[0] if len(models) == 1 else None

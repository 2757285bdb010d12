"""The promotion gate: may a candidate replace the champion? A pure function of test predictions on the same studies.

A first champion must beat chance. A later one must show a gain in the objective (the lower end of a one-sided 80%
interval of the paired difference lies above 0) and must not be much worse (the lower end of the 95% interval lies
above -margin). Guards (sensitivity and specificity at the champion's operating point, kappa at each model's own
threshold, Brier score, each body part) refuse on evidence only: a guard metric got worse by more than its margin, and
its whole interval lies on the side of a loss. A threshold must be of use in itself: kappa above 0, and shown to be
above 0 where it is lower than the champion's by more than the margin. How often this accepts worse, equal and better
models: docs/evidence.md, from bench/gate.py.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace

from muralab.errors import SettingsError
from muralab.evaluation.evaluated_model import CHANCE_AUROC, EvaluatedModel, paired_difference
from muralab.evaluation.intervals import CONFIDENCE, N_RESAMPLES, Interval, Resampled, metric_interval
from muralab.evaluation.matched_point import matched_differences
from muralab.evaluation.metrics import METRICS, check_metrics
from muralab.evaluation.paired_difference import check_same_images, difference_interval
from muralab.evaluation.predictions import Level

DEFAULT_OBJECTIVE = "val_study_auroc"
MIN_STUDIES = 20
"""A body part with fewer test studies is not checked: a single study would decide."""
GAIN_CONFIDENCE = 0.8
"""Of the one-sided interval that must show a gain: about this share of equal candidates is refused by it alone.

At 0.8 the demand costs a candidate that is better by 0.025 nothing where a test set has some 240 studies or fewer: the
margin demands more there. On larger sets it keeps equal models from replacing each other back and forth.
"""


@dataclass(frozen=True, kw_only=True)
class Margins:
    """How much worse than the champion a candidate may be, in the units of each metric."""

    objective: float = 0.025
    """The lower end of the objective's paired interval must lie above minus this."""
    sensitivity: float = 0.05
    """Drop in sensitivity of studies, both models at the champion's specificity."""
    specificity: float = 0.05
    """Drop in specificity of studies, both models at the champion's sensitivity."""
    kappa: float = 0.05
    """Drop in Cohen's kappa of studies, each model at its own threshold."""
    part: float = 0.05
    """Drop of the objective on one body part, for models of several parts."""
    brier: float = 0.02
    """Increase of the Brier score of calibrated study probabilities."""

    def __post_init__(self) -> None:
        for field_ in fields(self):
            value = getattr(self, field_.name)
            if not 0 <= value <= 1:
                raise SettingsError(f"The gate's margin for {field_.name} must lie in [0, 1]; got {value}.")

    @property
    def rule(self) -> str:
        """The rule of the gate in short, for the version's tags: earlier versions of the platform had another."""
        gain = f"gain at {100 * GAIN_CONFIDENCE:.0f}%"
        return f"{gain}, margin {self.objective:g}, guards on evidence, kappa above chance"


@dataclass(frozen=True, kw_only=True)
class Check:
    """One condition of the gate."""

    passed: bool
    text: str
    """A sentence with the figure, the requirement, and whether it is met."""


@dataclass(frozen=True, kw_only=True)
class Decision:
    """Whether a candidate is accepted as champion, and why."""

    accepted: bool
    checks: tuple[Check, ...] = ()
    interval: Interval | None = None
    """Paired difference of the objective, candidate minus champion; for a first champion, its own AUROC."""
    notes: tuple[str, ...] = ()
    """What the comparison is based on, where that is not the whole test set."""

    @property
    def reasons(self) -> list[str]:
        """What the decision is based on, then the failed checks of a refused candidate or all of an accepted one."""
        return [*self.notes, *(check.text for check in self.checks if self.accepted or not check.passed)]

    def with_notes(self, notes: Sequence[str]) -> Decision:
        """The same decision with sentences on what it is based on before its reasons."""
        return replace(self, notes=(*notes, *self.notes))

    def __str__(self) -> str:
        return f"{'accepted' if self.accepted else 'refused'}: {' '.join(self.reasons)}"


@dataclass(frozen=True, kw_only=True)
class Differences:
    """Paired differences on the test set, candidate minus champion."""

    level: Level
    """Level of the objective."""
    metric: str
    """Metric of the objective, a name in `METRICS`."""
    champion: str
    """The champion's title."""
    objective: Interval
    """With its 95% interval."""
    gain: Interval
    """The same with the two-sided interval whose ends are the one-sided ones of `GAIN_CONFIDENCE`."""
    sensitivity: Interval
    """Of studies, at the champion's specificity."""
    specificity: Interval
    """Of studies, at the champion's sensitivity."""
    kappa: Interval
    """Of studies, each model at its own threshold."""
    own_kappa: Interval
    """The candidate's own, at its threshold."""
    brier: Interval
    """Of studies."""
    parts: Mapping[str, Interval] = field(default_factory=dict)
    """`hand (80 studies)` -> difference of the objective on that body part."""


def refusal(reason: str) -> Decision:
    """Refuse a candidate without a comparison."""
    return Decision(accepted=False, checks=(Check(passed=False, text=reason),))


def read_objective(name: str) -> tuple[Level, str]:
    """`val_study_auroc` -> ("study", "auroc"); `val_auroc` -> ("image", "auroc").

    Raises:
        SettingsError: the metric is unknown.
    """
    metric = name.removeprefix("val_")
    level: Level = "study" if metric.startswith("study_") else "image"
    (known,) = check_metrics([metric.removeprefix("study_")])
    return level, known


def decide(
    candidate: EvaluatedModel,
    champion: EvaluatedModel | None,
    *,
    objective: str = DEFAULT_OBJECTIVE,
    margins: Margins | None = None,
) -> Decision:
    """Compare a candidate with the champion, or with chance where there is no champion.

    Args:
        candidate: the model to promote.
        champion: the model to replace, evaluated on the same images; None: there is none.
        objective: the validation metric that models are selected by; the gate takes the same metric on the test set.
        margins: how much worse the candidate may be.

    Raises:
        DataError: predictions are missing or invalid, or the two models were evaluated on different images.
        SettingsError: the objective's metric is unknown.
    """
    level, metric = read_objective(objective)
    if champion is None:
        return _compare_with_chance(candidate)
    return apply_margins(measure_differences(candidate, champion, level, metric), margins or Margins())


def measure_differences(candidate: EvaluatedModel, champion: EvaluatedModel, level: Level, metric: str) -> Differences:
    """Every paired difference that the gate checks, each model with its own calibration.

    Raises:
        DataError: predictions are missing or invalid, or of different images.
    """
    check_same_images(candidate.predictions(), champion.predictions())
    deciding = candidate.resampled(level), champion.resampled(level)
    found = measure_resampled(
        candidate.resampled(), champion.resampled(), champion.threshold, deciding=deciding, metric=metric
    )
    parts = {
        f"{part} ({len(studies)} studies)": paired_difference(
            candidate.on(studies), champion.on(studies), metric=metric, level=level
        )
        for part, studies in _studies_by_part(candidate).items()
        if len(studies) >= MIN_STUDIES
    }
    return replace(found, level=level, champion=champion.title, parts=parts)


def measure_resampled(
    candidate: Resampled,
    champion: Resampled,
    threshold: float,
    *,
    deciding: tuple[Resampled, Resampled] | None = None,
    metric: str = "auroc",
    n_resamples: int = N_RESAMPLES,
) -> Differences:
    """The differences from resampled metrics: kappa, brier and the objective's.

    Args:
        candidate: its studies.
        champion: the same studies, in the same order and with the same draws.
        threshold: the champion's own.
        deciding: candidate and champion at the level of the objective; None: their studies.
        metric: of the objective.
        n_resamples: how often the patients are drawn for the two operating points.
    """
    deciding = deciding or (candidate, champion)
    sensitivity, specificity = matched_differences(
        candidate.sample, champion.sample, threshold, n_resamples=n_resamples
    )
    return Differences(
        level="study",
        metric=metric,
        champion="the champion",
        objective=difference_interval(*deciding, metric),
        gain=difference_interval(*deciding, metric, confidence=2 * GAIN_CONFIDENCE - 1),
        sensitivity=sensitivity,
        specificity=specificity,
        kappa=difference_interval(candidate, champion, "kappa"),
        own_kappa=metric_interval(candidate, "kappa"),
        brier=difference_interval(candidate, champion, "brier"),
    )


def apply_margins(differences: Differences, margins: Margins) -> Decision:
    """Accept the candidate if no difference exceeds its margin."""
    checks = (*_check_objective(differences, margins.objective), *_check_guards(differences, margins))
    return Decision(accepted=all(check.passed for check in checks), checks=checks, interval=differences.objective)


def signed(difference: Interval) -> str:
    """Such as "+0.031 [-0.010, +0.072]"."""
    if math.isnan(difference.low):
        return f"{difference.estimate:+.3f} [no interval: {difference.reason}]"
    return f"{difference.estimate:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"


def _compare_with_chance(candidate: EvaluatedModel) -> Decision:
    candidate.predictions()  # raises for a table that cannot be evaluated
    found = candidate.intervals()["auroc"]
    passed = candidate.beats_chance
    if math.isnan(found.low):  # the interval as text gives the reason
        how, why = "is not known to lie above", ""
    else:
        how, why = "lies above" if passed else "does not lie above", f" ({found.reason})" if found.reason else ""
    text = (
        f"There is no champion yet, and the lower end of its test AUROC on studies, {found}, {how} {CHANCE_AUROC}{why}."
    )
    checks = [Check(passed=passed, text=text)]
    kappa = candidate.intervals()["kappa"]
    if not kappa.estimate > 0:
        checks.append(_refuse_threshold(kappa))
    return Decision(accepted=all(check.passed for check in checks), checks=tuple(checks), interval=found)


def _studies_by_part(model: EvaluatedModel) -> dict[str, list[str]]:
    """Body part -> its test studies, sorted by part; empty for a model of one part."""
    found = {str(part): list(rows["study"].unique()) for part, rows in model.predictions().groupby("part", sort=True)}
    return found if len(found) > 1 else {}


def _check_objective(found: Differences, margin: float) -> Iterator[Check]:
    """A gain must be shown, and the worse end of the 95% interval must lie above -margin."""
    difference, metric = found.objective, METRICS[found.metric]
    title = f"{found.level.capitalize()}-level {metric.title}"
    if math.isnan(difference.estimate) or math.isnan(difference.low):
        why = difference.reason or "it is undefined"
        text = f"The paired difference in {title} against {found.champion} cannot be computed: {why}."
        yield Check(passed=False, text=text)
        return
    up = metric.higher_is_better
    gain, low = (found.gain.low, difference.low) if up else (-found.gain.high, -difference.high)
    shown = gain > 0
    yield Check(
        passed=shown,
        text=f"{title} against {found.champion}: paired difference {signed(difference)}. A gain is "
        f"{'shown' if shown else 'not shown'}: the {'lower' if up else 'worse'} end of its one-sided "
        f"{100 * GAIN_CONFIDENCE:.0f}% interval, {gain:+.3f}, {'lies' if shown else 'does not lie'} above 0.",
    )
    position = "lies above" if low > -margin else "does not lie above"
    end = f"The {'lower' if up else 'worse'} end of its {100 * CONFIDENCE:.0f}% interval, {low:+.3f},"
    yield Check(passed=low > -margin, text=f"{end} {position} the margin of {-margin:+.3f}.")


def _check_guards(found: Differences, margins: Margins) -> Iterator[Check]:
    objective = METRICS[found.metric]
    yield _check_guard("Sensitivity of studies at the champion's specificity", found.sensitivity, margins.sensitivity)
    yield _check_guard("Specificity of studies at the champion's sensitivity", found.specificity, margins.specificity)
    yield _check_guard("Cohen's kappa of studies, each at its own threshold,", found.kappa, margins.kappa)
    yield _check_guard("Brier score of studies", found.brier, margins.brier, higher_is_better=False)
    if not found.own_kappa.estimate > 0:
        yield _refuse_threshold(found.own_kappa)
    elif found.kappa.estimate < -margins.kappa and not found.own_kappa.low > 0:
        yield _refuse_threshold(found.own_kappa, "not shown to be better than chance, and below the champion's")
    for part, difference in found.parts.items():
        title = f"{objective.title} on the {part}"
        if math.isnan(difference.low):  # for any model: too few patients, or studies of one class
            yield Check(passed=True, text=f"{title}: not compared ({difference.reason or 'undefined'}).")
        else:
            yield _check_guard(title, difference, margins.part, higher_is_better=objective.higher_is_better)


def _refuse_threshold(kappa: Interval, why: str = "no better than chance") -> Check:
    return Check(passed=False, text=f"At its own threshold, Cohen's kappa of studies is {kappa}: {why}.")


def _check_guard(title: str, difference: Interval, margin: float, *, higher_is_better: bool = True) -> Check:
    """Fails where the loss exceeds the margin and the whole interval lies on the side of a loss."""
    loss, least = (
        (-difference.estimate, -difference.high) if higher_is_better else (difference.estimate, difference.low)
    )
    if math.isnan(loss) or math.isnan(least):  # such as accuracy as objective, and too few patients of one class
        return Check(passed=False, text=f"{title}: not comparable ({difference.reason or 'undefined'}).")
    lost = loss > margin and least > 0
    outcome = "gets worse by more than its margin, and all of its interval is a loss:" if lost else "changes by"
    return Check(passed=not lost, text=f"{title} {outcome} {signed(difference)} (margin {margin:.3f}).")

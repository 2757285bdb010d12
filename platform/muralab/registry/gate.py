"""The promotion gate: may a candidate replace the champion? A pure function of test predictions on the same studies.

A first champion must beat chance. A later one must not be worse than the champion: the objective is not lower, the
lower end of its paired, patient-clustered interval lies above -margin, and no guard metric (sensitivity, Brier score,
the objective on each body part) gets worse by more than its own margin. Guards use the paired estimate only: with a
few hundred studies their intervals are wider than any useful margin, so the intervals are reported but not required.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from muralab.errors import SettingsError
from muralab.evaluation.bootstrap import Interval
from muralab.evaluation.evaluated_model import CHANCE_AUROC, EvaluatedModel, paired_difference
from muralab.evaluation.metrics import METRICS, check_metrics
from muralab.evaluation.predictions import Level

DEFAULT_OBJECTIVE = "val_study_auroc"
MIN_STUDIES = 20
"""A body part with fewer test studies is not checked: a single study would decide."""
TOLERANCE = 1e-6
"""A difference as small as this is none: float32 logits change by 1e-8 when they are stored as text and read back."""


@dataclass(frozen=True, kw_only=True)
class Margins:
    """How much worse than the champion a candidate may be, in the units of each metric."""

    objective: float = 0.05
    """The lower end of the objective's paired interval must lie above minus this."""
    sensitivity: float = 0.05
    """Largest drop in study-level sensitivity, each model at its own threshold."""
    part: float = 0.05
    """Largest drop of the objective on one body part, for models of several parts."""
    brier: float = 0.02
    """Largest increase of the Brier score of calibrated study probabilities."""

    def __post_init__(self) -> None:
        for name in ("objective", "sensitivity", "part", "brier"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise SettingsError(f"The gate's margin for {name} must lie in [0, 1]; got {value}.")


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
    sensitivity: Interval
    """Of studies."""
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
    return Differences(
        level=level,
        metric=metric,
        champion=champion.title,
        objective=paired_difference(candidate, champion, metric=metric, level=level),
        sensitivity=paired_difference(candidate, champion, metric="sensitivity"),
        brier=paired_difference(candidate, champion, metric="brier"),
        parts={
            f"{part} ({len(studies)} studies)": paired_difference(
                candidate.on(studies), champion.on(studies), metric=metric, level=level
            )
            for part, studies in _studies_by_part(candidate).items()
            if len(studies) >= MIN_STUDIES
        },
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
    how = "lies above" if passed else "does not lie above" if not math.isnan(found.low) else "is not known to lie above"
    why = f" ({found.reason})" if found.reason else ""
    text = (
        f"There is no champion yet, and the lower end of its test AUROC on studies, {found}, {how} {CHANCE_AUROC}{why}."
    )
    return Decision(accepted=passed, checks=(Check(passed=passed, text=text),), interval=found)


def _studies_by_part(model: EvaluatedModel) -> dict[str, list[str]]:
    """Body part -> its test studies, sorted by part; empty for a model of one part."""
    found = {str(part): list(rows["study"].unique()) for part, rows in model.predictions().groupby("part", sort=True)}
    return found if len(found) > 1 else {}


def _check_objective(found: Differences, margin: float) -> Iterator[Check]:
    """The estimate must not be worse, and the worse end of the interval must lie above -margin."""
    difference, metric = found.objective, METRICS[found.metric]
    title = f"{found.level.capitalize()}-level {metric.title}"
    if math.isnan(difference.estimate) or math.isnan(difference.low):
        why = difference.reason or "it is undefined"
        text = f"The paired difference in {title} against {found.champion} cannot be computed: {why}."
        yield Check(passed=False, text=text)
        return
    up = metric.higher_is_better
    gain, low = (difference.estimate, difference.low) if up else (-difference.estimate, -difference.high)
    worse = "lower" if up else "worse"
    not_worse = gain >= -TOLERANCE
    outcome = f"is not {worse}" if not_worse else f"is {worse}"
    yield Check(
        passed=not_worse,
        text=f"{title} against {found.champion}: paired difference {signed(difference)}, which {outcome}.",
    )
    position = "lies above" if low > -margin else "does not lie above"
    yield Check(
        passed=low > -margin,
        text=f"The {worse} end of that interval, {low:+.3f}, {position} the margin of {-margin:+.3f}.",
    )


def _check_guards(found: Differences, margins: Margins) -> Iterator[Check]:
    objective = METRICS[found.metric]
    yield _check_guard("Sensitivity of studies", found.sensitivity, margins.sensitivity, higher_is_better=True)
    yield _check_guard("Brier score of studies", found.brier, margins.brier, higher_is_better=False)
    for part, difference in found.parts.items():
        title = f"{objective.title} on the {part}"
        if math.isnan(difference.estimate):  # for any model: the part's test studies are of one class
            yield Check(passed=True, text=f"{title}: not compared ({difference.reason or 'undefined'}).")
        else:
            yield _check_guard(title, difference, margins.part, higher_is_better=objective.higher_is_better)


def _check_guard(title: str, difference: Interval, margin: float, *, higher_is_better: bool) -> Check:
    loss = -difference.estimate if higher_is_better else difference.estimate
    if math.isnan(loss):
        return Check(passed=False, text=f"{title}: not comparable ({difference.reason or 'undefined'}).")
    verb = "changes by" if loss <= margin else "gets worse by more than its margin, by"
    return Check(passed=loss <= margin, text=f"{title} {verb} {signed(difference)} (margin {margin:.3f}).")

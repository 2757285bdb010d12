"""The gate: may a candidate become champion? A pure decision from predictions on the same test studies.

A first champion must beat chance. Every later one must not be worse than the champion it replaces: its objective is not
lower, the paired patient-clustered interval of the difference does not reach below -margin, and no guard (sensitivity,
each part, calibration) falls by more than its own margin. Guards look at the paired estimate alone: on a few hundred
studies their intervals are wider than any margin worth having, so they are stated and not required.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import pandas as pd

from muralab.errors import SettingsError
from muralab.evaluation.bootstrap import Interval, bootstrap, paired_difference
from muralab.evaluation.calibration import Calibration
from muralab.evaluation.metrics import METRICS, check_metrics
from muralab.evaluation.predictions import Level

CHANCE = 0.5
"""Of the area under the ROC curve."""
MIN_STUDIES = 20
"""A part with fewer test studies is no guard: one study would decide."""


@dataclass(frozen=True, kw_only=True)
class Margins:
    """How much worse than the champion a candidate may be, in the units of each figure."""

    objective: float = 0.05
    """The lower end of the paired interval of the objective must lie above minus this."""
    sensitivity: float = 0.05
    """Largest fall of the sensitivity of studies, each model at its own threshold."""
    part: float = 0.05
    """Largest fall of the objective on one part, where the models know several."""
    brier: float = 0.02
    """Largest rise of the Brier score of calibrated study probabilities."""

    def __post_init__(self) -> None:
        for name in ("objective", "sensitivity", "part", "brier"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise SettingsError(f"The gate's margin for {name} must lie in [0, 1]; got {value}.")


@dataclass(frozen=True, kw_only=True, eq=False)
class Contender:
    """A model as the gate sees it."""

    title: str
    """Such as `version 3`."""
    test: pd.DataFrame
    """Predictions of the test images."""
    calibration: Calibration = field(default_factory=Calibration)
    """Its temperatures and threshold, from its own validation studies."""


@dataclass(frozen=True, kw_only=True)
class Check:
    """One condition."""

    passed: bool
    text: str
    """The figure, what was asked for, and whether it holds, in a sentence."""


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What the gate decided, and why."""

    accepted: bool
    checks: tuple[Check, ...] = ()
    interval: Interval | None = None
    """Of the objective's paired difference (candidate minus champion); of a first champion's own AUROC."""

    @property
    def reasons(self) -> list[str]:
        """What stood against it where it was refused, else everything that was looked at."""
        return [check.text for check in self.checks if self.accepted or not check.passed]

    def __str__(self) -> str:
        return f"{'accepted' if self.accepted else 'refused'}: {' '.join(self.reasons)}"


def refusal(reason: str) -> Verdict:
    """A verdict without a comparison."""
    return Verdict(accepted=False, checks=(Check(passed=False, text=reason),))


def read_objective(name: str) -> tuple[Level, str]:
    """`val_study_auroc` -> ("study", "auroc"); `val_auroc` -> ("image", "auroc").

    Raises:
        SettingsError: it names no metric.
    """
    metric = name.removeprefix("val_")
    level: Level = "study" if metric.startswith("study_") else "image"
    (known,) = check_metrics([metric.removeprefix("study_")])
    return level, known


def decide(
    candidate: Contender,
    champion: Contender | None,
    *,
    objective: str = "val_study_auroc",
    margins: Margins | None = None,
    n_resamples: int = 2000,
    seed: int = 0,
) -> Verdict:
    """Judge a candidate against the champion, or against chance where there is none.

    Args:
        candidate: the model that wants the alias.
        champion: the model that holds it, judged on the same images.
        objective: the validation metric that chooses everywhere else, here taken on test.
        margins: how much worse the candidate may be.
        n_resamples: draws of patients.
        seed: of the draws.

    Raises:
        DataError: predictions that cannot be judged, or of different images.
        SettingsError: the objective names no metric.
    """
    level, metric = read_objective(objective)
    margins = margins or Margins()
    if champion is None:
        return _beats_chance(candidate, n_resamples, seed)
    pair = _Pair(candidate, champion, n_resamples, seed)
    difference = pair.difference(level, metric)
    sign = 1 if METRICS[metric].higher_is_better else -1
    title = f"{level.capitalize()}-level {METRICS[metric].title}"
    checks = (
        *_objective_checks(title, difference, champion.title, margins, sign),
        *_guards(pair, level, metric, margins, sign),
    )
    return Verdict(accepted=all(check.passed for check in checks), checks=checks, interval=difference)


def _beats_chance(candidate: Contender, n_resamples: int, seed: int) -> Verdict:
    found = bootstrap(candidate.test, level="study", metrics=["auroc"], n_resamples=n_resamples, seed=seed)["auroc"]
    passed = found.low > CHANCE  # False for NaN
    how = "lies above" if passed else "does not lie above" if not math.isnan(found.low) else "is not known to lie above"
    why = f" ({found.reason})" if found.reason else ""
    text = f"There is no champion yet, and the lower end of its test AUROC on studies, {found}, {how} {CHANCE}{why}."
    return Verdict(accepted=passed, checks=(Check(passed=passed, text=text),), interval=found)


@dataclass(frozen=True)
class _Pair:
    """Candidate and champion on the same images, each with its own threshold and temperature."""

    candidate: Contender
    champion: Contender
    n_resamples: int
    seed: int

    def difference(self, level: Level, metric: str, part: str | None = None) -> Interval:
        a, b = self.candidate, self.champion
        tables = [x.test if part is None else x.test[x.test["part"] == part] for x in (a, b)]
        return paired_difference(
            *tables,
            level=level,
            metric=metric,
            threshold_a=a.calibration.threshold_of(level),
            threshold_b=b.calibration.threshold_of(level),
            temperature_a=a.calibration.temperature(level),
            temperature_b=b.calibration.temperature(level),
            n_resamples=self.n_resamples,
            seed=self.seed,
        )

    def parts(self) -> Mapping[str, int]:
        """Part -> test studies, where there are several parts."""
        counts: dict[str, int] = self.candidate.test.groupby("part")["study"].nunique().to_dict()
        return counts if len(counts) > 1 else {}


def _objective_checks(title: str, difference: Interval, champion: str, margins: Margins, sign: int) -> Iterator[Check]:
    gain = sign * difference.estimate
    if math.isnan(gain) or math.isnan(difference.low):
        why = difference.reason or "it is undefined"
        yield Check(passed=False, text=f"No paired difference in {title} to {champion} can be given: {why}.")
        return
    low = difference.low if sign > 0 else -difference.high
    shown = f"{title} against {champion}: paired difference {signed(difference)}"
    lower = "is not lower" if sign > 0 else "is not worse"
    yield Check(
        passed=gain >= 0, text=f"{shown}, which {lower if gain >= 0 else 'is lower' if sign > 0 else 'is worse'}."
    )
    words = "lies above" if low > -margins.objective else "reaches below"
    yield Check(
        passed=low > -margins.objective,
        text=f"The {'lower' if sign > 0 else 'worse'} end of that interval, {low:+.3f}, {words} the margin of "
        f"{-margins.objective:+.3f}.",
    )


def _guards(pair: _Pair, level: Level, metric: str, margins: Margins, sign: int) -> Iterator[Check]:
    yield _guard("Sensitivity of studies", pair.difference("study", "sensitivity"), margins.sensitivity, 1)
    yield _guard("Brier score of studies", pair.difference("study", "brier"), margins.brier, -1)
    for part, n_studies in sorted(pair.parts().items()):
        if n_studies >= MIN_STUDIES:
            title = f"{METRICS[metric].title} on the {part} ({n_studies} studies)"
            difference = pair.difference(level, metric, part)
            if math.isnan(difference.estimate):  # of any model: the part's test studies are of one class
                yield Check(passed=True, text=f"{title}: not compared ({difference.reason or 'undefined'}).")
            else:
                yield _guard(title, difference, margins.part, sign)


def _guard(title: str, difference: Interval, margin: float, sign: int) -> Check:
    loss = -sign * difference.estimate
    if math.isnan(loss):
        return Check(passed=False, text=f"{title}: not comparable ({difference.reason or 'undefined'}).")
    verb = "changes by" if loss <= margin else "gets worse by more than its margin, by"
    return Check(passed=loss <= margin, text=f"{title} {verb} {signed(difference)} (margin {margin:.3f}).")


def signed(difference: Interval) -> str:
    """Such as "+0.031 [-0.010, +0.072]"."""
    if math.isnan(difference.low):
        return f"{difference.estimate:+.3f} [no interval: {difference.reason}]"
    return f"{difference.estimate:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}]"

"""Promote a version of a registered model: let the gate decide, move the aliases, and store the reasons as tags."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from muralab.errors import StoreError
from muralab.evaluation.best_of_many import interval_after_selection, range_sentence, range_text
from muralab.evaluation.evaluated_model import EvaluatedModel
from muralab.evaluation.intervals import Interval
from muralab.redaction import redact
from muralab.registry.champion_comparison import (
    EvaluatedVersion,
    VersionDecision,
    decide_version,
    fingerprint_of,
    read_evaluated,
)
from muralab.registry.evaluation_count import count_test_evaluations, record_evaluations
from muralab.registry.gate import Check, Decision, Margins, signed
from muralab.registry.registry_lock import registry_lock
from muralab.tracking import Store
from muralab.tracking.failures import is_forbidden, store_errors
from muralab.tracking.tags import Tag

CHAMPION, CHALLENGER = "champion", "challenger"
MAX_TAG_CHARACTERS = 8000
RANGE_HEADING = "\n\n## After selection on the test set\n\n"


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """The gate's decision on one version, and the alias that follows from it."""

    name: str
    """Of the registered model, such as mura-wrist."""
    version: str
    alias: str
    """champion or challenger."""
    decision: Decision
    evaluations: int
    """How many evaluations the test set has seen, this one included."""
    fingerprint: str
    """Of the test set that the decision is based on."""
    champion_before: str | None = None
    """The version that held the alias before."""
    auroc: Interval | None = None
    """The candidate's on the studies that the decision is based on; None where nothing was compared."""
    reevaluated: pd.DataFrame | None = None
    """Predictions on this test set that were computed for this decision, of the model with an older one."""

    @property
    def uri(self) -> str:
        """What `mlflow models serve -m` takes."""
        return f"models:/{self.name}@{self.alias}"

    def lines(self) -> list[str]:
        """The decision and its reasons, for the terminal."""
        outcome = "accepted as champion" if self.decision.accepted else "refused, stays challenger"
        times = f"{self.evaluations} time{'s' * (self.evaluations != 1)}"
        return [
            f"{self.name} version {self.version}: {outcome}.",
            *(f"  {reason}" for reason in self.decision.reasons),
            f"  Models have been evaluated on this test set {times} so far. {self.range_sentence}".rstrip(),
        ]

    @property
    def range_sentence(self) -> str:
        """How to read the candidate's AUROC after that many evaluations; empty where that changes nothing."""
        return "" if self.auroc is None else range_sentence(self.auroc, self.evaluations)


def promote_version(
    store: Store,
    name: str,
    version: str,
    *,
    candidate: EvaluatedModel | None = None,
    cache: Path,
    margins: Margins | None = None,
    dry_run: bool = False,
) -> Promotion:
    """Make a version champion or challenger, as the gate decides; its tags store the reasons.

    Args:
        store: holds the runs and the models.
        name: of the registered model.
        version: the candidate's.
        candidate: the candidate's evaluation where it is at hand; None: read from its run.
        cache: folder of decoded images, for a model that is re-evaluated.
        margins: of the gate.
        dry_run: decide, and change nothing.

    Raises:
        StoreError: there is no such version, or its run holds no test predictions.
        DataError: its predictions are invalid.
    """
    margins = margins or Margins()
    with store_errors(store, f"promote version {version} of {name}"):
        found = read_version(store, name, version)
        model = candidate or read_evaluated(store, found.run_id, f"version {version}")
        notes: list[str] = []
        while True:
            champion = find_alias(store, name, CHAMPION)
            made = _decide(store, EvaluatedVersion(version=found, model=model), champion, cache=cache, margins=margins)
            promotion = _build_promotion(store, found, made, _number(champion), notes, dry_run=dry_run)
            if dry_run or _apply(store, promotion, margins):
                return promotion
            moved = f"version {_number(champion)} was" if champion is not None else "there was no"
            notes = [f"While it was compared, {moved} the champion, which another command has changed."]


def _decide(
    store: Store, candidate: EvaluatedVersion, champion: Any | None, *, cache: Path, margins: Margins
) -> VersionDecision:
    version, model = candidate.version, candidate.model
    if champion is None or champion.run_id != version.run_id:
        return decide_version(store, candidate, champion, cache=cache, margins=margins)
    text = f"It is the model of the champion, version {champion.version}, with another engine."
    if _number(champion) == str(version.version):
        text = "It is already the champion; nothing was compared."
    check = Check(passed=True, text=text)
    return VersionDecision(
        decision=Decision(accepted=True, checks=(check,)),
        test=model.predictions(),
        fingerprint=fingerprint_of(store, version.run_id, model.predictions()),
        model=model,
    )


def _apply(store: Store, promotion: Promotion, margins: Margins) -> bool:
    """Store a decision and move the alias, unless another command has moved the champion meanwhile."""
    with registry_lock(store, promotion.name):
        if _number(find_alias(store, promotion.name, CHAMPION)) != promotion.champion_before:
            return False
        _set_tags(store.client, promotion, margins)
        _set_alias(store.client, promotion)
        return True


def _number(version: Any | None) -> str | None:
    return None if version is None else str(version.version)


def read_version(store: Store, name: str, version: str) -> Any:
    """A version of a registered model.

    Raises:
        StoreError: there is no such version; the message lists the existing ones.
    """
    try:
        return store.client.get_model_version(name, version)
    except Exception as error:
        numbers = sorted(int(one.version) for one in store.client.search_model_versions(f"name='{name}'"))
        known = ", ".join(str(number) for number in numbers) or "none"
        raise StoreError(
            f"The store {redact(store.uri)} has no version {version} of {name}. Versions: {known}."
        ) from error


def version_of_run(store: Store, name: str, run_id: str) -> Any | None:
    """The newest version of a registered model that came from a run, or None."""
    with store_errors(store, f"look for versions of {name}"):
        own = [one for one in store.client.search_model_versions(f"run_id='{run_id}'") if one.name == name]
    return max(own, key=lambda one: int(one.version), default=None)


def find_alias(store: Store, name: str, alias: str) -> Any | None:
    """The version that holds an alias, or None."""
    from mlflow.exceptions import MlflowException

    try:
        return store.client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def _build_promotion(
    store: Store,
    version: Any,
    made: VersionDecision,
    champion_before: str | None,
    notes: Sequence[str],
    *,
    dry_run: bool,
) -> Promotion:
    count = count_test_evaluations if dry_run else record_evaluations
    return Promotion(
        name=str(version.name),
        version=str(version.version),
        alias=CHAMPION if made.decision.accepted else CHALLENGER,
        decision=made.decision.with_notes(notes),
        evaluations=max(1, count(store, version.name, made.fingerprint)) + (made.reevaluated is not None),
        fingerprint=made.fingerprint,
        champion_before=champion_before,
        auroc=None if made.model is None else made.model.intervals().get("auroc"),
        reevaluated=made.reevaluated,
    )


def _set_tags(client: Any, promotion: Promotion, margins: Margins) -> None:
    """Store the decision on the version; that of a version which already is the champion stays as it was."""
    decision = promotion.decision
    tags = {Tag.TEST_EVALUATIONS: str(promotion.evaluations), Tag.TEST_FINGERPRINT: promotion.fingerprint}
    if promotion.champion_before != promotion.version:
        against = "chance" if promotion.champion_before is None else f"version {promotion.champion_before}"
        tags |= {
            Tag.GATE: "accepted" if decision.accepted else "refused",
            Tag.GATE_REASONS: " ".join(decision.reasons)[:MAX_TAG_CHARACTERS],
            Tag.GATE_AGAINST: against,
            Tag.GATE_MARGIN: f"{margins.objective:g}",
            Tag.GATE_RULE: margins.rule,
        }
        if decision.interval is not None and promotion.champion_before is not None:
            tags[Tag.GATE_DIFFERENCE] = signed(decision.interval)
    if promotion.auroc is not None and not math.isnan(promotion.auroc.low):
        wide = interval_after_selection(promotion.auroc, promotion.evaluations)
        tags[Tag.AUROC_RANGE] = f"{range_text(wide)} (evaluations on the test set: {promotion.evaluations})"
    for key, value in tags.items():
        client.set_model_version_tag(promotion.name, promotion.version, key, value)


def _set_alias(client: Any, promotion: Promotion) -> None:
    """Move the alias; a new champion gives its card to the registered model and is no longer challenger."""
    name, version = promotion.name, promotion.version
    client.set_registered_model_alias(name, promotion.alias, version)
    if promotion.decision.accepted:
        card = with_range(client.get_model_version(name, version).description or "", promotion.range_sentence)
        client.update_model_version(name, version, description=card)
        client.update_registered_model(name, description=card)
        if str(client.get_registered_model(name).aliases.get(CHALLENGER)) == version:
            _remove_alias(client, name, CHALLENGER)


def _remove_alias(client: Any, name: str, alias: str) -> None:
    """Remove an alias; it stays where a user may set aliases but not remove them, as on a server with users (EDIT)."""
    try:
        client.delete_registered_model_alias(name, alias)
    except Exception as error:
        if not is_forbidden(error):
            raise


def with_range(card: str, sentence: str) -> str:
    """A card that ends with how to read its figures after several evaluations; an earlier such end is replaced."""
    own, _, _ = card.partition(RANGE_HEADING)
    return f"{own.rstrip()}{RANGE_HEADING}{sentence}" if sentence else own.rstrip()

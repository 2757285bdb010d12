"""Which version of a registered model is its champion: the gate's decision, carried out and written down."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from muralab.errors import StoreError
from muralab.registry.champion_comparison import Ruling, decide_version, read_contender
from muralab.registry.gate import Check, Margins, Verdict, signed
from muralab.tracking import Store, count_evaluations, fingerprint_test_set
from muralab.tracking.tags import Tag

CHAMPION, CHALLENGER = "champion", "challenger"


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """What the gate made of one version."""

    name: str
    version: str
    alias: str
    """champion or challenger."""
    verdict: Verdict
    looks: int
    """How often a model has met this test set, this time included."""
    fingerprint: str
    """Of the test set that decided."""
    champion_before: str | None = None
    """The version that held the alias."""
    rejudged: pd.DataFrame | None = None
    """Predictions on this test set that were made for this decision, of the model that had met an older one."""

    @property
    def uri(self) -> str:
        """What `mlflow models serve -m` takes."""
        return f"models:/{self.name}@{self.alias}"

    def lines(self) -> list[str]:
        """The decision in words."""
        what = "accepted as champion" if self.verdict.accepted else "refused, stays challenger"
        looks = f"This test set has been looked at {self.looks} time{'s' * (self.looks != 1)} so far."
        return [f"{self.name} version {self.version}: {what}.", *(f"  {r}" for r in self.verdict.reasons), f"  {looks}"]


def promote_version(
    store: Store,
    name: str,
    version: str,
    *,
    cache: Path,
    margins: Margins | None = None,
    dry_run: bool = False,
) -> Promotion:
    """Let a version through the gate: it becomes champion or challenger, and its tags say why.

    Args:
        store: that holds runs and models.
        name: of the registered model.
        version: the candidate.
        cache: folder of decoded images, for whichever of the two is judged again.
        margins: of the gate.
        dry_run: decide, and change nothing.

    Raises:
        StoreError: no such version, or its run holds no test predictions.
        DataError: its predictions cannot be judged.
    """
    client = store.client
    candidate = read_version(store, name, version)
    contender = read_contender(store, candidate.run_id, f"version {version}")
    champion = find_alias(store, name, CHAMPION)
    before = None if champion is None else str(champion.version)
    if before == str(candidate.version):
        held = Check(passed=True, text="It is the champion already: nothing was compared.")
        ruling = Ruling(Verdict(accepted=True, checks=(held,)), contender.test)
    else:
        ruling = decide_version(store, name, candidate, contender, champion, cache, margins or Margins())
    fingerprint = fingerprint_test_set(ruling.test)
    promotion = Promotion(
        name=name,
        version=str(candidate.version),
        alias=CHAMPION if ruling.verdict.accepted else CHALLENGER,
        verdict=ruling.verdict,
        looks=max(1, count_evaluations(store, fingerprint)) + (ruling.rejudged is not None),
        fingerprint=fingerprint,
        champion_before=before,
        rejudged=ruling.rejudged,
    )
    if not dry_run:
        _write(client, promotion, margins or Margins())
    return promotion


def read_version(store: Store, name: str, version: str) -> Any:
    """A version of a registered model.

    Raises:
        StoreError: there is none; lists those that are there.
    """
    try:
        return store.client.get_model_version(name, version)
    except Exception as error:
        held = sorted(int(one.version) for one in _versions(store, f"name='{name}'"))
        words = ", ".join(str(number) for number in held) or "none"
        raise StoreError(f"The store {store.uri} has no version {version} of {name}. Versions: {words}.") from error


def version_of_run(store: Store, name: str, run_id: str) -> Any | None:
    """The newest version of a registered model that came from a run, or None."""
    own = [one for one in _versions(store, f"run_id='{run_id}'") if one.name == name]
    return max(own, key=lambda one: int(one.version), default=None)


def _versions(store: Store, where: str) -> list[Any]:
    return list(store.client.search_model_versions(where))


def find_alias(store: Store, name: str, alias: str) -> Any | None:
    """The version that an alias names, or None."""
    from mlflow.exceptions import MlflowException

    try:
        return store.client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def _write(client: Any, promotion: Promotion, margins: Margins) -> None:
    name, version, verdict = promotion.name, promotion.version, promotion.verdict
    tags = {Tag.TEST_EVALUATIONS: str(promotion.looks), Tag.TEST_FINGERPRINT: promotion.fingerprint}
    if promotion.champion_before != version:
        against = "chance" if promotion.champion_before is None else f"version {promotion.champion_before}"
        tags |= {
            Tag.GATE: "accepted" if verdict.accepted else "refused",
            Tag.GATE_REASONS: " ".join(verdict.reasons)[:8000],
            Tag.GATE_AGAINST: against,
            Tag.GATE_MARGIN: f"{margins.objective:g}",
        }
        if verdict.interval is not None and promotion.champion_before is not None:
            tags[Tag.GATE_DIFFERENCE] = signed(verdict.interval)
    for key, value in tags.items():
        client.set_model_version_tag(name, version, key, value)
    client.set_registered_model_alias(name, promotion.alias, version)
    if verdict.accepted:
        card = client.get_model_version(name, version).description or ""
        client.update_registered_model(name, description=card)
        _drop_challenger(client, name, version)


def _drop_challenger(client: Any, name: str, version: str) -> None:
    """A version that has become champion challenges no more."""
    aliases = client.get_registered_model(name).aliases
    if str(aliases.get(CHALLENGER)) == version:
        client.delete_registered_model_alias(name, CHALLENGER)

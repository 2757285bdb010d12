"""Which version of a registered model is its champion: the gate's decision, carried out and written down.

The champion's stored test predictions are compared with the candidate's. Where the two met different test sets, the
champion is judged again on the candidate's, through its own registered ONNX; where that cannot be done, the gate
refuses and says why.
"""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from muralab.errors import MuraLabError, StoreError
from muralab.evaluation.calibration import Calibration
from muralab.registry.gate import Check, Contender, Margins, Verdict, decide, refusal, signed
from muralab.registry.rejudge import judge_registered
from muralab.tracking import (
    Store,
    count_looks,
    download_artifact,
    fingerprint_test_set,
    read_datasets,
    read_run,
)

CHAMPION, CHALLENGER = "champion", "challenger"
DEFAULT_OBJECTIVE = "val_study_auroc"


@dataclass(frozen=True, kw_only=True)
class Promotion:
    """What the gate made of one version."""

    name: str
    version: str
    alias: str
    """champion or challenger."""
    verdict: Verdict
    looks: int
    """How many models have met this test set, this one included."""
    fingerprint: str
    """Of the test set."""
    champion_before: str | None = None
    """The version that held the alias."""
    rejudged: pd.DataFrame | None = None
    """The champion's predictions on this test set, where they were made for this decision."""

    @property
    def uri(self) -> str:
        """What `mlflow models serve -m` takes."""
        return f"models:/{self.name}@{self.alias}"

    def lines(self) -> list[str]:
        """The decision in words."""
        what = "accepted as champion" if self.verdict.accepted else "refused, stays challenger"
        looks = f"This test set has been looked at by {self.looks} model{'s' * (self.looks != 1)} so far."
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
        cache: folder of decoded images, for a champion that is judged again.
        margins: of the gate.
        dry_run: decide, and change nothing.

    Raises:
        StoreError: no such version, or its run holds no test predictions.
        DataError: its predictions cannot be judged.
    """
    client = store.client
    candidate = read_version(store, name, version)
    contender = read_contender(store, candidate.run_id, f"version {version}")
    fingerprint = fingerprint_test_set(contender.test)
    looks = max(1, count_looks(store, fingerprint))
    champion = find_alias(store, name, CHAMPION)
    before = None if champion is None else str(champion.version)
    if before == str(candidate.version):
        held = Check(passed=True, text="It is the champion already: nothing was compared.")
        verdict, rejudged = Verdict(accepted=True, checks=(held,)), None
    else:
        verdict, rejudged = _decide(store, name, candidate, contender, champion, cache, margins or Margins())
    promotion = Promotion(
        name=name,
        version=str(candidate.version),
        alias=CHAMPION if verdict.accepted else CHALLENGER,
        verdict=verdict,
        looks=looks + (rejudged is not None),
        fingerprint=fingerprint,
        champion_before=before,
        rejudged=rejudged,
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


def read_contender(store: Store, run_id: str, title: str) -> Contender:
    """A model as its run judged it.

    Raises:
        StoreError: the run holds no test predictions or no calibration.
    """
    record = read_run(store, run_id)
    test = record.predictions["test"]
    with tempfile.TemporaryDirectory() as folder:
        text = download_artifact(store, run_id, "calibration.json", Path(folder)).read_text(encoding="utf-8")
    return Contender(title=title, test=test, calibration=Calibration.from_dict(json.loads(text)))


def _decide(
    store: Store, name: str, candidate: Any, contender: Contender, champion: Any, cache: Path, margins: Margins
) -> tuple[Verdict, pd.DataFrame | None]:
    objective = candidate.tags.get("muralab.objective", DEFAULT_OBJECTIVE)
    if champion is None:
        return decide(contender, None, objective=objective, margins=margins), None
    title = f"version {champion.version}"
    if candidate.tags.get("muralab.synthetic") == "true" and champion.tags.get("muralab.synthetic") != "true":
        return refusal(f"It was trained on synthetic pictures; the champion, {title}, on radiographs."), None
    try:
        held = read_contender(store, champion.run_id, title)
        same_rows = fingerprint_test_set(held.test) == fingerprint_test_set(contender.test)
        if same_rows and _same_bytes(store, candidate.run_id, champion.run_id):
            return decide(contender, held, objective=objective, margins=margins), None
    except MuraLabError:
        held = None  # its run is gone or holds no predictions: it is judged again
    try:
        root = read_datasets(store, candidate.run_id)["test"].source
        test, calibration = judge_registered(store, name, str(champion.version), contender.test, Path(root), cache)
    except (MuraLabError, KeyError) as error:
        why = "the run names no data set" if isinstance(error, KeyError) else str(error)
        return refusal(f"The champion, {title}, met another test set and could not be judged on this one: {why}"), None
    judged = Contender(title=f"{title} (judged again)", test=test, calibration=calibration)
    return decide(contender, judged, objective=objective, margins=margins), test


def _same_bytes(store: Store, *run_ids: str) -> bool:
    """Whether two runs met the same files under the same names, as far as their digests are known."""
    found = [read_datasets(store, run_id).get("test") for run_id in run_ids]
    return len({one.digest for one in found if one is not None}) <= 1


def _write(client: Any, promotion: Promotion, margins: Margins) -> None:
    name, version, verdict = promotion.name, promotion.version, promotion.verdict
    tags = {"muralab.test_looks": str(promotion.looks), "muralab.test_fingerprint": promotion.fingerprint}
    if promotion.champion_before != version:
        against = "chance" if promotion.champion_before is None else f"version {promotion.champion_before}"
        tags |= {
            "muralab.gate": "accepted" if verdict.accepted else "refused",
            "muralab.gate_reasons": " ".join(verdict.reasons)[:8000],
            "muralab.gate_against": against,
            "muralab.gate_margin": f"{margins.objective:g}",
        }
        if verdict.interval is not None and promotion.champion_before is not None:
            tags["muralab.gate_difference"] = signed(verdict.interval)
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

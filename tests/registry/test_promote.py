"""`promote_version`: which alias a version gets, what its tags store, and which evaluation is compared."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import pytest

from muralab.data.mura import read_index
from muralab.errors import DataError, StoreError
from muralab.evaluation import evaluated_model
from muralab.evaluation.best_of_many import interval_after_selection
from muralab.registry import champion_comparison, promote
from muralab.registry.champion_comparison import read_evaluated
from muralab.registry.gate import Margins
from muralab.registry.promote import Promotion, find_alias, promote_version, version_of_run
from muralab.tracking import Store, find_evaluations, read_run
from tests.registry.conftest import build_model, build_test


@dataclass(frozen=True, kw_only=True)
class Registry:
    """A registered model of one test's own."""

    store: Store
    name: str
    cache: object

    def add(self, run_id: str, **tags: str) -> str:
        """Add a version without files."""
        client = self.store.client
        if not client.search_registered_models(f"name='{self.name}'"):
            client.create_registered_model(self.name)
        made = client.create_model_version(
            self.name, source="nowhere", run_id=run_id, tags=tags, description=f"Card of {run_id}"
        )
        return str(made.version)

    def crown(self, run_id: str, **tags: str) -> str:
        """Add a version and make it champion."""
        version = self.add(run_id, **tags)
        self.store.client.set_registered_model_alias(self.name, "champion", version)
        return version

    def promote(self, version: str, **options) -> Promotion:
        return promote_version(self.store, self.name, version, cache=self.cache, **options)

    def holder(self, alias: str) -> str | None:
        found = find_alias(self.store, self.name, alias)
        return None if found is None else str(found.version)

    def tags(self, version: str) -> dict[str, str]:
        return self.store.client.get_model_version(self.name, version).tags


@pytest.fixture
def registry(store, request, tmp_path) -> Registry:
    return Registry(store=store, name=f"mura-{request.node.name}"[:60], cache=tmp_path)


@pytest.fixture
def champion(registry, train_run) -> str:
    """A champion of medium skill; its version."""
    return registry.crown(train_run(0.6))


# Aliases and tags


def test_a_worse_model_stays_challenger(registry, champion, train_run):
    version = registry.add(train_run(0.0))
    done = registry.promote(version)
    assert done.lines()[0] == f"{registry.name} version {version}: refused, stays challenger."
    assert f"against version {champion}: paired difference -0." in done.decision.reasons[0]
    assert (registry.holder("champion"), registry.holder("challenger")) == (champion, version)


def test_a_better_model_becomes_champion_and_is_no_longer_challenger(registry, champion, train_run):
    version = registry.add(train_run(1.5))
    registry.store.client.set_registered_model_alias(registry.name, "challenger", version)
    assert registry.promote(version).uri == f"models:/{registry.name}@champion"
    assert (registry.holder("champion"), registry.holder("challenger")) == (version, None)


def test_a_champion_that_moves_meanwhile_is_compared_with(registry, champion, train_run, monkeypatch):
    version, other, real = registry.add(train_run(0.9)), registry.add(train_run(2.0)), promote.decide_version

    def decide_while_another_is_promoted(store, candidate, found, **options):
        monkeypatch.setattr(promote, "decide_version", real)
        made = real(store, candidate, found, **options)
        registry.promote(other)
        return made

    monkeypatch.setattr(promote, "decide_version", decide_while_another_is_promoted)
    done = registry.promote(version)
    assert done.decision.reasons[0].startswith(f"While it was compared, version {champion} was the champion, which")
    assert f"against version {other}" in done.decision.reasons[1]
    assert (registry.holder("champion"), registry.tags(version)["muralab.gate_against"]) == (other, f"version {other}")


def test_a_new_champions_card_describes_the_registered_model(registry, champion, train_run):
    run = train_run(1.5)
    registry.promote(registry.add(run))
    card = registry.store.client.get_registered_model(registry.name).description
    assert card.startswith(f"Card of {run}\n\n## After selection on the test set\n\nA model that is chosen from")


def test_the_tags_store_the_decision(registry, champion, train_run):
    version = registry.add(train_run(0.0))
    registry.promote(version, margins=Margins(objective=0.2))
    tags = registry.tags(version)
    assert tags["muralab.gate"] == "refused"
    assert tags["muralab.gate_against"] == f"version {champion}"
    assert tags["muralab.gate_margin"] == "0.2"
    assert tags["muralab.gate_rule"] == "gain at 80%, margin 0.2, guards on evidence, kappa above chance"
    assert f"evaluations on the test set: {tags['muralab.test_looks']}" in tags["muralab.test_study_auroc_range"]
    assert tags["muralab.gate_difference"].startswith("-0.")
    assert "does not lie above the margin" in tags["muralab.gate_reasons"]
    assert int(tags["muralab.test_looks"]) >= 2


def test_a_first_champion_is_compared_with_chance(registry, train_run):
    version = registry.add(train_run(1.5))
    registry.promote(version)
    assert registry.holder("champion") == version
    assert registry.tags(version)["muralab.gate_against"] == "chance"


def test_a_dry_run_changes_nothing(registry, champion, train_run):
    version = registry.add(train_run(1.5))
    assert registry.promote(version, dry_run=True).decision.accepted
    assert registry.tags(version) == {}
    assert registry.holder("champion") == champion


def test_the_champion_is_not_compared_with_itself(registry, champion):
    assert registry.promote(champion).decision.reasons == ["It is already the champion; nothing was compared."]
    assert "muralab.gate" not in registry.tags(champion)


def test_every_run_on_the_test_set_counts_as_an_evaluation(registry, train_run):
    first = registry.add(train_run(1.0, n_test=31))
    n = registry.promote(first, dry_run=True).evaluations + 2
    for _ in range(2):
        train_run(1.0, n_test=31)
    done = registry.promote(first, dry_run=True)
    assert done.evaluations == n
    last = done.lines()[-1]
    times = f"  Models have been evaluated on this test set {n} times so far. A model that is chosen from {n} "
    assert last.startswith(times)
    wide = interval_after_selection(done.auroc, n)
    assert f"as a range, {wide.low:.3f} to {wide.high:.3f}." in last
    assert wide.low < done.auroc.low < done.auroc.high < wide.high


def test_a_synthetic_model_never_replaces_a_real_one(registry, champion, train_run):
    version = registry.add(train_run(2.0), **{"muralab.synthetic": "true"})
    assert "It was trained on synthetic images" in registry.promote(version).decision.reasons[0]


@pytest.mark.parametrize("synthetic", ["true", "false"])
def test_any_model_may_replace_a_synthetic_one(registry, train_run, synthetic):
    registry.crown(train_run(0.6), **{"muralab.synthetic": "true"})
    assert registry.promote(registry.add(train_run(2.0), **{"muralab.synthetic": synthetic})).decision.accepted


@pytest.mark.parametrize(
    ("tags", "title"), [({"muralab.objective": "val_accuracy"}, "Image-level Accuracy"), ({}, "Study-level AUROC")]
)
def test_the_gate_takes_the_objective_that_selected_the_version(registry, champion, train_run, tags, title):
    reasons = registry.promote(registry.add(train_run(2.0), **tags)).decision.reasons
    assert reasons[0].startswith(f"{title} against")


# The candidate's evaluation


def test_a_given_evaluation_is_not_read_from_the_run(registry, champion, train_run):
    run = train_run(2.0)
    evaluated = read_evaluated(registry.store, run, "the add-gate model")
    version = registry.add(train_run(2.0, tested=False))
    assert registry.promote(version, candidate=evaluated).decision.accepted


def test_known_intervals_are_not_computed_again(registry, train_run, monkeypatch):
    model = build_model(build_test(1.5))
    assert model.beats_chance
    monkeypatch.setattr(evaluated_model, "resample", None)
    done = registry.promote(registry.add(train_run(1.5)), candidate=model)
    assert done.decision.interval is model.intervals()["auroc"]


def test_a_stored_evaluation_keeps_predictions_and_calibration(store, train_run):
    run = train_run(1.0)
    model = read_evaluated(store, run, "version 3")
    assert (model.recipe, model.title, model.run_id) == ("cnn", "version 3", run)
    assert model.calibration.study_temperature != 1
    assert model.predictions().equals(read_run(store, run).predictions["test"])


def test_a_run_without_test_predictions_raises_an_error(registry, train_run):
    run = train_run(1.0, tested=False)
    with pytest.raises(StoreError, match=rf"{run} .* no predictions on 'test'"):
        registry.promote(registry.add(run))


def test_invalid_predictions_raise_an_error(registry, train_run):
    model = build_model(build_test(1.0).assign(image="a.png"))
    version = registry.add(train_run(1.0))
    with pytest.raises(DataError, match="occur more than once"):
        registry.promote(version, candidate=model)


def test_an_unknown_version_lists_the_known_ones(registry, champion):
    with pytest.raises(StoreError, match=rf"no version 99 of mura-.*Versions: {champion}\."):
        registry.promote("99")


def test_the_newest_version_of_a_run_is_found(registry, train_run):
    run = train_run(1.0)
    registry.add(run)
    newest = registry.add(run)
    assert str(version_of_run(registry.store, registry.name, run).version) == newest
    assert version_of_run(registry.store, registry.name, "f" * 32) is None


# Different test sets


@pytest.fixture
def reevaluate(monkeypatch) -> Callable[..., list[tuple[str, int]]]:
    """A function that replaces the ONNX file's answers by a skill; returns the calls: (version, number of images)."""
    calls = []

    def install(skill: float) -> list[tuple[str, int]]:
        def evaluate(_store, _name, version, test, *_):
            calls.append((version, len(test)))
            noise = build_test(0)["logit"][: len(test)].array
            return test.assign(logit=skill * (2 * test["label"] - 1) + 0.5 * noise), build_model(test).calibration

        monkeypatch.setattr(champion_comparison, "evaluate_registered", evaluate)
        return calls

    return install


def test_an_older_champion_is_reevaluated_on_the_new_test_set(registry, champion, train_run, reevaluate):
    calls = reevaluate(0.2)
    version = registry.add(train_run(2.0, n_test=30))
    done = registry.promote(version)
    assert [evaluated for evaluated, _ in calls] == [champion]
    assert done.decision.accepted
    assert f"against version {champion} (re-evaluated)" in done.decision.reasons[0]


def test_an_older_candidate_is_reevaluated_on_the_champions_test_set(registry, train_run, reevaluate):
    calls = reevaluate(1.0)
    candidate = registry.add(train_run(2.0, n_test=30))
    newer = train_run(0.6)
    registry.crown(newer)
    registry.promote(candidate)
    assert calls == [(candidate, len(read_run(registry.store, newer).predictions["test"]))]
    fingerprint = read_run(registry.store, newer).tags["muralab.test_fingerprint"]
    assert registry.tags(candidate)["muralab.test_fingerprint"] == fingerprint


def test_a_reevaluation_counts_as_one_more_evaluation(registry, champion, train_run, reevaluate):
    reevaluate(1.0)
    done = registry.promote(registry.add(train_run(2.0, n_test=29)), dry_run=True)
    assert done.evaluations == len(find_evaluations(registry.store, done.fingerprint).run_ids) + 1
    assert len(done.reevaluated) == len(done.reevaluated.dropna())


def test_other_files_under_the_same_names_are_a_different_test_set(registry, champion, train_run, reevaluate):
    calls = reevaluate(1.0)
    registry.promote(registry.add(train_run(2.0, digest="other")))
    assert [evaluated for evaluated, _ in calls] == [champion]


def test_a_champion_that_cannot_be_reevaluated_refuses_the_candidate(registry, champion, train_run):
    done = registry.promote(registry.add(train_run(2.0, n_test=30)))
    assert not done.decision.accepted
    assert done.reevaluated is None
    assert f"The champion, version {champion}, was evaluated on an older test set" in done.decision.reasons[0]


def test_a_candidate_that_cannot_be_reevaluated_is_refused(registry, train_run):
    candidate = registry.add(train_run(2.0, n_test=30))
    champion = registry.crown(train_run(2.0))
    (reason,) = registry.promote(candidate).decision.reasons
    expected = f"It, version {candidate}, was evaluated on an older test set and not on that of version {champion}: "
    assert reason.startswith(expected)


def test_a_champion_whose_run_is_gone_is_reevaluated(registry, train_run, reevaluate):
    calls = reevaluate(0.2)
    champion = registry.crown("f" * 32)
    assert registry.promote(registry.add(train_run(2.0))).decision.accepted
    assert [evaluated for evaluated, _ in calls] == [champion]


def test_a_reevaluation_with_nan_logits_refuses_the_candidate(registry, champion, train_run, reevaluate):
    reevaluate(float("nan"))
    done = registry.promote(registry.add(train_run(2.0, n_test=30)))
    assert not done.decision.accepted
    assert "have no finite logit" in done.decision.reasons[0]


def test_test_pictures_that_changed_since_are_not_compared_on(registry, champion, train_run, reevaluate, tree):
    calls = reevaluate(0.2)
    index = read_index(tree, "wrist")
    sets = index["split"].map({"train": "train", "valid": "test"})
    split = index[["image", "patient"]].assign(set=sets, file="0123456789abcdef")
    version = registry.add(train_run(1.5, n_test=32, split=split))
    (reason,) = registry.promote(version).decision.reasons
    assert f"at {tree} have changed since version {version} was evaluated on them" in reason
    assert calls == []

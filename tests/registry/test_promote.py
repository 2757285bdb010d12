"""`promote` from the command line: what is refused, what is accepted, and what the version says afterwards."""

from __future__ import annotations

from dataclasses import replace

import pytest
from typer.testing import CliRunner

from muralab.cli import app
from muralab.commands.evaluate import load_model
from muralab.errors import SettingsError, StoreError
from muralab.evaluation.calibration import Calibration
from muralab.registry import champion_comparison as contest
from muralab.registry.promote import find_alias, promote_version
from muralab.tracking import count_evaluations, read_run, start_run


@pytest.fixture
def promote(store, monkeypatch, tmp_path):
    """The command, given as words; returns what it printed, or raises what it raised."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", store.uri)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))

    def call(*words: str) -> str:
        result = CliRunner().invoke(app, ["promote", *words])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result.output

    return call


def add_version(store, part: str, run_id: str, **tags: str) -> str:
    """A version of mura-<part> whose files are never asked for."""
    client = store.client
    if not client.search_registered_models(f"name='mura-{part}'"):
        client.create_registered_model(f"mura-{part}")
    return str(client.create_model_version(f"mura-{part}", source="nowhere", run_id=run_id, tags=tags).version)


def holder(store, part: str, alias: str) -> str | None:
    """The version that an alias names."""
    found = find_alias(store, f"mura-{part}", alias)
    return None if found is None else str(found.version)


@pytest.fixture
def lab(store, train_run, request):
    """A registered model of the test's own with a champion of middling skill; returns (part, champion's version)."""
    part = request.node.name.replace("_", "-")[:60]
    version = add_version(store, part, train_run(0.6))
    store.client.set_registered_model_alias(f"mura-{part}", "champion", version)
    return part, version


def test_a_worse_model_stays_challenger(store, train_run, promote, lab):
    part, champion = lab
    version = add_version(store, part, train_run(0.0))
    said = promote("--part", part, "--version", version)
    assert "refused, stays challenger" in said
    assert f"against version {champion}: paired difference -0." in said
    assert holder(store, part, "champion") == champion
    assert holder(store, part, "challenger") == version


def test_a_better_model_becomes_champion(store, train_run, promote, lab):
    part, _ = lab
    version = add_version(store, part, train_run(1.5))
    store.client.set_registered_model_alias(f"mura-{part}", "challenger", version)
    assert "accepted as champion" in promote("--part", part, "--version", version)
    assert holder(store, part, "champion") == version
    assert holder(store, part, "challenger") is None


def test_the_version_says_why_and_counts_the_looks(store, train_run, promote, lab):
    part, champion = lab
    version = add_version(store, part, train_run(0.0))
    promote("--part", part, "--version", version)
    tags = store.client.get_model_version(f"mura-{part}", version).tags
    assert tags["muralab.gate"] == "refused"
    assert tags["muralab.gate_against"] == f"version {champion}"
    assert "reaches below the margin" in tags["muralab.gate_reasons"]
    assert int(tags["muralab.test_looks"]) >= 2


def test_every_model_that_met_the_test_set_counts_as_a_look(store, train_run, tmp_path):
    versions = [add_version(store, "looks", train_run(1.0, n_test=31)) for _ in range(3)]
    done = promote_version(store, "mura-looks", versions[0], cache=tmp_path, dry_run=True)
    assert done.looks == 3


def test_a_wider_margin_is_taken_from_the_command_line(store, train_run, promote, lab):
    part, _ = lab
    version = add_version(store, part, train_run(0.6))
    promote("--part", part, "--version", version, "--margin", "0.2")
    assert store.client.get_model_version(f"mura-{part}", version).tags["muralab.gate_margin"] == "0.2"


def test_dry_run_changes_nothing(store, train_run, promote, lab):
    part, champion = lab
    version = add_version(store, part, train_run(1.5))
    assert "nothing was changed" in promote("--part", part, "--version", version, "--dry-run", "true")
    assert store.client.get_model_version(f"mura-{part}", version).tags == {}
    assert holder(store, part, "champion") == champion


def test_the_champion_stays_what_it_is(promote, lab):
    part, champion = lab
    assert "It is the champion already" in promote("--part", part, "--version", champion)


def test_a_synthetic_model_never_replaces_a_real_one(store, train_run, promote, lab):
    part, _ = lab
    version = add_version(store, part, train_run(2.0), **{"muralab.synthetic": "true"})
    assert "It was trained on synthetic pictures" in promote("--part", part, "--version", version)


@pytest.mark.parametrize("synthetic", ["true", "false"])
def test_anything_may_replace_a_synthetic_model(store, train_run, tmp_path, synthetic):
    name = f"replaced-{synthetic}"
    champion = add_version(store, name, train_run(0.6), **{"muralab.synthetic": "true"})
    store.client.set_registered_model_alias(f"mura-{name}", "champion", champion)
    version = add_version(store, name, train_run(2.0), **{"muralab.synthetic": synthetic})
    done = promote_version(store, f"mura-{name}", version, cache=tmp_path, dry_run=True)
    assert done.verdict.accepted
    assert f"against version {champion}" in done.verdict.reasons[0]


def test_a_version_is_judged_by_the_objective_that_chose_it(store, train_run, tmp_path, lab):
    part, _ = lab
    versions = [
        add_version(store, part, train_run(2.0), **tags) for tags in ({"muralab.objective": "val_accuracy"}, {})
    ]
    reasons = [
        promote_version(store, f"mura-{part}", version, cache=tmp_path, dry_run=True).verdict.reasons[0]
        for version in versions
    ]
    assert [reason.split(" against")[0] for reason in reasons] == ["Image-level Accuracy", "Study-level AUROC"]


def test_other_test_sets_are_refused_where_the_champion_cannot_be_judged_again(store, train_run, promote, lab):
    part, champion = lab
    version = add_version(store, part, train_run(2.0, n_test=30))
    said = promote("--part", part, "--version", version)
    assert f"The champion, version {champion}, met an older test set and could not be judged on that of" in said
    assert "refused" in said


def test_other_pictures_under_the_same_names_are_another_test_set(store, train_run, promote, lab):
    part, _ = lab
    version = add_version(store, part, train_run(2.0, digest="other"))
    assert "met an older test set" in promote("--part", part, "--version", version)


@pytest.fixture
def judged_again(monkeypatch, make_test):
    """What is judged again, instead of what its ONNX would answer: (version, number of pictures); `skill` decides."""
    calls, skill = [], [1.0]

    def judge(_store, _name, version, test, *_):
        calls.append((version, len(test)))
        return test.assign(logit=skill[0] * (2 * test["label"] - 1) + 0.5 * make_test(0)["logit"][: len(test)].array), (
            Calibration()
        )

    monkeypatch.setattr(contest, "judge_registered", judge)
    return calls, skill


def test_an_older_model_is_judged_on_the_champions_newer_test_set(store, train_run, promote, judged_again):
    older, newer = train_run(2.0, n_test=30), train_run(0.6)
    candidate, champion = (add_version(store, "newer", run) for run in (older, newer))
    store.client.set_registered_model_alias("mura-newer", "champion", champion)
    said = promote("--part", "newer", "--version", candidate)
    n_newer = len(read_run(store, newer).predictions["test"])
    assert judged_again[0] == [(candidate, n_newer)]
    assert "accepted as champion" in said
    assert "has been looked at" in said
    tags = store.client.get_model_version("mura-newer", candidate).tags
    assert tags["muralab.test_fingerprint"] == read_run(store, newer).tags["muralab.test_fingerprint"]


def test_judging_again_is_one_look_more(store, train_run, lab, judged_again, tmp_path):
    part, champion = lab
    version = add_version(store, part, train_run(2.0, n_test=29))
    done = promote_version(store, f"mura-{part}", version, cache=tmp_path, dry_run=True)
    assert [judged for judged, _ in judged_again[0]] == [champion]
    assert count_evaluations(store, done.fingerprint) == 1, "the run of the candidate alone"
    assert done.looks == 2


def test_an_older_model_that_cannot_be_judged_on_the_newer_test_set_is_refused(store, train_run, promote):
    candidate, champion = (add_version(store, "older", train_run(2.0, n_test=n)) for n in (30, None))
    store.client.set_registered_model_alias("mura-older", "champion", champion)
    said = promote("--part", "older", "--version", candidate)
    assert (
        f"It, version {candidate}, met an older test set and could not be judged on that of version {champion}" in said
    )


def test_a_champion_that_answers_nan_refuses_and_does_not_end_the_sweep(store, train_run, promote, lab, judged_again):
    part, _ = lab
    judged_again[1][0] = float("nan")
    version = add_version(store, part, train_run(2.0, n_test=30))
    said = promote("--part", part, "--version", version)
    assert "refused, stays challenger" in said
    assert "have no finite logit" in said


def test_a_dry_run_says_that_its_look_is_recorded_nowhere(store, train_run, promote, lab, judged_again):
    part, _ = lab
    version = add_version(store, part, train_run(2.0, n_test=30))
    said = promote("--part", part, "--version", version, "--dry-run", "true")
    assert "The look at the test set that judging again took is counted above, and recorded nowhere." in said


def test_an_evaluation_stands_for_its_trained_run(store, train_run, promote, lab):
    part, _ = lab
    run = train_run(1.5, **{"muralab.part": part})
    version = add_version(store, part, run)
    again = train_run(0.0, **{"muralab.part": part, "muralab.evaluates": run})
    said = promote("--part", part, "--run", again)
    assert f"The run {again} judged the model of {run} again: that one is taken" in said
    assert f"version {version}: accepted as champion" in said


def test_a_run_without_test_predictions_is_named(train_run, promote):
    run = train_run(1.0, tested=False)
    with pytest.raises(StoreError, match=f"The run {run} .* holds no test predictions"):
        promote("--run", run)


def test_an_unknown_version_lists_the_known_ones(promote, lab):
    part, champion = lab
    with pytest.raises(StoreError, match=f"no version 99 of mura-{part}. Versions: {champion}."):
        promote("--part", part, "--version", "99")


@pytest.mark.parametrize("words", [(), ("--run", "a", "--version", "1")])
def test_one_of_run_and_version_is_needed(promote, words):
    with pytest.raises(SettingsError, match="promote needs one of run="):
        promote(*words)


def test_a_part_that_no_folder_can_have_is_refused(promote):
    with pytest.raises(SettingsError, match="part=wri'st: expected a body part"):
        promote("--part", "wri'st", "--version", "1")


def test_a_run_without_weights_is_said_to_keep_none(store):
    run = start_run(store, kind="trial", name="cnn-01")
    record = replace(read_run(store, run), params={"resolved.recipe": "cnn"}, recipe="cnn")
    with pytest.raises(StoreError, match=r"keeps no weights: of a sweep the best trial .*, of a comparison none"):
        load_model(store, record)


def test_a_run_of_another_part_is_refused(train_run, promote):
    with pytest.raises(SettingsError, match="is of part=wrist, not of part=hand"):
        promote("--part", "hand", "--run", train_run(1.0))


@pytest.mark.slow
def test_a_run_is_registered_then_judged_again_on_another_test_set(store, train_run, promote):
    first, second = train_run(2.0), train_run(2.0, n_test=30)
    assert "mura-wrist version 1: accepted as champion" in promote("--part", "wrist", "--run", first)
    version = store.client.get_model_version_by_alias("mura-wrist", "champion")
    assert version.run_id == first
    assert version.description.startswith("# custom CNN, wrist")
    assert store.client.get_registered_model("mura-wrist").description == version.description
    said = promote("--part", "wrist", "--version", add_version(store, "wrist", second))
    assert "against version 1 (judged again): paired difference" in said

"""The end of a sweep: what is kept whatever happens, and what the last lines say."""

from __future__ import annotations

import base64
import io
import json
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pandas as pd
import pytest
from muralab.config.settings import Request
from rich.console import Console

from muralab.errors import SettingsError
from muralab.evaluation.bootstrap import Interval
from muralab.tune import finish as closing
from muralab.tune.finish import absent_sentences, conclude, figure_lines, next_commands, why_unregistered
from muralab.tune.registration import registering
from tests.report.conftest import build_entry
from tests.tune.test_trial_logger import Notes

GATE = "inception_add_gate"
INTERVAL = Interval(estimate=0.8, low=0.7, high=0.9, n_resamples=10)


@dataclass(frozen=True)
class Said:
    """Of a report's context what the end of a sweep adds to."""

    statements: tuple[str, ...] = ()


def judged_one(recipe: str) -> Any:
    intervals = {"auroc": INTERVAL, "kappa": INTERVAL}
    return SimpleNamespace(spec=SimpleNamespace(recipe=recipe, name=f"{recipe}-00"), run_id="r1", intervals=intervals)


@pytest.fixture
def sweep(tmp_path: Path) -> Any:
    """Of two recipes with two trials each, one of which registers."""
    counts = pd.DataFrame([{"set": "test", "studies": 40, "patients": 40, "images": 80}])
    recipes = {"cnn": SimpleNamespace(registers=False), GATE: SimpleNamespace(registers=True)}
    return SimpleNamespace(
        settings=SimpleNamespace(request=Request(pictures="false"), recipes=recipes),
        specs=[SimpleNamespace(name=f"{recipe}-{n:02d}", recipe=recipe) for n in (0, 1) for recipe in recipes],
        dataset=SimpleNamespace(
            part="wrist", synthetic=False, counts=lambda: counts, tables={"test": pd.DataFrame({"path": ["/p.png"]})}
        ),
        store=SimpleNamespace(uri=f"sqlite:///{tmp_path}/my runs/mlflow.db"),
        folders=SimpleNamespace(plan=tmp_path / "plan.json"),
        console=Console(file=io.StringIO(), width=10_000),
        notes=[],
        weights="",
    )


def test_a_model_that_cannot_be_registered_costs_neither_the_results_nor_the_report(
    sweep: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes, pages = Notes(), []
    error = SettingsError("The export differs from the network.")
    book: Any = SimpleNamespace(best={GATE: (0.8, f"{GATE}-00")}, failures={}, parent="p", writer=notes)
    monkeypatch.setattr(closing, "_judge", lambda _book, name, _rule: judged_one(name))
    monkeypatch.setattr(closing, "read_children", lambda *_: [SimpleNamespace(run_id="r1", name="n")])
    monkeypatch.setattr(closing, "build_entry", lambda *_: build_entry(GATE))
    monkeypatch.setattr(closing, "build_context", lambda *_: Said())
    monkeypatch.setattr(closing, "build_previews", lambda _: {})
    monkeypatch.setattr(closing, "build_trials", lambda _: [])
    monkeypatch.setattr(closing, "write_report", lambda path, **values: pages.append(values) or path)

    def register(*_: Any) -> None:
        assert [call[2] for call in notes.all("log_table")] == ["results.csv"]
        raise error

    monkeypatch.setattr(closing, "register_best", register)
    with pytest.raises(SettingsError) as caught:
        conclude(sweep, book)
    assert caught.value is error
    assert notes.all("log_file")[-1][1].name == "report.html"
    said = "could not be exported, checked, registered or judged by the gate. The export differs from the network."
    assert said in pages[0]["context"].statements[-1]
    assert said in sweep.console.file.getvalue()


def test_the_last_lines_name_the_winner_and_what_is_registered_instead(sweep: Any) -> None:
    entries = [build_entry("cnn", skill=2.0), build_entry(GATE, skill=1.0)]
    lines = figure_lines(sweep, [judged_one("cnn"), judged_one(GATE)], entries, ["x has no result."], GATE)
    assert "  x has no result." in lines
    assert lines[-2].startswith("The winner, by validation: Cnn reaches a study-level test AUROC of 1.000 [")
    assert lines[-1].startswith("The registered model is Inception_Add_Gate, although validation put Cnn first")


def test_a_recipe_without_a_result_is_named_with_its_reason(sweep: Any) -> None:
    book: Any = SimpleNamespace(best={}, failures={"cnn-00": "Traceback\nValueError: no such shape."})
    assert absent_sentences(sweep, book) == [
        "cnn has no result: of 2 trials, 1 failed, the first: ValueError: no such shape; 1 had no time for an epoch "
        "of the full phase.",
        f"{GATE} has no result: of 2 trials, 2 had no time for an epoch of the full phase.",
    ]


def test_of_several_recipes_that_register_the_best_by_validation_does() -> None:
    judged = [judged_one(name) for name in ("cnn", GATE, GATE)]
    entries = [replace(build_entry(), objective=objective) for objective in (0.9, 0.5, 0.8)]
    assert registering(judged, entries) is judged[2]
    assert registering(judged[:1], entries[:1]) is None


def test_a_registering_recipe_that_failed_was_among_those_that_ran(sweep: Any) -> None:
    assert why_unregistered(sweep, [judged_one("cnn")], [build_entry()], None) == (
        f"Not registered: {GATE}, which would be, has no result."
    )
    del sweep.settings.recipes[GATE]
    assert "was among those that ran" in why_unregistered(sweep, [judged_one("cnn")], [build_entry()], None)


def test_a_bug_of_the_exporter_is_told_in_a_line(sweep: Any) -> None:
    said = why_unregistered(
        sweep, [judged_one(GATE)], [build_entry()], ValueError("It is \x1b[96mstep 3\x1b[0m.\nNext steps: ...")
    )
    assert "by the gate. It is step 3. (ValueError). Its weights" in said


def test_the_next_commands_can_be_pasted_whatever_the_paths_hold(sweep: Any, tmp_path: Path) -> None:
    picture = tmp_path / "it's a 'path'.png"
    picture.write_bytes(b"pixels")
    sweep.dataset.tables["test"]["path"] = [str(picture)]
    *_, serve, _, ask = next_commands(sweep, SimpleNamespace(uri="models:/mura-wrist@champion"))  # type: ignore[arg-type]
    done = subprocess.run(["bash", "-c", f"curl() {{ cat; }}\n{ask}"], capture_output=True, text=True, check=True)
    assert base64.b64decode(json.loads(done.stdout)["dataframe_records"][0]["image"]) == b"pixels"
    shown = f"mlflow() {{ echo $MLFLOW_TRACKING_URI; }}\n{serve}"
    assert subprocess.check_output(["bash", "-c", shown], text=True).strip() == sweep.store.uri

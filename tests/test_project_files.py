"""The files by which others cite, check and release the project: valid, and true to it."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from muralab import __version__

ROOT = Path(__file__).parents[1]
CITATION, WORKFLOW, HOOKS = "CITATION.cff", ".github/workflows/ci.yml", ".pre-commit-config.yaml"


def read(name: str) -> dict:
    return yaml.safe_load((ROOT / name).read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("schema", "name"), [("vendor.citation-file-format", CITATION), ("vendor.github-workflows", WORKFLOW)]
)
def test_a_file_is_valid_by_its_schema(schema: str, name: str) -> None:
    command = [sys.executable, "-m", "check_jsonschema", "--builtin-schema", schema, str(ROOT / name)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout


def test_the_hooks_are_valid() -> None:
    command = [sys.executable, "-m", "pre_commit", "validate-config", str(ROOT / HOOKS)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_workflow_and_hooks_run_what_every_change_must_pass() -> None:
    assert read(WORKFLOW)["jobs"]["check"]["steps"][-1] == {"run": ".ci/run"}
    assert [hook["entry"] for repo in read(HOOKS)["repos"] for hook in repo["hooks"]] == ["make check"]


def test_citation_and_release_notes_are_of_this_version() -> None:
    assert read(CITATION)["version"] == __version__
    assert f"\n## {__version__}" in (ROOT / "docs" / "release-notes.md").read_text(encoding="utf-8")


def test_make_sweeps_and_trains_in_the_experiment_that_was_named() -> None:
    text = (ROOT / "Makefile").read_text(encoding="utf-8")
    assert text.count('--experiment-name "$${MLFLOW_EXPERIMENT_NAME:-mura-$(PART)}"') == 2

"""The docs: they build as a site without a warning, and the references are those of the code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import generate
from mlflow_reference import undocumented

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("page", ["recipes.md", "mlflow-reference.md"])
def test_the_references_are_up_to_date(page: str):
    assert (ROOT / "docs" / page).read_text(encoding="utf-8") == generate.PAGES[page](), "run: make generate"


def test_what_the_reference_lacks_is_found():
    known = {
        "metrics_of": ["val/study_auroc", "phase/upper/val_loss", "test/study_auroc_low"],
        "tags_of": ["muralab.kind", "mlflow.muralab.pid", "muralab.test_study_auroc"],
        "params": ["resolved.full.lr"],
        "artifacts": ["recipe/cnn.py", "checks/labels.csv"],
    }
    new = {
        "metrics_of": ["upper_val_loss", "val/speed", "test/study_auroc_range", "progress/trials_done"],
        "tags_of": ["muralab.kinds", "muralab.pid"],
        "params": ["full.lr"],
        "artifacts": ["predictions/train.csv", "labels.csv", "plan.json"],
    }
    assert undocumented("train", **known) == []
    assert len(undocumented("train", **new)) == 10


@pytest.mark.slow
def test_the_site_builds_without_a_warning(tmp_path):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path / "site")]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    assert {"index.html", "recipes.html", "contributing.html"} <= {p.name for p in (tmp_path / "site").iterdir()}

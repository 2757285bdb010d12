"""The docs: a site that builds without a warning and works when opened as files; the references are the code's."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import generate
from mlflow_reference import undocumented
from tests.app.browser import browsing, needs_browser

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
        "params": ["full.lr", "resolved.full.nonsense"],
        "artifacts": ["predictions/train.csv", "labels.csv", "plan.json"],
    }
    assert undocumented("train", **known) == []
    assert [what.split()[1] for what in undocumented("train", **new)] == [
        *new["metrics_of"],
        *new["params"],
        *new["artifacts"],
        *new["tags_of"],
    ]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_the_site_builds_without_a_warning(site):
    assert {"index.html", "recipes.html", "contributing.html"} <= {p.name for p in site.iterdir()}


# The pages in a real browser, opened as files


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with browsing(tmp_path_factory.mktemp("profile")) as one:
        yield one


@needs_browser
@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("page", ["index", "tutorial", "options", "mlflow", "benchmarks"])
def test_a_page_fits_its_width(site, browser, page, width):
    browser.size(width, 900, phone=width < 500)
    browser.open(f"file://{site}/{page}.html")
    assert browser.layout_faults(width, within="article") == []


@needs_browser
@pytest.mark.slow
def test_pages_opened_as_files_can_be_searched(site, browser):
    browser.size(1280, 900)
    browser.open(f"file://{site}/tutorial.html")
    browser.messages()
    browser.type("[data-md-component=search-query]", "sensitivity")
    browser.wait(lambda: "matching documents" in browser.text(".md-search-result__meta"))
    found = browser.run("return [...document.querySelectorAll('.md-search-result__link')].map(a => a.href)")
    assert any(f"{site}/glossary.html" in address for address in found)
    assert browser.messages() == []
    assert "https://" not in browser.run("return [...document.scripts].map(s => s.src).join(' ')")

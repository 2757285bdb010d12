"""The page in a real browser; skipped where chromium is not installed."""

from __future__ import annotations

import json

import pytest

from muralab.app.build import build_app
from tests.app.browser import browsing, needs_browser
from tests.app.conftest import TOKEN, png, serving, text

pytestmark = [pytest.mark.slow, needs_browser]


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with browsing(tmp_path_factory.mktemp("profile")) as one:
        yield one


@pytest.fixture
def page(browser, address):
    browser.size(1200, 900)
    browser.open(f"{address}/")
    browser.wait(lambda: "model not registered" in browser.text("#model"))
    return browser


@pytest.fixture
def views(tmp_path) -> list[str]:
    for name, level in (("a.png", None), ("b.png", 200)):
        (tmp_path / name).write_bytes(png(level))
    (tmp_path / "c.png").write_bytes(b"no picture")
    return [str(tmp_path / name) for name in ("a.png", "b.png", "c.png")]


def ask(page, files: list[str]) -> None:
    page.type("#files", "\n".join(files))
    page.click("#ask")
    page.wait(lambda: page.run("return !document.getElementById('ask').textContent.startsWith('Asking')"))


def test_a_study_is_answered_with_its_views_and_heat_maps(page, views):
    ask(page, views[:2])
    assert "Called abnormal" in page.text("#answer") or "Not called abnormal" in page.text("#answer")
    assert "Calibrated probability" in page.text("#answer")
    assert page.run("return [...document.images].every(i => i.src.startsWith('data:image/png') && i.naturalWidth > 0)")
    page.click("figure button")
    page.wait(lambda: page.run("return document.images[0].src.startsWith('blob:')"))


def test_a_study_above_all_of_its_views_is_explained(page, views):
    ask(page, views[1:2])
    assert "It lies above the probability of every view: the views are averaged" in page.text("#answer")


def test_an_unreadable_file_shows_its_error_and_is_left_out(page, views):
    ask(page, views)
    assert "left out: 1 of 3 files" in page.text("#answer")
    assert "Not answered: not a PNG, JPEG, TIFF, BMP or DICOM file" in page.text("figure:last-child")


def test_only_unreadable_files_are_an_error(page, views):
    ask(page, views[2:])
    assert "None of these files can be read" in page.text("#error")


HOLD = """
window.realFetch = window.realFetch || window.fetch;
window.held = [];
window.fetch = (...asked) => new Promise(go => held.push(() => go(realFetch(...asked))));
"""


@pytest.mark.parametrize("change", ["start over", "more files"])
def test_a_late_answer_is_not_shown_under_other_files(page, views, change):
    page.run(HOLD)
    page.type("#files", views[0])
    page.click("#ask")
    page.wait(lambda: page.run("return held.length"))
    if change == "start over":
        page.click("#clear")
    page.type("#files", views[1])
    page.run("held.forEach(go => go()); window.fetch = realFetch")
    page.wait(lambda: page.run("return performance.getEntriesByName(location + 'invocations').length"))
    page.run("return new Promise(done => setTimeout(done, 300))")
    assert page.run("return document.getElementById('answer').hidden")
    assert "for this view" not in page.text("#views")
    page.click("#ask")
    page.wait(lambda: "Calibrated probability" in page.text("#answer"))


DROP = """
const files = new DataTransfer();
files.items.add(new File([Uint8Array.from(atob(%r), c => c.charCodeAt(0))], "dropped.png", { type: "image/png" }));
const target = document.querySelector("#drop strong");
for (const kind of ["dragover", "drop"])
  target.dispatchEvent(new DragEvent(kind, { dataTransfer: files, bubbles: true, cancelable: true }));
"""


def test_dropped_files_are_added(page):
    page.run(DROP % text())
    assert "1. dropped.png" in page.text("#views")
    page.click("#ask")
    page.wait(lambda: "Calibrated probability" in page.text("#answer"))


def test_the_share_of_abnormal_studies_at_the_site_is_sent(page, views):
    assert "Probabilities hold where 30" in page.text("#facts")
    page.type("#prevalence", "5")
    ask(page, views[:1])
    assert "Both for 5" in page.text("#answer")


def test_an_impossible_share_is_refused_on_the_page(page, views):
    page.type("#prevalence", "140")
    ask(page, views[:1])
    assert "give 0.1 to 99.9" in page.text("#error")


def test_start_over_empties_the_page(page, views):
    ask(page, views[:1])
    page.click("#clear")
    assert page.run("return document.querySelectorAll('figure').length") == 0
    assert page.run("return document.getElementById('ask').disabled")


def test_the_disclaimer_and_the_synthetic_origin_are_shown(page):
    assert "Not a medical device" in page.text("#disclaimer")
    assert "synthetic images" in page.text("#disclaimer")


@pytest.mark.parametrize("width", [320, 390, 1200])
def test_nothing_is_cut_off_at_any_width(page, views, width):
    page.size(width, 800, phone=width < 500)
    ask(page, views)
    assert page.run("return document.documentElement.scrollWidth <= window.innerWidth")


def test_a_token_is_asked_for_and_used(browser, model, views):
    with serving(build_app(model, {"model_version": "tiny/1", "disclaimer": "None."}, token=TOKEN)) as url:
        browser.open(f"{url}/")
        browser.wait(lambda: not browser.run("return document.getElementById('access').hidden"))
        browser.type("#token", TOKEN)
        browser.click("#access button")
        browser.wait(lambda: "tiny/1" in browser.text("#model"))
        ask(browser, views[:1])
        assert "Calibrated probability" in browser.text("#answer")


def test_the_page_contacts_no_other_server_and_violates_no_policy(page, views):
    page.messages()
    ask(page, views[:2])
    asked = page.run("return performance.getEntriesByType('resource').map(e => e.name)")
    assert all(name.startswith(("http://127.0.0.1", "data:", "blob:")) for name in asked)
    assert page.messages() == []


def test_maps_that_are_too_coarse_are_named_once_for_the_study(page, views):
    page.type("#files", "\n".join(views[:2]))
    row = {"probability": 0.4, "study_probability": 0.4, "threshold": 0.5, "model_version": "m", "heatmap": None}
    rows = [row | {"warnings": ["no heat map: the network sees a view in 2 x 2 cells only"]}] * 2
    page.run(f"state.answered = {json.dumps(rows)}; drawViews(); drawAnswer(state.answered, 1);")
    assert "There is no heat map: the network sees a view in 2 x 2 cells only." in page.text("#answer")
    assert "heat map" not in page.text("#views")

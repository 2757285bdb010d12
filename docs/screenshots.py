"""Take the pictures of docs/images anew, of the newest sweep of the demo in this checkout: python docs/screenshots.py

It serves MLflow's pages and the app on free ports of this machine and opens them in a headless Chromium (Debian:
chromium, chromium-driver). A look at each picture afterwards is the reader's part.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import cv2

from muralab.demo.dataset import default_folder
from muralab.tracking import Store, local_artifact, open_store, read_children
from muralab.tracking.experiment_page import view_key
from muralab.tracking.pages import run_page, version_page, view_page
from muralab.tracking.runs import search_runs
from muralab.tracking.tags import Tag
from tests.app.browser import Browser, browsing

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"
MLFLOW_SIZE, DESKTOP, PHONE = (1500, 1000), 1280, 390
LOADED_S = 4.0
"""For what MLflow's pages draw after their texts."""
TALLEST = 2000
"""Pictures of longer pages end here, in px."""
HEIGHTS = {"mlflow-trial": 800}
"""Of pictures that end earlier: before the tag that holds a path of this machine."""
TIDY = """
for (const button of document.querySelectorAll("button")) {
    if (button.ariaLabel === "Close" || button.innerText === "Show more") { button.click(); }
}
"""
"""Close MLflow's assistant, and show descriptions to their end."""


def main() -> None:
    """Take every picture."""
    store = open_store(os.environ.get("MLFLOW_TRACKING_URI", "sqlite:///mlflow.db"))
    sweeps = search_runs(store, None, f"tags.`{Tag.KIND}` = 'tune' and tags.`{Tag.SYNTHETIC}` = 'true'")
    sweep = max((run for run in sweeps if run.info.status == "FINISHED"), key=lambda run: run.info.start_time)
    run_id, experiment = sweep.info.run_id, sweep.info.experiment_id
    report = local_artifact(store, run_id, "report.html")
    champion = store.client.get_model_version_by_alias("mura-wrist", "champion")
    pages = {
        "mlflow-experiment": (view_page(experiment, view_key(run_id)), "finished"),
        "mlflow-run": (run_page(experiment, run_id), "Validation chose"),
        "mlflow-trial": (run_page(experiment, best_trial(store, run_id)), "objective/best"),
        "mlflow-charts": (view_page(experiment, view_key(run_id), charts=True), "full.lr"),  # the name of an axis
        "mlflow-model": (version_page(champion.name, champion.version), "mura-wrist"),
    }
    with tempfile.TemporaryDirectory() as folder, browsing(Path(folder)) as browser:
        for name, width in (("report-desktop", DESKTOP), ("report-phone", PHONE)):
            browser.size(width, 1800, phone=width == PHONE)
            browser.open(f"file://{report}")
            take(browser, name)
        command = [sys.executable, "-m", "mlflow", "ui", "--workers", "1", "--backend-store-uri", store.uri]
        with serving(command) as address:
            browser.size(*MLFLOW_SIZE)
            for name, (page, text) in pages.items():
                browser.open("about:blank")
                browser.open(f"{address}/{page}")
                browser.wait(lambda text=text: text in browser.text("body"))
                browser.run(TIDY)
                time.sleep(LOADED_S)
                take(browser, name, whole=False)
        with serving([sys.executable, "-m", "muralab", "app", "--model", "models:/mura-wrist@champion"]) as address:
            for name, width in (("app-desktop", 1170), ("app-phone", PHONE)):
                browser.size(width, 900, phone=width == PHONE)
                browser.open(address)
                ask(browser, a_study())
                take(browser, name)


def best_trial(store: Store, sweep: str) -> str:
    """The id of the trial of a sweep with the best objective."""
    trials = [run for run in read_children(store, sweep) if "objective" in run.metrics]
    return max(trials, key=lambda run: run.metrics["objective"]).run_id


def a_study() -> list[str]:
    """The files of the demo's abnormal test study with the most views."""
    studies = sorted(default_folder().glob("*/valid/XR_WRIST/*/*_positive"))
    return sorted(map(str, max((list(study.glob("*.png")) for study in studies), key=len)))


def ask(browser: Browser, files: list[str]) -> None:
    """Send files to the app and wait for its answer."""
    browser.type("#files", "\n".join(files))
    browser.click("#ask")
    browser.wait(lambda: browser.run("return !document.getElementById('ask').textContent.startsWith('Asking')"))


def take(browser: Browser, name: str, *, whole: bool = True) -> None:
    """Save one picture, of the whole page or of what the window shows."""
    path = IMAGES / f"{name}.png"
    browser.screenshot(path, whole=whole)
    picture = cv2.imread(str(path))[: HEIGHTS.get(name, TALLEST)]
    cv2.imwrite(str(path), picture, [cv2.IMWRITE_PNG_COMPRESSION, 9])
    print(path)


@contextlib.contextmanager
def serving(command: list[str]) -> Iterator[str]:
    """Run a server on a free port of this machine; its address, once it answers."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    address = f"http://127.0.0.1:{port}"
    process = subprocess.Popen([*command, "--host", "127.0.0.1", "--port", str(port)])
    try:
        for _ in range(300):
            with contextlib.suppress(OSError), urllib.request.urlopen(f"{address}/health", timeout=5):
                break
            time.sleep(1)
        yield address
    finally:
        process.terminate()
        process.wait(60)


if __name__ == "__main__":
    main()

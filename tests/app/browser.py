"""A real browser over the WebDriver protocol: JSON over HTTP to chromedriver, without a client library."""

from __future__ import annotations

import base64
import contextlib
import json
import shutil
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

ELEMENT = "element-6066-11e4-a52e-4f735466cecf"
NEEDED = {"chromium": shutil.which("chromium"), "chromedriver": shutil.which("chromedriver")}
MISSING = [name for name, path in NEEDED.items() if path is None]

needs_browser = pytest.mark.skipif(
    bool(MISSING), reason=f"not installed: {', '.join(MISSING)} (Debian: chromium, chromium-driver)"
)
CLIPPED = """
const clips = (e) => ["hidden", "clip"].includes(getComputedStyle(e).overflowX);
return [...document.querySelectorAll("WITHIN *")]
    .filter((e) => clips(e) && e.clientWidth > 1 && e.scrollWidth > e.clientWidth + 1 && e.innerText?.trim())
    .map((e) => `${e.tagName} ${e.scrollWidth} > ${e.clientWidth} px: ${e.innerText.trim().slice(0, 60)}`);
"""
"""Elements that hide the end of a line of theirs; those of 1 px are texts for screen readers."""


class Browser:
    """One window."""

    def __init__(self, address: str, profile: Path) -> None:
        self._address = address
        flags = ["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage"]
        options = {"binary": NEEDED["chromium"], "args": [*flags, f"--user-data-dir={profile}"]}
        wanted = {"alwaysMatch": {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}}
        self._session = self._call("POST", "/session", {"capabilities": wanted})["sessionId"]

    def _call(self, method: str, path: str, body: dict | None = None) -> Any:
        data = None if method == "GET" else json.dumps(body or {}).encode()
        request = urllib.request.Request(
            self._address + path, data, {"Content-Type": "application/json"}, method=method
        )
        try:
            with urllib.request.urlopen(request, timeout=300) as response:
                return json.load(response)["value"]
        except urllib.error.HTTPError as error:
            raise AssertionError(error.read().decode()[:500]) from None

    def ask(self, method: str, path: str, body: dict | None = None) -> Any:
        return self._call(method, f"/session/{self._session}{path}", body)

    def open(self, url: str) -> None:
        self.ask("POST", "/url", {"url": url})

    def size(self, width: int, height: int, *, phone: bool = False) -> None:
        """Set the size of the page as on a phone: a window cannot be narrower than 500 px."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
        self.ask("POST", "/goog/cdp/execute", {"cmd": "Emulation.setDeviceMetricsOverride", "params": metrics})

    def _find(self, selector: str) -> str:
        return self.ask("POST", "/element", {"using": "css selector", "value": selector})[ELEMENT]

    def click(self, selector: str) -> None:
        self.ask("POST", f"/element/{self._find(selector)}/click")

    def type(self, selector: str, text: str) -> None:
        self.ask("POST", f"/element/{self._find(selector)}/value", {"text": text})

    def run(self, script: str) -> Any:
        return self.ask("POST", "/execute/sync", {"script": script, "args": []})

    def text(self, selector: str) -> str:
        return str(self.run(f"return document.querySelector({json.dumps(selector)}).innerText"))

    def frame_text(self, selector: str) -> str:
        """The text of a frame, of which the page itself may not read anything."""
        self.ask("POST", "/frame", {"id": {ELEMENT: self._find(selector)}})
        try:
            return self.text("body")
        finally:
            self.ask("POST", "/frame", {"id": None})

    def wait(self, condition: Callable[[], Any], seconds: float = 100) -> None:
        end = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < end, self.text("body")
            time.sleep(0.05)

    def messages(self) -> list[str]:
        """Console of the page: failed scripts, and what the content security policy blocked."""
        return [entry["message"] for entry in self.ask("POST", "/se/log", {"type": "browser"})]

    def layout_faults(self, width: int, *, within: str = "body") -> list[str]:
        """What does not fit a width: a page that scrolls sideways, or text that is cut off within an element.

        A box that scrolls by itself is not a fault. The page is compared with the width that was set, because on a
        phone `innerWidth` grows with the page.
        """
        needed = self.run("return document.documentElement.scrollWidth")
        wide = [f"the page needs {needed} of {width} px"] if needed > width else []
        return [*wide, *self.run(CLIPPED.replace("WITHIN", within))]

    def screenshot(self, path: Path, *, whole: bool = True) -> None:
        """Save the page, or what the window shows of it: the whole page is laid out anew, and so are its charts."""
        shot = {"cmd": "Page.captureScreenshot", "params": {"captureBeyondViewport": whole}}
        path.write_bytes(base64.b64decode(self.ask("POST", "/goog/cdp/execute", shot)["data"]))

    def quit(self) -> None:
        self.ask("DELETE", "")


@contextlib.contextmanager
def browsing(folder: Path) -> Iterator[Browser]:
    """Start chromedriver and a browser on loopback, and stop both."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    driver = subprocess.Popen([str(NEEDED["chromedriver"]), f"--port={port}"], stdout=subprocess.DEVNULL)
    try:
        browser = None
        for _ in range(500):
            with contextlib.suppress(urllib.error.URLError, ConnectionError):
                browser = Browser(f"http://127.0.0.1:{port}", folder)
                break
            time.sleep(0.1)
        assert browser is not None, "chromedriver did not start"
        try:
            yield browser
        finally:
            browser.quit()
    finally:
        driver.terminate()
        driver.wait(10)

"""A headless Chromium, spoken to over a pipe: opens a file, moves what is on it, and tells what went wrong."""

import base64
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

__all__ = ["Browser", "chromium"]

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def chromium() -> str:
    """The browser's path; skips the test by name where there is none."""
    found = next((path for name in NAMES if (path := shutil.which(name)) is not None), None)
    if found is None:
        pytest.skip(f"needs a browser: none of {', '.join(NAMES)} is installed")
    return found


# The browser reads from 3 and writes to 4, whatever numbers the pipes have here.
PIPED = """
import os, sys
read, write = (os.dup2(int(number), 100 + place) for place, number in enumerate(sys.argv[1:3]))
os.dup2(read, 3), os.dup2(write, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


class Browser:
    """One page. `complaints`: what it wrote to its console, what was thrown, and what was blocked or fetched."""

    def __init__(self, folder: Path, width: int = 1100, height: int = 900) -> None:
        self.complaints: list[str] = []
        self._answers: dict[int, Any] = {}
        self._events: list[str] = []
        self._number, self._rest = 0, b""
        to_read, self._write = os.pipe()
        self._read, to_write = os.pipe()
        flags = [
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            "--disable-dev-shm-usage",
            "--remote-debugging-pipe",
        ]
        command = [chromium(), *flags, f"--user-data-dir={folder}", f"--window-size={width},{height}"]
        started = [sys.executable, "-c", PIPED, str(to_read), str(to_write), *command]
        self._process = subprocess.Popen(started, pass_fds=(to_read, to_write), stderr=subprocess.DEVNULL)
        os.close(to_read)
        os.close(to_write)
        target = self.send("Target.createTarget", {"url": "about:blank"})["targetId"]
        self._session = self.send("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.send(f"{domain}.enable")

    _session: str | None = None

    def send(self, method: str, parameters: dict[str, Any] | None = None) -> Any:
        """Call a method of the DevTools protocol, and return its result."""
        self._number += 1
        message: dict[str, Any] = {"id": self._number, "method": method, "params": parameters or {}}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while self._number not in self._answers:
            self._hear()
        answer = self._answers.pop(self._number)
        assert "error" not in answer, (method, answer["error"])
        return answer["result"]

    def _hear(self) -> None:
        while b"\0" not in self._rest:
            part = os.read(self._read, 1 << 20)
            assert part, "the browser has ended"
            self._rest += part
        text, _, self._rest = self._rest.partition(b"\0")
        message = json.loads(text)
        if "id" in message:
            self._answers[message["id"]] = message
            return
        method, given = message["method"], message["params"]
        self._events.append(method)
        if method == "Runtime.exceptionThrown":
            self.complaints.append(str(given["exceptionDetails"].get("exception", given["exceptionDetails"])))
        elif method == "Runtime.consoleAPICalled":
            self.complaints.append(f"console.{given['type']}: {given['args']}")
        elif method == "Log.entryAdded":
            self.complaints.append(given["entry"]["text"])
        elif method == "Network.requestWillBeSent" and not given["request"]["url"].startswith(("file:", "data:")):
            self.complaints.append(f"fetched {given['request']['url']}")

    def open(self, file: Path) -> None:
        self._events.clear()
        self.send("Page.navigate", {"url": file.resolve().as_uri()})
        while "Page.loadEventFired" not in self._events:
            self._hear()

    def evaluate(self, code: str) -> Any:
        """The value of a JavaScript expression, which may be a promise."""
        asked = {"expression": code, "returnByValue": True, "awaitPromise": True}
        answer = self.send("Runtime.evaluate", asked)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def show_as(self, *, width: int = 1100, height: int = 900, dark: bool = False, phone: bool = False) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
        self.send("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", {"features": [scheme]})

    def picture(self, to: Path, *, whole: bool = True) -> None:
        asked = {"format": "png", "captureBeyondViewport": whole}
        to.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", asked)["data"]))

    def pdf(self, to: Path) -> None:
        to.write_bytes(base64.b64decode(self.send("Page.printToPDF", {"printBackground": True})["data"]))

    def faults(self) -> list[tuple[str, str, list[str]]]:
        """What axe-core calls serious or critical on the page, all of it unfolded: rule, impact, and where. KDC_AXE
        names axe.min.js of the npm package axe-core; skips the test by name where it does not."""
        script = os.environ.get("KDC_AXE")
        if not script:
            pytest.skip("needs axe-core: KDC_AXE=…/node_modules/axe-core/axe.min.js")
        self.evaluate("document.querySelectorAll('details').forEach((found) => (found.open = true))")
        self.evaluate(Path(script).read_text(encoding="utf-8") + "; 0")
        told = "({ id, impact, nodes }) => [id, impact, nodes.map(({ target }) => target.join(' '))]"
        found = self.evaluate(f"axe.run().then(({{ violations }}) => violations.map({told}))")
        return [tuple(fault) for fault in found if fault[1] in ("serious", "critical")]

    def close(self) -> None:
        os.close(self._write)
        os.close(self._read)
        try:
            self._process.wait(timeout=20)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

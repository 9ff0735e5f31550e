"""A headless Chromium, driven over a pipe by its DevTools protocol."""

import base64
import itertools
import json
import os
import select
import shutil
import subprocess
from pathlib import Path
from typing import Any

FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-background-networking",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)


def find() -> str | None:
    """Return the path of a Chromium, or None."""
    return next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )


class Browser:
    """One page. `events` collects what the browser reported: requests, console messages, exceptions."""

    def __init__(self, profile: Path) -> None:
        read_commands, self._write = os.pipe()
        self._read, write_answers = os.pipe()
        # The protocol speaks over descriptors 3 and 4 of the browser.
        line = f'exec "$@" 3<&{read_commands} 4>&{write_answers}'
        self._process = subprocess.Popen(
            ["bash", "-c", line, "bash", str(find()), *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=(read_commands, write_answers),
            stderr=subprocess.DEVNULL,
        )
        os.close(read_commands)
        os.close(write_answers)
        self._numbers = itertools.count(1)
        self._pending = b""
        self._session = ""
        self.events: list[dict[str, Any]] = []
        target = self._send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self._send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self._send(f"{domain}.enable")

    def close(self) -> None:
        """End the browser and its processes."""
        self._session = ""
        self._send("Browser.close")
        self._process.wait(30)
        os.close(self._read)
        os.close(self._write)

    def open(self, page: Path, width: int, dark: bool = False, height: int = 900) -> None:
        """Load a page at a width in CSS pixels, and wait until it is loaded."""
        self.events.clear()
        self._send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 500
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._send("Emulation.setEmulatedMedia", features=[scheme])
        self._send("Page.navigate", url=page.as_uri())
        self._wait("Page.loadEventFired")
        self.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 200)))")

    def media(self, kind: str, width: int) -> None:
        """Show the page that is loaded as on another medium, such as `print`, at a width in CSS pixels."""
        self._send("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        self._send("Emulation.setEmulatedMedia", media=kind)
        self.evaluate("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 200)))")

    def evaluate(self, script: str) -> Any:
        """Return the value of an expression in the page, or of its promise."""
        answer = self._send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def screenshot(self, path: Path) -> None:
        """Write a picture of the whole page as a PNG file."""
        data = self._send("Page.captureScreenshot", captureBeyondViewport=True, format="png")["data"]
        path.write_bytes(base64.b64decode(data))

    def print(self, path: Path) -> None:
        """Write the page as a PDF file, A4."""
        data = self._send("Page.printToPDF", paperWidth=8.27, paperHeight=11.69, preferCSSPageSize=True)["data"]
        path.write_bytes(base64.b64decode(data))

    def _send(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        message: dict[str, Any] = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._write_all(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == number:
                assert "error" not in answer, (method, answer["error"])
                return answer["result"]
            self.events.append(answer)

    def _write_all(self, data: bytes) -> None:
        while data:
            data = data[os.write(self._write, data) :]

    def _wait(self, method: str) -> None:
        while not any(event.get("method") == method for event in self.events):
            self.events.append(self._receive())

    def _receive(self, seconds: float = 200) -> dict[str, Any]:
        # Long enough for a busy machine; a browser that hangs still fails before the test's own time limit.
        while b"\0" not in self._pending:
            ready, _, _ = select.select([self._read], [], [], seconds)
            assert ready, "the browser does not answer"
            data = os.read(self._read, 1 << 20)
            assert data, "the browser ended"
            self._pending += data
        message, _, self._pending = self._pending.partition(b"\0")
        return json.loads(message)

"""A headless Chromium, driven over its DevTools protocol through a pair of pipes.

`--remote-debugging-pipe` reads JSON messages, each ended by a NUL, from descriptor 3 and writes
them to descriptor 4: no port, no library. Nothing sleeps: `until` asks the page again until the
time is up.
"""

import base64
import fcntl
import json
import os
import select
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--hide-scrollbars",
    "--remote-debugging-pipe",
)
PATIENCE = 120.0  # seconds: a shared machine may be slow, and only a broken page is never ready


class Browser:
    """One tab; what its console said and what it asked the network for."""

    def __init__(self, write: int, read: int):
        self._write, self._read, self._buffer, self._last = write, read, b"", 0
        self._session: str | None = None
        self.console: list[str] = []
        self.requests: list[str] = []
        target = self._send("Target.createTarget", url="about:blank")["targetId"]
        attached = self._send("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Runtime", "Log", "Network", "Page"):
            self._send(f"{domain}.enable")

    def open(self, url: str) -> None:
        """Go there and wait until the page says that it has drawn itself."""
        self._send("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && document.body.dataset.ready === 'yes'")

    def blank(self) -> None:
        """An empty page: a next one is loaded anew, even at the same address."""
        self._send("Page.navigate", url="about:blank")
        self.until("location.href === 'about:blank' && document.readyState === 'complete'")
        self.requests.clear()

    def size(self, width: int, height: int, *, dark: bool = False, scale: float = 1) -> None:
        """The window's size in CSS pixels, and the colour scheme that the reader prefers."""
        self._send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._send("Emulation.setEmulatedMedia", features=[scheme])

    def value(self, expression: str) -> Any:
        """What a JavaScript expression is worth."""
        answer = self._send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        if "exceptionDetails" in answer:
            raise AssertionError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def until(self, condition: str) -> None:
        """Wait for a JavaScript condition."""
        end = time.monotonic() + PATIENCE
        while not self.value(f"!!({condition})"):
            if time.monotonic() > end:
                raise AssertionError(f"never came true: {condition}\nconsole: {self.console}")
            time.sleep(0.02)

    def move(self, x: float, y: float) -> None:
        """Put the pointer there."""
        self._send("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def click(self, x: float, y: float) -> None:
        """Press and release the left button there."""
        self.move(x, y)
        for kind in ("mousePressed", "mouseReleased"):
            self._send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def key(self, name: str) -> None:
        """Press a key that has a name, such as ArrowRight."""
        codes = {"ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40,
                 "Enter": 13, "Escape": 27, "Tab": 9}  # fmt: skip
        about: dict[str, Any] = {"key": name, "code": name, "windowsVirtualKeyCode": codes[name]}
        text = {"text": "\r"} if name == "Enter" else {}
        self._send("Input.dispatchKeyEvent", type="keyDown", **about, **text)
        self._send("Input.dispatchKeyEvent", type="keyUp", **about)

    def screenshot(self, *, whole: bool = False) -> bytes:
        """The window as PNG; the whole page, however long, if asked."""
        answer = self._send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return base64.b64decode(answer["data"])

    def names(self) -> list[tuple[str, str]]:
        """Role and name of what a reader can act on, as a screen reader is told."""
        nodes = self._send("Accessibility.getFullAXTree")["nodes"]
        acting = {"slider", "combobox", "button", "listbox", "option", "image"}
        return [
            (node["role"]["value"], node.get("name", {}).get("value", ""))
            for node in nodes
            if not node["ignored"] and node["role"]["value"] in acting
        ]

    def close(self) -> None:
        """Ask it to end."""
        self._session = None
        self._send("Browser.close")

    def _send(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._last += 1
        message: dict[str, Any] = {"id": self._last, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._last:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']}")
                return answer["result"]
            self._note(answer.get("method"), answer.get("params", {}))

    def _receive(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            if not select.select([self._read], [], [], PATIENCE)[0]:
                raise AssertionError(f"the browser said nothing for {PATIENCE:.0f} seconds")
            if not (read := os.read(self._read, 1 << 16)):
                raise AssertionError("the browser ended")
            self._buffer += read
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)

    def _note(self, event: str | None, about: dict[str, Any]) -> None:
        if event == "Runtime.exceptionThrown":
            self.console.append(json.dumps(about["exceptionDetails"])[:1000])
        elif event == "Runtime.consoleAPICalled":
            self.console.append(json.dumps(about["args"])[:1000])
        elif event == "Log.entryAdded":
            self.console.append(about["entry"]["text"])
        elif event == "Network.requestWillBeSent":
            self.requests.append(about["request"]["url"])


def installed() -> str:
    """The path of a browser; the test is skipped where there is none."""
    found = next((path for name in NAMES if (path := shutil.which(name))), None)
    if found is None:
        pytest.skip(f"no browser installed: one of {', '.join(NAMES)}")
    return found


# Run by a Python of its own: only after a fork may descriptors 3 and 4 be overwritten.
LAUNCH = """
import os, sys
reads, writes, *command = sys.argv[1:]
os.dup2(int(reads), 3)
os.dup2(int(writes), 4)
os.execv(command[0], command)
"""


@contextmanager
def browsing(profile: Path) -> Iterator[Browser]:
    """A browser with a profile folder of its own, gone when the block ends."""
    command = [installed(), *FLAGS, f"--user-data-dir={profile}"]
    reads, write = _pipe()
    read, writes = _pipe()
    process = subprocess.Popen(
        [sys.executable, "-c", LAUNCH, str(reads), str(writes), *command],
        pass_fds=(reads, writes),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    os.close(reads)
    os.close(writes)
    try:
        browser = Browser(write, read)
        yield browser
        browser.close()
        process.wait(timeout=PATIENCE)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        os.close(write)
        os.close(read)


def _pipe() -> tuple[int, int]:
    """A pipe whose ends are neither 3 nor 4, so that neither is overwritten."""
    ends = os.pipe()
    high = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return high[0], high[1]

"""Chromium without a window, driven over its debugging pipe: for pages whose script is checked.

No other program is needed. Pages are opened as files or over http; no other host is reached.
"""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medil.errors import InputError

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
TIMEOUT_S = 300.0  # a large page checked on a busy computer takes minutes
OPTIONS = (
    "--headless=new", "--remote-debugging-pipe", "--no-first-run", "--disable-gpu",
    "--enable-unsafe-swiftshader",  # WebGL on the processor
    "--disable-background-networking", "--disable-component-update", "--disable-sync",
    "--disable-dev-shm-usage", "--force-device-scale-factor=1", "--no-sandbox",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE localhost, EXCLUDE 127.0.0.1",
)  # fmt: skip
LOCAL = ("file:", "data:", "blob:", "about:", "http://127.0.0.1", "http://localhost")


def program() -> str | None:
    """Chromium's path, None where it is not installed."""
    return next(filter(None, map(shutil.which, PROGRAMS)), None)


def foreign(url: str) -> str:
    """An address of another host; empty for files, data and this computer."""
    return "" if url.startswith(LOCAL) else url


@dataclass
class Page:
    """One page of a browser.

    Attributes:
        problems: What the console called an error, exceptions of scripts, and requests that
            failed or went to another host.
    """

    ask: int  # file descriptors of the pipe
    answer: int
    session: str = ""
    problems: list[str] = field(default_factory=list)
    _buffer: bytes = b""
    _number: int = 0
    _events: list[dict[str, Any]] = field(default_factory=list)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """A command of the DevTools protocol, and its result."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.ask, json.dumps(message).encode() + b"\0")
        while (said := self._read()).get("id") != self._number:
            self._note(said)
        if "error" in said:
            raise RuntimeError(f"{method}: {said['error']['message']}")
        return said["result"]

    def _read(self) -> dict[str, Any]:
        end = time.monotonic() + TIMEOUT_S
        while b"\0" not in self._buffer:
            if not select.select([self.answer], [], [], max(0.0, end - time.monotonic()))[0]:
                raise TimeoutError("Chromium does not answer.")
            if not (part := os.read(self.answer, 1 << 20)):
                raise EOFError("Chromium ended.")
            self._buffer += part
        message, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(message)

    def _note(self, event: dict[str, Any]) -> None:
        method, params = event.get("method", ""), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            details = params["exceptionDetails"]
            self.problems.append(details.get("exception", {}).get("description", details["text"]))
        elif method == "Log.entryAdded" and params["entry"]["level"] == "error":
            self.problems.append(params["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] == "error":
            self.problems.append(" ".join(str(a.get("value")) for a in params["args"]))
        elif method == "Network.requestWillBeSent" and (url := foreign(params["request"]["url"])):
            self.problems.append(f"asks another host: {url}")
        self._events.append(event)

    def open(self, url: str) -> None:
        """Open an address, and wait until it is loaded."""
        self._events.clear()
        loader = self.call("Page.navigate", url=url).get("loaderId")
        while loader and not self._is_loaded(loader):
            self._note(self._read())

    def _is_loaded(self, loader: str) -> bool:
        """Whether the page of a navigation, and not the one before it, has been loaded."""
        seen = False
        for event in self._events:
            if event.get("method") == "Page.frameNavigated":
                seen = seen or event["params"]["frame"]["loaderId"] == loader
            elif event.get("method") == "Page.loadEventFired" and seen:
                return True
        return False

    def evaluate(self, script: str) -> Any:
        """The value of a JavaScript expression, awaited; it must be JSON-able.

        Raises:
            RuntimeError: The script threw.
        """
        result = self.call(
            "Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True
        )
        if "exceptionDetails" in result:
            raise RuntimeError(result["exceptionDetails"]["exception"].get("description", "threw"))
        return result["result"].get("value")

    def cpu_s(self) -> float:
        """CPU time that the page's main thread has taken, in seconds."""
        self.call("Performance.enable", timeDomain="threadTicks")
        metrics = self.call("Performance.getMetrics")["metrics"]
        return next(m["value"] for m in metrics if m["name"] == "ThreadTime")

    def choose(self, selector: str, path: Path) -> None:
        """Choose a file in a file input; its listeners hear of it."""
        root = self.call("DOM.getDocument")["root"]["nodeId"]
        node = self.call("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.call("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def press(self, key: str, code: int) -> None:
        """Press a key, such as ``("ArrowRight", 39)`` or ``("Tab", 9)``."""
        for kind in ("rawKeyDown", "keyUp"):
            self.call(
                "Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code
            )

    def size(self, width: int, height: int) -> None:
        """The size of the window, in CSS pixels."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height,
                  deviceScaleFactor=1, mobile=False)  # fmt: skip

    def picture(self, path: Path) -> None:
        """Write what is seen as a PNG file."""
        data = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))


@contextmanager
def page() -> Iterator[Page]:
    """A fresh page in a fresh browser, which ends with the block.

    Raises:
        InputError: Chromium is not installed.
    """
    if (chromium := program()) is None:
        raise InputError(f"no browser is here; install one of {', '.join(PROGRAMS)}.")
    (theirs_in, ask), (answer, theirs_out) = os.pipe(), os.pipe()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
        browser = subprocess.Popen(
            [chromium, *OPTIONS, f"--user-data-dir={home}"],
            stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            preexec_fn=lambda: _as_3_and_4(theirs_in, theirs_out), close_fds=False,
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        try:
            yield _attached(Page(ask, answer))
        finally:
            browser.kill()
            browser.wait()
            os.close(ask)
            os.close(answer)


def _as_3_and_4(read: int, write: int) -> None:
    """Where Chromium expects its pipe; the ends may lie there in the wrong order."""
    read, write = os.dup(read), os.dup(write)
    while read in (3, 4):
        read = os.dup(read)
    while write in (3, 4):
        write = os.dup(write)
    os.dup2(read, 3)
    os.dup2(write, 4)


def _attached(page: Page) -> Page:
    target = page.call("Target.createTarget", url="about:blank")["targetId"]
    page.session = page.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    for domain in ("Page", "Runtime", "Log", "Network"):
        page.call(f"{domain}.enable")
    return page

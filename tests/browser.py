"""A real headless Chromium, driven over its DevTools pipe: opens a file with the network off and evaluates scripts."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage"),
    *("--window-size=1280,1600", "--remote-debugging-pipe"),
)
READY = """new Promise(done => {
    const look = () => document.documentElement.dataset.ready ? done(1) : setTimeout(look, 30);
    look(); setTimeout(done, 20000);
})"""


def find() -> str | None:
    """The browser's path."""
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Page:
    """One open page and what it has complained of."""

    def __init__(self, send: int, receive: int):
        self._send, self._receive = os.fdopen(send, "wb", buffering=0), os.fdopen(receive, "rb", buffering=0)
        self._pending, self._number, self._session = b"", 0, ""
        self.complaints: list[str] = []
        self.requests: list[str] = []

    def open(self, path: Path) -> None:
        """Open the file with the network off and wait until the page says that it has drawn."""
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")
        offline = {"offline": True, "latency": 0, "downloadThroughput": 0, "uploadThroughput": 0}
        self.call("Network.emulateNetworkConditions", **offline)
        self.call("Page.navigate", url=path.resolve().as_uri())
        while self.evaluate("location.protocol") != "file:":  # until the new document is there
            pass
        self.evaluate(READY)

    def evaluate(self, script: str) -> Any:
        """The value of an expression in the page; a promise is waited for."""
        found = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            raise AssertionError(found["exceptionDetails"])
        return found["result"].get("value")

    def settle(self) -> None:
        """Let the page draw."""
        self.evaluate("new Promise(done => setTimeout(done, 200))")

    def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        """One DevTools command and its answer."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._send.write(json.dumps(message).encode() + b"\0")
        while True:
            answer = self._next()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise AssertionError(f"{method}: {answer['error']}")
                return answer["result"]
            self._event(answer)

    def _event(self, event: dict[str, Any]) -> None:
        method, found = event.get("method"), event.get("params", {})
        if method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(found["exceptionDetails"])[:500])
        elif method == "Log.entryAdded" and found["entry"]["level"] in ("error", "warning"):
            self.complaints.append(found["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and found["type"] in ("error", "warning", "assert"):
            self.complaints.append(json.dumps(found["args"])[:500])
        elif method == "Network.requestWillBeSent":
            self.requests.append(found["request"]["url"])

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._pending:
            chunk = self._receive.read(1 << 16)
            if not chunk:
                raise AssertionError("the browser has gone")
            self._pending += chunk
        message, _, self._pending = self._pending.partition(b"\0")
        return json.loads(message)


@contextmanager
def opened(binary: str, path: Path) -> Iterator[Page]:
    """The page of a file, in a browser of its own that is ended afterwards."""
    to_browser, to_us = os.pipe(), os.pipe()

    def connect() -> None:  # the browser reads from 3 and writes to 4
        os.dup2(to_browser[0], 100), os.dup2(to_us[1], 101)
        os.dup2(100, 3), os.dup2(101, 4)

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        process = subprocess.Popen(
            [binary, *FLAGS, f"--user-data-dir={profile}"],
            preexec_fn=connect,
            close_fds=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser[0]), os.close(to_us[1])
        try:
            page = Page(to_browser[1], to_us[0])
            page.open(path)
            yield page
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()

"""A page in headless Chromium, over the DevTools protocol, for tests/test_page.py and test_report.py.

    python tests/browser.py OUT.png FILE.trit [--filter NAME] [--dark] [--width 1200] [--height 800]
    python tests/browser.py OUT.png REPORT.html [--dark] [--width 1200] [--height 800]

writes a picture of ports/js/index.html with a file chosen, or of a report.
"""

from __future__ import annotations

import argparse
import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

PAGE = Path(__file__).parents[1] / "ports" / "js" / "index.html"
CHROMIUM = shutil.which("chromium")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-pipe",
]
# Chromium reads commands from its descriptor 3 and writes answers to 4. Not by sh: dash copies only
# descriptors of one digit.
START = 'in=$1 out=$2; shift 2; exec "$@" 3<&"$in" 4>&"$out"'
SECONDS = 60  # for whatever the browser is asked


def _out_of_the_way(descriptor: int) -> int:
    """The same, as a number above 4."""
    moved = fcntl.fcntl(descriptor, fcntl.F_DUPFD, 10)
    os.close(descriptor)
    return moved


class Browser:
    """Chromium with the page open, as a context; `events` are what it reports unasked."""

    def __init__(self, page: Path = PAGE, ready: str = "globalThis.trit") -> None:
        """Start it, in a profile of its own; the page is open when *ready* holds in it, too."""
        if CHROMIUM is None:
            raise FileNotFoundError("chromium")
        self._page, self._ready = page, ready
        self.events: list[dict[str, Any]] = []
        self._last = 0
        self._rest = b""
        self._session: dict[str, str] = {}
        self._profile = tempfile.TemporaryDirectory(prefix="trit-page-", ignore_cleanup_errors=True)
        theirs_in, self._commands = map(_out_of_the_way, os.pipe())
        self._answers, theirs_out = map(_out_of_the_way, os.pipe())
        command = [CHROMIUM, *FLAGS, f"--user-data-dir={self._profile.name}", "about:blank"]
        self._process = subprocess.Popen(
            ["bash", "-c", START, "bash", str(theirs_in), str(theirs_out), *command],
            pass_fds=(theirs_in, theirs_out),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)

    def __enter__(self) -> Browser:
        """Open the page."""
        targets = self.send("Target.getTargets")["targetInfos"]
        page = next(target["targetId"] for target in targets if target["type"] == "page")
        attached = self.send("Target.attachToTarget", targetId=page, flatten=True)
        self._session = {"sessionId": attached["sessionId"]}
        for domain in ("Page", "Network", "Runtime", "Log"):
            self.send(f"{domain}.enable")
        self.send("Page.navigate", url=self._page.as_uri())
        self.wait(f"{self._ready} && document.readyState === 'complete'")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        os.close(self._commands)
        os.close(self._answers)
        self._profile.cleanup()

    def send(self, method: str, **parameters: object) -> dict[str, Any]:
        """What a command of the protocol answers."""
        self._last += 1
        message = {"id": self._last, "method": method, "params": parameters, **self._session}
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        while True:
            got = self._receive()
            if got.get("id") == self._last:
                break
            self.events.append(got)
        if "error" in got:
            raise RuntimeError(f"{method}: {got['error']}")
        answer: dict[str, Any] = got["result"]
        return answer

    def _receive(self) -> dict[str, Any]:
        """The next message; a zero byte ends each."""
        while b"\0" not in self._rest:
            if not select.select([self._answers], [], [], SECONDS)[0]:
                raise TimeoutError("Chromium does not answer")
            data = os.read(self._answers, 1 << 20)
            if not data:
                raise RuntimeError("Chromium has ended")
            self._rest += data
        message, self._rest = self._rest.split(b"\0", 1)
        decoded: dict[str, Any] = json.loads(message)
        return decoded

    def evaluate(self, expression: str) -> Any:
        """The value of an expression in the page, or of the promise that it is."""
        answer = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def wait(self, condition: str) -> None:
        """Wait until an expression in the page holds."""
        end = time.monotonic() + SECONDS
        while not self.evaluate(f"Boolean({condition})"):
            if time.monotonic() > end:
                raise TimeoutError(condition)
            time.sleep(0.01)

    def give(self, path: Path) -> None:
        """Choose a file in the page's input, as its dialogue does, and wait for nothing."""
        root = self.send("DOM.getDocument")["root"]["nodeId"]
        node = self.send("DOM.querySelector", nodeId=root, selector="input[type=file]")["nodeId"]
        self.send("DOM.setFileInputFiles", nodeId=node, files=[str(path)])

    def choose(self, path: Path) -> None:
        """Choose a file, and wait until the page has done with it."""
        self.evaluate("delete document.body.dataset.done")
        self.give(path)
        self.wait("document.body.dataset.done")

    def drop(self, path: Path) -> None:
        """Drag a file over the page and drop it, and wait until the page has done with it."""
        self.evaluate("delete document.body.dataset.done")
        data = {"items": [], "files": [str(path)], "dragOperationsMask": 1}
        for kind in ("dragEnter", "dragOver", "drop"):
            self.send("Input.dispatchDragEvent", type=kind, x=200, y=200, data=data)
        self.wait("document.body.dataset.done")

    def resize(self, width: int, height: int, dark: bool = False) -> None:
        """Set the size of the window, and whether the user prefers dark colours."""
        self.send(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 600,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])

    def picture(self) -> bytes:
        """The window as a PNG."""
        return base64.b64decode(self.send("Page.captureScreenshot")["data"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Write a picture of the page."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("file", type=Path)
    parser.add_argument("--filter", default="", help="show tensors of such names only")
    parser.add_argument("--dark", action="store_true")
    parser.add_argument("--width", type=int, default=1200)
    parser.add_argument("--height", type=int, default=800)
    options = parser.parse_args(arguments)
    if options.file.suffix == ".html":
        with Browser(options.file.resolve(), "true") as browser:
            browser.resize(options.width, options.height, options.dark)
            options.out.write_bytes(browser.picture())
        return
    with Browser() as browser:
        browser.resize(options.width, options.height, options.dark)
        browser.choose(options.file.resolve())
        browser.evaluate("document.getElementById('filter').focus()")
        browser.send("Input.insertText", text=options.filter)
        browser.evaluate("document.activeElement.blur(), scrollTo(0, 0)")
        time.sleep(1)  # for the histograms
        options.out.write_bytes(browser.picture())


if __name__ == "__main__":
    main()

"""A real browser at the end of a pipe: Chromium, headless, by its DevTools protocol.

    async with browser(tmp_path) as tab:
        page = await tab.visit("http://127.0.0.1:8080/")
        page.text, page.console, await tab.evaluate("document.title"), await tab.screenshot()

Messages are JSON ended by NUL on descriptors 3 and 4 (chromium --remote-debugging-pipe;
chromedevtools.github.io/devtools-protocol).
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import json
import os
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium")
_FLAGS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--no-first-run",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--mute-audio",
    "--no-proxy-server",
    "--window-size=800,600",
    "--remote-debugging-pipe",
)


@dataclass
class Page:
    """What one visit came to. `console`: messages of the page and of the browser about it."""

    text: str
    html: str
    console: list[str] = field(default_factory=list)


class Tab:
    def __init__(self, reader: asyncio.StreamReader, write: int) -> None:
        self._reader = reader
        self._write = write
        self._ids = 0
        self._session = ""
        self._events: list[dict[str, Any]] = []

    async def open(self) -> None:
        found = await self._call("Target.getTargets")
        target = next(t for t in found["targetInfos"] if t["type"] == "page")
        arguments = {"targetId": target["targetId"], "flatten": True}
        self._session = (await self._call("Target.attachToTarget", arguments))["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self._call(f"{domain}.enable")
        await self._call("Network.setCacheDisabled", {"cacheDisabled": True})

    async def visit(self, url: str) -> Page:
        """Go there and wait until it has loaded."""
        self._events.clear()
        went = await self._call("Page.navigate", {"url": url})
        assert "errorText" not in went, f"{url}: {went['errorText']}"
        await self._event("Page.loadEventFired")
        text = await self.evaluate("document.body ? document.body.innerText : ''")
        html = await self.evaluate("document.documentElement.outerHTML")
        return Page(text, html, [_message(e) for e in self._events if _is_console(e)])

    async def evaluate(self, expression: str) -> Any:
        found = await self._call(
            "Runtime.evaluate", {"expression": expression, "returnByValue": True}
        )
        assert "exceptionDetails" not in found, found
        return found["result"].get("value")

    async def screenshot(self) -> bytes:
        """PNG of what is shown."""
        found = await self._call("Page.captureScreenshot", {"format": "png"})
        return base64.b64decode(found["data"])

    async def _call(self, method: str, params: dict[str, Any] | None = None) -> dict[str, Any]:
        self._ids += 1
        message: dict[str, Any] = {"id": self._ids, "method": method, "params": params or {}}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._write, json.dumps(message).encode() + b"\0")
        while True:
            answer = await self._read()
            if answer.get("id") == self._ids:
                assert "error" not in answer, answer
                result: dict[str, Any] = answer["result"]
                return result
            self._events.append(answer)

    async def _event(self, method: str) -> None:
        if any(event.get("method") == method for event in self._events):
            return
        while True:
            event = await self._read()
            self._events.append(event)
            if event.get("method") == method:
                return

    async def _read(self) -> dict[str, Any]:
        async with asyncio.timeout(20):
            message: dict[str, Any] = json.loads((await self._reader.readuntil(b"\0"))[:-1])
        return message


def _is_console(event: dict[str, Any]) -> bool:
    method = event.get("method")
    return method in ("Runtime.exceptionThrown", "Log.entryAdded", "Runtime.consoleAPICalled")


def _message(event: dict[str, Any]) -> str:
    params = event["params"]
    if "entry" in params:
        return f"{params['entry']['level']}: {params['entry']['text']}"
    if "exceptionDetails" in params:
        return f"exception: {params['exceptionDetails']['text']}"
    return f"{params['type']}: {[arg.get('value') for arg in params['args']]}"


@contextlib.asynccontextmanager
async def browser(tmp_path: Path) -> AsyncIterator[Tab]:
    """A browser with one tab and a profile of its own."""
    assert CHROMIUM is not None
    theirs_in, ours_out = os.pipe()
    ours_in, theirs_out = os.pipe()

    def at_3_and_4() -> None:
        spare_in, spare_out = os.dup(theirs_in), os.dup(theirs_out)
        os.dup2(spare_in, 3)
        os.dup2(spare_out, 4)

    process = await asyncio.create_subprocess_exec(
        CHROMIUM,
        *_FLAGS,
        f"--user-data-dir={tmp_path / 'profile'}",
        "about:blank",
        preexec_fn=at_3_and_4,
        close_fds=False,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    os.close(theirs_in)
    os.close(theirs_out)
    reader = asyncio.StreamReader(limit=64 * 1024 * 1024)
    loop = asyncio.get_running_loop()
    pipe = os.fdopen(ours_in, "rb", 0)
    transport, _ = await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    tab = Tab(reader, ours_out)
    try:
        await tab.open()
        yield tab
    finally:
        os.close(ours_out)
        process.kill()
        await process.wait()
        transport.close()

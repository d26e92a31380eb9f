"""A headless Chromium, controlled through the DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import itertools
import re
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import aiohttp

CHROMIUM = shutil.which("chromium") or shutil.which("google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync", "--disable-quic", "--no-first-run", "--remote-debugging-port=0", "--remote-allow-origins=*",
)  # fmt: skip


class Browser:
    """A browser with one page. `run` evaluates an expression or statements, `until` waits until an expression is true,
    `errors` returns the errors on the console."""

    def __init__(self, folder: Path, size: tuple[int, int] = (1200, 900)) -> None:
        self.size = size
        self._process = subprocess.Popen(
            [str(CHROMIUM), *FLAGS, f"--user-data-dir={folder / 'profile'}", "about:blank"],
            stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        self._loop = asyncio.new_event_loop()
        self._numbers = itertools.count(1)
        self._errors: list[str] = []

    def __enter__(self) -> Browser:
        assert self._process.stderr is not None
        address = None
        while address is None:
            line = self._process.stderr.readline()
            assert line, "Chromium exited"
            address = re.search(r"DevTools listening on ws://([\d.:]+)/", line)
        self._wait(self._connect(address[1]))
        for domain in ("Page", "Runtime", "Log"):
            self._call(f"{domain}.enable")
        self.resize(*self.size)
        return self

    def __exit__(self, *_: object) -> None:
        self._wait(self._session.close())
        self._process.terminate()
        self._process.wait(10)
        self._loop.close()

    def resize(self, width: int, height: int) -> None:
        self._call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def open(self, address: str) -> None:
        self._call("Page.navigate", url=address)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, code: str) -> Any:
        response = self._call("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in response, response["exceptionDetails"]
        return response["result"].get("value")

    def until(self, condition: str, seconds: float = 20.0) -> None:
        deadline = time.monotonic() + seconds
        while not self.run(f"Boolean({condition})"):
            assert time.monotonic() < deadline, f"still waiting for {condition}"
            time.sleep(0.05)

    def screenshot(self, target: Path) -> None:
        target.write_bytes(base64.b64decode(self._call("Page.captureScreenshot")["data"]))

    def errors(self) -> list[str]:
        self.run("1")  # also receives the events that are waiting
        return self._errors

    def _wait(self, coroutine: Any) -> Any:
        return self._loop.run_until_complete(coroutine)

    async def _connect(self, address: str) -> None:
        self._session = aiohttp.ClientSession()
        async with self._session.get(f"http://{address}/json/list") as response:
            page = next(target for target in await response.json() if target["type"] == "page")
        self._socket = await self._session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=1 << 26)

    def _call(self, method: str, **parameters: Any) -> Any:
        return self._wait(self._call_and_receive(method, parameters))

    async def _call_and_receive(self, method: str, parameters: dict[str, Any]) -> Any:
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            message = await asyncio.wait_for(self._socket.receive_json(), 30)
            event, details = message.get("method"), message.get("params", {})
            if event == "Runtime.exceptionThrown":
                self._errors.append(str(details["exceptionDetails"]))
            elif event == "Log.entryAdded" and details["entry"]["level"] == "error":
                self._errors.append(details["entry"]["text"] + " " + details["entry"].get("url", ""))
            elif event == "Runtime.consoleAPICalled" and details["type"] == "error":
                self._errors.append(str(details["args"]))
            elif message.get("id") == number:
                assert "error" not in message, message["error"]
                return message["result"]

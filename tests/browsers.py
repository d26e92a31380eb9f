"""A headless Chromium, driven through its DevTools protocol."""

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
    """One page. `run` evaluates an expression or statements, `until` waits for one to be true, `errors` is what the
    console was told."""

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
        found = None
        while found is None:
            line = self._process.stderr.readline()
            assert line, "Chromium ended"
            found = re.search(r"DevTools listening on ws://([\d.:]+)/", line)
        self._do(self._connect(found[1]))
        for domain in ("Page", "Runtime", "Log"):
            self._ask(f"{domain}.enable")
        self.resize(*self.size)
        return self

    def __exit__(self, *_: object) -> None:
        self._do(self._session.close())
        self._process.terminate()
        self._process.wait(10)
        self._loop.close()

    def resize(self, width: int, height: int) -> None:
        self._ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def open(self, address: str) -> None:
        self._ask("Page.navigate", url=address)
        self.until("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, code: str) -> Any:
        answer = self._ask("Runtime.evaluate", expression=code, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, condition: str, seconds: float = 20.0) -> None:
        deadline = time.monotonic() + seconds
        while not self.run(f"Boolean({condition})"):
            assert time.monotonic() < deadline, f"still waits for {condition}"
            time.sleep(0.05)

    def picture(self, target: Path) -> None:
        target.write_bytes(base64.b64decode(self._ask("Page.captureScreenshot")["data"]))

    def errors(self) -> list[str]:
        self.run("1")
        return self._errors

    def _do(self, work: Any) -> Any:
        return self._loop.run_until_complete(work)

    async def _connect(self, where: str) -> None:
        self._session = aiohttp.ClientSession()
        async with self._session.get(f"http://{where}/json/list") as answer:
            page = next(target for target in await answer.json() if target["type"] == "page")
        self._socket = await self._session.ws_connect(page["webSocketDebuggerUrl"], max_msg_size=1 << 26)

    def _ask(self, method: str, **parameters: Any) -> Any:
        return self._do(self._call(method, parameters))

    async def _call(self, method: str, parameters: dict[str, Any]) -> Any:
        number = next(self._numbers)
        await self._socket.send_json({"id": number, "method": method, "params": parameters})
        while True:
            message = await asyncio.wait_for(self._socket.receive_json(), 30)
            event, told = message.get("method"), message.get("params", {})
            if event == "Runtime.exceptionThrown":
                self._errors.append(str(told["exceptionDetails"]))
            elif event == "Log.entryAdded" and told["entry"]["level"] == "error":
                self._errors.append(told["entry"]["text"] + " " + told["entry"].get("url", ""))
            elif event == "Runtime.consoleAPICalled" and told["type"] == "error":
                self._errors.append(str(told["args"]))
            elif message.get("id") == number:
                assert "error" not in message, message["error"]
                return message["result"]

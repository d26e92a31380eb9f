"""A bridge with its own event loop, for tests that connect to it from outside."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from fakes import FakeModelRepairer
from stemprover.bridge.osc import FrameReader, Message, decode, encode, framed
from stemprover.bridge.server.registry import BridgeConfig
from stemprover.bridge.server.transport import Bridge


@contextmanager
def running(make_repairer: Callable[..., Any] | None = None, *, port: int = 0, **options: Any) -> Iterator[Bridge]:
    """A bridge on free ports. `bridge.call(f)` runs f() on its event loop, `bridge.run(c)` runs a coroutine."""
    options.setdefault("check_mix", False)  # most tests use sounds that have nothing to do with each other
    loop = asyncio.new_event_loop()
    config = BridgeConfig(port=port, http_port=0, make_repairer=make_repairer or FakeModelRepairer(), **options)
    bridge = Bridge(config)
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()

    def run(work: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(work, loop).result(30)

    async def called(act: Callable[[], Any]) -> Any:
        return act()

    bridge.call = lambda act: run(called(act))  # type: ignore[attr-defined]
    bridge.run = run  # type: ignore[attr-defined]
    run(bridge.__aenter__())
    try:
        yield bridge
    finally:
        run(bridge.__aexit__(None, None, None))
        run(asyncio.sleep(0.05))  # the loop closes the pipes of a job's process
        loop.call_soon_threadsafe(loop.stop)
        thread.join(5)
        loop.close()


class Wire:
    """A bare connection, TCP or UDP, that can send what no proper client would."""

    def __init__(self, port: int, *, udp: bool = False, timeout: float = 10.0) -> None:
        kind = socket.SOCK_DGRAM if udp else socket.SOCK_STREAM
        self.udp, self.socket = udp, socket.socket(socket.AF_INET, kind)
        self.socket.settimeout(timeout)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)  # room for a whole flush
        self.socket.connect(("127.0.0.1", port))
        self.reader, self.waiting = FrameReader(), list[bytes]()

    def send(self, address: str, tags: str, *values: Any) -> None:
        self.send_raw(encode(address, tags, *values))

    def send_raw(self, data: bytes) -> None:
        self.socket.sendall(data if self.udp else framed(data))

    def receive(self) -> Message:
        while not self.waiting:
            data = self.socket.recv(1 << 17)
            if not data:
                raise ConnectionResetError("closed by the bridge")
            self.waiting += [data] if self.udp else list(self.reader.feed(data))
        message = decode(self.waiting.pop(0))
        return Message(message.address.removeprefix("/stemprover"), message.arguments)

    def ask(self, address: str, tags: str, *values: Any) -> Message:
        self.send(address, tags, *values)
        return self.receive()

    def hello(self, rate: int = 44100, block: int = 512, channels: int = 2, mix: int = 0, token: str = "") -> Message:
        return self.ask("/hello", "isssiiii", 1, token, "test", "stream", rate, block, channels, mix)

    def close(self) -> None:
        self.socket.close()

    def reset(self) -> None:
        """Drop the connection without closing it."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.socket.close()

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
    return port

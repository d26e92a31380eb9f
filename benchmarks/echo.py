"""Round trips through servers that answer with what they were sent: a bridge without a model beside the plainest there
are, each in a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import numpy as np

from ..bridge.osc import FrameReader, decode, encode, framed, to_blob

RATE, FRAMES = 48000, 512
SOUND = np.zeros((2, FRAMES), np.float32)

# Servers that answer a datagram or a framed message with itself, each in a process of its own; they print their port.
RAW_TCP = """
import socket
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
while True:
    link = server.accept()[0]
    link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while data := link.recv(1 << 16):
        link.sendall(data)
"""
RAW_UDP = """
import socket
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
while True:
    server.sendto(*server.recvfrom(1 << 16))
"""
OSC_TCP = """
from pythonosc.dispatcher import Dispatcher
from pythonosc.osc_tcp_server import BlockingOSCTCPServer
dispatcher = Dispatcher()
dispatcher.map("/stemprover/block", lambda address, *values: (address, *values))
server = BlockingOSCTCPServer(("127.0.0.1", 0), dispatcher, mode="1.0")
print(server.server_address[1], flush=True)
server.serve_forever()
"""
OSC_UDP = """
from pythonosc.dispatcher import Dispatcher
from pythonosc.osc_server import BlockingOSCUDPServer
dispatcher = Dispatcher()
dispatcher.map("/stemprover/block", lambda address, *values: (address, *values))
server = BlockingOSCUDPServer(("127.0.0.1", 0), dispatcher)
print(server.server_address[1], flush=True)
server.serve_forever()
"""
BRIDGE = "from stemprover.benchmarks.echo import serve_identity; serve_identity()"


class Identity:
    """A model that changes nothing, in no time."""

    hop, delay_samples, warmup_samples, memory_samples, steps = 512, 16 * 512 + 1536, 0, 0, 1

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def delta_stream(self) -> Identity:
        """As Repairer has it."""
        return self

    def start(self) -> None:
        """No state."""

    def process(self, stem: np.ndarray, mix: np.ndarray | None, state: None) -> tuple[np.ndarray, None]:
        """No change."""
        return np.zeros_like(stem), None

    def process_channels(
        self, stem: np.ndarray, mix: np.ndarray | None, states: list[None], **_: object
    ) -> tuple[np.ndarray, list[None]]:
        """No change."""
        return np.zeros_like(stem), states


def serve_identity() -> None:
    """A bridge without a model, until it is killed; prints its port."""
    from ..bridge.server.registry import BridgeConfig
    from ..bridge.server.transport import Bridge, quicken_threads

    async def serve() -> None:
        config = BridgeConfig(port=0, http_port=0, make_repairer=Identity)  # type: ignore[arg-type]
        async with Bridge(config) as bridge:
            print(bridge.port, flush=True)
            await asyncio.Event().wait()

    quicken_threads()
    asyncio.run(serve())


@contextlib.contextmanager
def process(code: str) -> Iterator[int]:
    """A Python process; its port."""
    running = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    try:
        assert running.stdout is not None
        yield int(running.stdout.readline())
    finally:
        running.kill()
        running.wait()


def times_of(port: int, count: int, *, udp: bool, hello: bool) -> np.ndarray:
    """Seconds (count,) of round trips of a stereo block, one after the other."""
    link = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)
    link.settimeout(10.0)
    link.connect(("127.0.0.1", port))
    if not udp:
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    reader, waiting = FrameReader(), list[bytes]()

    def ask(data: bytes) -> bytes:
        link.sendall(data if udp else framed(data))
        if udp:
            return link.recv(1 << 16)
        while not waiting:
            waiting.extend(reader.feed(link.recv(1 << 16)))
        return waiting.pop(0)

    stream = 1
    if hello:
        ready = decode(ask(encode("/hello", "isssiiii", 1, "", "bench", "stream", RATE, FRAMES, 2, 0)))
        stream = ready.arguments[2]
    blob, times = to_blob(SOUND), np.zeros(count)
    for number in range(count):
        data = encode("/block", "iihiib", stream, number, number * FRAMES, FRAMES, 0, blob)
        begun = time.perf_counter()
        ask(data)
        times[number] = time.perf_counter() - begun
    link.close()
    return times[count // 10 :]


def round_trips(count: int) -> list[tuple[str, float, float, float]]:
    """(server, p50, p99, p99.9 in microseconds), all in this run, in turns."""
    found = []
    for name, code, udp, hello in (
        ("raw echo, TCP", RAW_TCP, False, False),
        ("bridge, TCP", BRIDGE, False, True),
        ("python-osc's server, TCP", OSC_TCP, False, False),
        ("raw echo, UDP", RAW_UDP, True, False),
        ("bridge, UDP", BRIDGE, True, True),
        ("python-osc's server, UDP", OSC_UDP, True, False),
    ):
        with process(code) as port:
            micros = 1e6 * times_of(port, count, udp=udp, hello=hello)
        median, high, highest = (float(q) for q in np.quantile(micros, (0.5, 0.99, 0.999)))
        found.append((name, median, high, highest))
    return found

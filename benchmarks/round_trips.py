"""Round trips of one block through servers that answer with what they were sent: a bridge whose model changes nothing,
python-osc's own server, and a bare socket. Each server is a process of its own."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from ..bridge.osc import FrameReader, decode, encode, framed, to_blob
from ..engine.latency import ModelTiming
from .processes import cpu_seconds, running

RATE, FRAMES = 48000, 512
BLOCK = np.zeros((2, FRAMES), np.float32)
ROUNDS = 10  # in each of which every server has its turn

# Servers that answer a datagram or a framed message with itself. They print their port.
RAW_TCP = """
import socket
server = socket.create_server(("127.0.0.1", 0))
print(server.getsockname()[1], flush=True)
while True:
    connection = server.accept()[0]
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    while data := connection.recv(1 << 16):
        connection.sendall(data)
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
BRIDGE = "from stemprover.benchmarks.round_trips import serve_without_model; serve_without_model()"


class NoModel:
    """A stand-in for Repairer and for its correction stream: it corrects nothing and takes no time."""

    timing, warmup_samples, memory_samples, steps = ModelTiming(512, 2048, 16 * 512), 0, 0, 1

    def __init__(self, *_: object, **__: object) -> None:
        pass

    def correction_stream(self) -> NoModel:
        """As in Repairer."""
        return self

    def start(self) -> None:
        """There is no state."""

    def process(self, stem: np.ndarray, mix: np.ndarray | None, state: None) -> tuple[np.ndarray, None]:
        """A correction of zero."""
        return np.zeros_like(stem), None

    def process_channels(
        self, stem: np.ndarray, mix: np.ndarray | None, states: list[None], **_: object
    ) -> tuple[np.ndarray, list[None]]:
        """A correction of zero."""
        return np.zeros_like(stem), states


def serve_without_model() -> None:
    """Run a bridge without a model until it is killed; it prints its port."""
    from ..bridge.server.registry import BridgeConfig
    from ..bridge.server.transport import Bridge, quicken_threads

    async def serve() -> None:
        config = BridgeConfig(port=0, http_port=0, make_repairer=NoModel)  # type: ignore[arg-type]
        async with Bridge(config) as bridge:
            print(bridge.port, flush=True)
            await asyncio.Event().wait()

    quicken_threads()
    asyncio.run(serve())


@contextlib.contextmanager
def server(program: str) -> Iterator[tuple[int, int]]:
    """A Python program that prints its port and serves: its port and process id."""
    with running([sys.executable, "-c", program]) as (line, pid):
        yield int(line), pid


class BlockSender:
    """A connection that sends one stereo block after the other and waits for each answer."""

    def __init__(self, port: int, *, udp: bool, hello: bool) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM if udp else socket.SOCK_STREAM)
        self._socket.settimeout(10.0)
        self._socket.connect(("127.0.0.1", port))
        if not udp:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._udp, self._reader, self._answers = udp, FrameReader(), list[bytes]()
        self._stream, self._sent, self._blob = 1, 0, to_blob(BLOCK)
        if hello:
            ready = decode(self._ask(encode("/hello", "isssiiii", 1, "", "bench", "stream", RATE, FRAMES, 2, 0)))
            self._stream = ready.arguments[2]

    def close(self) -> None:
        """End the connection."""
        self._socket.close()

    def times(self, count: int) -> np.ndarray:
        """Seconds (count,) that each of the next blocks took to come back."""
        times = np.zeros(count)
        for i in range(count):
            position = self._sent * FRAMES
            data = encode("/block", "iihiib", self._stream, self._sent, position, FRAMES, 0, self._blob)
            begun = time.perf_counter()
            self._ask(data)
            times[i] = time.perf_counter() - begun
            self._sent += 1
        return times

    def _ask(self, data: bytes) -> bytes:
        self._socket.sendall(data if self._udp else framed(data))
        if self._udp:
            return self._socket.recv(1 << 16)
        while not self._answers:
            self._answers.extend(self._reader.feed(self._socket.recv(1 << 16)))
        return self._answers.pop(0)


@dataclass(frozen=True)
class RoundTrips:
    """Round trips through one server, in microseconds. raw: of the bare socket of the same protocol, measured beside
    it. cpu_us: what the server's process takes for each, 10 ms being the clock's step over all of them."""

    server: str
    protocol: str
    quantiles_us: tuple[float, float, float]  # 50%, 99%, 99.9%
    raw_us: tuple[float, float, float]
    cpu_us: float


def round_trips(count: int) -> list[RoundTrips]:
    """`count` round trips through each server; the servers take turns, and the first round does not count."""
    servers = (
        ("raw echo", "TCP", RAW_TCP), ("python-osc's server", "TCP", OSC_TCP), ("bridge", "TCP", BRIDGE),
        ("raw echo", "UDP", RAW_UDP), ("python-osc's server", "UDP", OSC_UDP), ("bridge", "UDP", BRIDGE),
    )  # fmt: skip
    with contextlib.ExitStack() as stack:
        senders, pids = [], []
        for _, protocol, program in servers:
            port, pid = stack.enter_context(server(program))
            sender = BlockSender(port, udp=protocol == "UDP", hello=program == BRIDGE)
            stack.callback(sender.close)
            senders.append(sender)
            pids.append(pid)
        each = -(-count // ROUNDS)
        for sender in senders:
            sender.times(each)
        begun = [cpu_seconds(pid) for pid in pids]
        rounds = [[sender.times(each) for sender in senders] for _ in range(ROUNDS)]
        cpu_us = [1e6 * (cpu_seconds(pid) - start) / (each * ROUNDS) for pid, start in zip(pids, begun, strict=True)]
    quantiles: list[tuple[float, float, float]] = []
    for times in zip(*rounds, strict=True):
        median, high, highest = (float(value) for value in np.quantile(1e6 * np.concatenate(times), (0.5, 0.99, 0.999)))
        quantiles.append((median, high, highest))
    raw = {protocol: found for (name, protocol, _), found in zip(servers, quantiles, strict=True) if name == "raw echo"}
    return [
        RoundTrips(name, protocol, found, raw[protocol], cpu)
        for (name, protocol, _), found, cpu in zip(servers, quantiles, cpu_us, strict=True)
    ]

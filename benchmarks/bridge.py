"""The bridge under load: round trips beside other servers, streams carried at once, memory, mutated messages, a soak.

    python -m stemprover.benchmarks.bridge round-trips carried memory
    python -m stemprover.benchmarks.bridge fuzz --messages 200000
    python -m stemprover.benchmarks.bridge soak --minutes 30
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import random
import re
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from ..bridge.client import AsyncClient, Client
from ..bridge.protocol import FrameReader, Status, decode, encode, framed, to_blob
from .speed import excerpt

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
BRIDGE = "from stemprover.benchmarks.bridge import serve_identity; serve_identity()"


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
    from ..bridge.hub import BridgeConfig
    from ..bridge.server import Bridge, quicken_threads

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


@contextlib.contextmanager
def bridge(*options: str) -> Iterator[tuple[int, int]]:
    """`stemprover serve` with the shipped model, loaded; its port and process number."""
    command = [sys.executable, "-m", "stemprover", "serve", "--port", "0", "--http-port", "0", *options]
    running = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    try:
        assert running.stdout is not None
        found = re.search(r"OSC 127\.0\.0\.1:(\d+)", running.stdout.readline())
        assert found is not None
        with Client(RATE, 2, port=int(found[1])) as client:
            client.process(np.zeros((2, 40000), np.float32), offline=True)  # waits for the model
        yield int(found[1]), running.pid
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


@dataclass
class Played:
    """What streams in real time met. worst_s: the longest wait for an answer."""

    blocks: int = 0
    late: int = 0
    worst_s: float = 0.0


async def _play(
    port: int, seconds: float, quality: str, met: Played, begin: float, ended: threading.Event | None = None
) -> None:
    stem, mix = (np.concatenate([sound, sound[:, :FRAMES]], axis=1) for sound in excerpt(10.0))
    async with AsyncClient(RATE, 2, 2, max_block=FRAMES, port=port) as client:
        await client.set_quality(quality)
        await asyncio.sleep(max(0.0, begin - time.monotonic()))
        first, number = time.monotonic(), 0
        while number < seconds * RATE / FRAMES and not (ended is not None and ended.is_set()):
            start = number * FRAMES % (stem.shape[1] - FRAMES)
            part = slice(start, start + FRAMES)
            asked = time.monotonic()
            reply = await client.send(stem[:, part], mix[:, part])
            if number * FRAMES > 2 * client.latency_samples:
                met.blocks += 1
                met.late += reply.status == Status.LATE
                met.worst_s = max(met.worst_s, time.monotonic() - asked)
            number += 1
            await asyncio.sleep(max(0.0, first + number * FRAMES / RATE - time.monotonic()))


def play(
    port: int, streams: int, seconds: float, quality: str, ended: threading.Event | None = None,
    met: Played | None = None,
) -> Played:  # fmt: skip
    """That many streams at once in real time, begun apart within one chunk, for `seconds` or until `ended`; what they
    meet is added to `met`."""
    met = Played() if met is None else met

    async def all_of_them() -> Played:
        begin = time.monotonic() + 2.0
        await asyncio.gather(
            *(_play(port, seconds, quality, met, begin + 0.046 * i / streams, ended) for i in range(streams))
        )
        return met

    return asyncio.run(all_of_them())


def carried(seconds: float, least: int, most: int) -> list[tuple[str, int, Played]]:
    """(quality, streams, what they met), from `least` streams (half as many at the quality best, which takes two steps)
    for one more each time until blocks are late."""
    found = []
    with bridge("--max-streams", str(most + 1)) as (port, _):
        for quality in ("draft", "best"):
            for streams in range(least if quality == "draft" else max(1, least // 2), most + 1):
                met = play(port, streams, seconds, quality)
                found.append((quality, streams, met))
                if met.late > 0:
                    break
    return found


def resident_mb(number: int) -> float:
    """Memory of a process."""
    return int(Path(f"/proc/{number}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def memory(streams: int = 8) -> tuple[float, float]:
    """(MB of a bridge with its model and one stream, MB for each other stream), each with sound gone through."""
    with bridge("--max-streams", "64") as (port, number), contextlib.ExitStack() as stack:
        sizes = []
        for _ in range(streams + 1):
            client = stack.enter_context(Client(RATE, 2, 2, port=port))
            sound = np.zeros((2, RATE), np.float32) + 0.01
            client.process(sound, sound, offline=True)
            sizes.append(resident_mb(number))
        return sizes[0], (sizes[-1] - sizes[0]) / streams


def mutated(rng: random.Random) -> bytes:
    """A message of a session with a few bytes changed, cut off, repeated or put in."""
    known = [
        encode("/hello", "isssiiii", 1, "", "fuzz", "stream", 44100, 512, 2, 0),
        encode("/block", "iihiib", 1, 0, 0, 8, 0, bytes(64)),
        encode("/ping", "id", 1, 0.5),
        encode("/stream/999/wet", "fi", 0.5, 3),
        encode("/stream/999/preset", "si", "bleed", 3),
        encode("/stream/999/blend", "sfsfi", "bleed", 0.5, "dull-highs", 0.4, 3),
        encode("/flush", "ii", 4, 1),
        encode("/reset", "ii", 4, 1),
        encode("/presets", "i", 5),
        encode("/status", "i", 6),
        encode("/job/list", "i", 6),
        encode("/job/render", "isssss", 1, "/nowhere/in.wav", "", "/nowhere/out.wav", "general", "draft"),
        b"#bundle\0" + bytes(8) + struct.pack(">i", -4),
    ]
    data = bytearray(rng.choice(known))
    for _ in range(rng.randrange(4)):
        place = rng.randrange(len(data) + 1)
        match rng.randrange(4):
            case 0:
                data[place : place + 1] = rng.randbytes(1)
            case 1:
                del data[place:]
            case 2:
                data[place:place] = data[: rng.randrange(40)]
            case _:
                data[place : place + 4] = rng.choice([b"\xff\xff\xff\xff", b"\x7f\xff\xff\xff", bytes(4)])
        if not data:
            data = bytearray(4)
    return bytes(data)


def fuzz(port: int, count: int, seed: int, rate: float = 0.0) -> int:
    """`count` mutated messages, over TCP and UDP by halves, some without a proper size before them; connections that
    end in the middle. rate: messages a second, 0 for as many as this process can. Returns how many were sent."""
    rng, sent, begun = random.Random(seed), 0, time.monotonic()

    def connect(kind: socket.SocketKind) -> socket.socket:
        link = socket.socket(socket.AF_INET, kind)
        link.settimeout(10.0)
        link.connect(("127.0.0.1", port))
        link.setblocking(False)
        return link

    datagrams = connect(socket.SOCK_DGRAM)
    while sent < count:
        with contextlib.suppress(OSError), connect(socket.SOCK_STREAM) as link:
            for _ in range(60):
                data = mutated(rng)
                if rng.random() < 0.5 and len(data) < 60000:
                    datagrams.send(data)
                elif rng.random() < 0.05:
                    link.send(data)
                else:
                    link.send(framed(data))
                sent += 1
                if rate and sent % 10 == 0:
                    time.sleep(max(0.0, begun + sent / rate - time.monotonic()))
                for wire in (link, datagrams):
                    with contextlib.suppress(BlockingIOError):
                        wire.recv(1 << 16)
        if rng.random() < 0.1:
            datagrams.close()
            datagrams = connect(socket.SOCK_DGRAM)
    datagrams.close()
    return sent


def fuzz_beside_a_stream(messages: int, rate: float) -> tuple[Played, Played, list[float]]:
    """(a stream alone for 15 s, the same beside `messages` mutated messages from the first to the last, memory in
    MB before them and after each quarter)."""
    with bridge() as (port, number):
        ended, met, alone = threading.Event(), Played(), Played()
        player = threading.Thread(target=play, args=(port, 1, 1e6, "draft", ended, met))
        player.start()
        time.sleep(18.0)
        alone, met.blocks, met.late, met.worst_s = replace(met), 0, 0, 0.0
        fuzz(port, 3000, seed=0, rate=rate)  # what grows once
        sizes = [resident_mb(number)]
        for quarter in range(4):
            fuzz(port, messages // 4, seed=1 + quarter, rate=rate)
            sizes.append(resident_mb(number))
        ended.set()
        player.join()
        return alone, met, sizes


def soak(minutes: float) -> tuple[int, int, list[float]]:
    """Four streams that come and go for `minutes` of sound each, offline blocks as fast as they are repaired, presets
    changing; every block is checked. Returns (streams, blocks, memory in MB at ten places)."""
    rng = random.Random(2)
    stem, mix = excerpt(20.0)
    counts, sizes = [0, 0], list[float]()

    async def one(port: int, seconds: float) -> None:
        left = seconds
        while left > 0:
            length = min(left, rng.uniform(20.0, 90.0))
            left -= length
            rate, block = rng.choice([44100, 48000, 96000]), rng.choice([64, 480, 512, 2048])
            async with AsyncClient(rate, 2, 2, port=port, max_block=2048) as client:
                counts[0] += 1
                client_dry = np.zeros((2, client.latency_samples), np.float32)
                for number in range(int(length * rate / block)):
                    place = number * block % (stem.shape[1] - block)
                    if rng.random() < 0.002:
                        await client.select(rng.choice(["general", "bleed", "phasiness", "dull-highs", "auto"]))
                    if rng.random() < 0.002:
                        await client.set_wet(rng.random())
                    part = stem[:, place : place + block]
                    out = await client.process(part, mix[:, place : place + block], offline=True)
                    client_dry = np.concatenate([client_dry, part], axis=1)
                    dry, client_dry = client_dry[:, :block], client_dry[:, block:]
                    assert np.isfinite(out).all(), "a sample that is no number"
                    assert np.abs(out - dry).max() < 1.0, "the repair is out of all proportion"
                    counts[1] += 1

    async def all_of_them(port: int, number: int) -> None:
        tasks = [asyncio.create_task(one(port, minutes * 60)) for _ in range(4)]
        while not all(task.done() for task in tasks):
            sizes.append(resident_mb(number))
            await asyncio.sleep(2.0)
        await asyncio.gather(*tasks)

    with bridge("--max-streams", "8") as (port, number):
        asyncio.run(all_of_them(port, number))
    places = np.linspace(0, len(sizes) - 1, 10).round().astype(int)
    return counts[0], counts[1], [sizes[place] for place in places]


def _print(console: Console, title: str, head: list[str], rows: list[list[str]]) -> None:
    table = Table(*head, title=title)
    for row in rows:
        table.add_row(*row)
    console.print(table)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("what", nargs="+", choices=["round-trips", "carried", "memory", "fuzz", "soak"])
    parser.add_argument("--count", type=int, default=20000, help="round trips")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long streams play at once")
    parser.add_argument("--least", type=int, default=1, help="streams at once to begin with")
    parser.add_argument("--most", type=int, default=24, help="streams that are tried at once")
    parser.add_argument("--messages", type=int, default=200_000, help="mutated messages")
    parser.add_argument("--rate", type=float, default=3000.0, help="of them a second; 0: as many as can be made")
    parser.add_argument("--minutes", type=float, default=30.0, help="sound of each of four streams in the soak")
    given = parser.parse_args()
    console = Console(width=110)

    def show_round_trips() -> None:
        rows = [[name, *(f"{value:.0f}" for value in values)] for name, *values in round_trips(given.count)]
        _print(console, f"Round trip of {FRAMES} stereo frames, us", ["", "p50", "p99", "p99.9"], rows)

    def show_carried() -> None:
        rows = [
            [quality, str(streams), str(met.blocks), str(met.late), f"{1000 * met.worst_s:.1f}"]
            for quality, streams, met in carried(given.seconds, given.least, given.most)
        ]
        head = ["quality", "streams", "blocks", "late", "longest answer, ms"]
        _print(console, f"Streams at {RATE} Hz, {FRAMES} frames, with the song, {given.seconds:g} s", head, rows)

    def show_memory() -> None:
        first, more = memory()
        console.print(f"Memory: {first:.0f} MB with the model and one stream, {more:.1f} MB for each other stream")

    def show_fuzz() -> None:
        alone, beside, sizes = fuzz_beside_a_stream(given.messages, given.rate)
        rows = [
            [name, str(met.blocks), str(met.late), f"{1000 * met.worst_s:.1f}"]
            for name, met in (("alone", alone), ("beside them", beside))
        ]
        head = ["a stream", "blocks", "late", "longest answer, ms"]
        pace = f"{given.rate:g} a second" if given.rate else "as fast as they can be made"
        shown = ", ".join(f"{size:.0f}" for size in sizes)
        _print(console, f"{given.messages} mutated messages, {pace}", head, rows)
        console.print(f"Memory before them and after each quarter, MB: {shown}")

    def show_soak() -> None:
        streams, blocks, sizes = soak(given.minutes)
        shown = ", ".join(f"{size:.0f}" for size in sizes)
        console.print(f"Soak: {streams} streams, {blocks} blocks, all right; memory in MB, in order: {shown}")

    shows: dict[str, Callable[[], Any]] = {
        "round-trips": show_round_trips, "carried": show_carried, "memory": show_memory, "fuzz": show_fuzz,
        "soak": show_soak,
    }  # fmt: skip
    for name in given.what:
        shows[name]()


if __name__ == "__main__":
    main()

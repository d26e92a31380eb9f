"""The bridge under load: round trips beside other servers, streams at once, blends that change in a running stream,
memory, malformed messages, and a soak.

    python -m stemprover.benchmarks.bridge round-trips carried blends memory
    python -m stemprover.benchmarks.bridge fuzz --messages 200000
    python -m stemprover.benchmarks.bridge soak --minutes 30
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import random
import re
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..bridge.client.client import AsyncClient, Client
from ..bridge.osc import Status
from ..engine.detect.detectors import TYPES
from .osc_fuzz import fuzz
from .processes import cpu_seconds, resident_mb, running
from .round_trips import FRAMES, RATE, round_trips
from .speed import excerpt
from .table import print_table


@contextlib.contextmanager
def bridge(*options: str) -> Iterator[tuple[int, int]]:
    """`stemprover serve` with the shipped model, loaded: its port and process id."""
    command = [sys.executable, "-m", "stemprover", "serve", "--port", "0", "--http-port", "0", *options]
    with running(command) as (line, pid):
        address = re.search(r"OSC 127\.0\.0\.1:(\d+)", line)
        assert address is not None, f"`stemprover serve` printed {line!r}"
        with Client(RATE, 2, port=int(address[1])) as client:
            client.process(np.zeros((2, 40000), np.float32), offline=True)  # waits for the model
        yield int(address[1]), pid


@dataclass
class Played:
    """What happened to streams that were played in real time. worst_s: the longest wait for an answer; cpu_s, wall_s:
    what the bridge took meanwhile, and how long that was."""

    blocks: int = 0
    late: int = 0
    worst_s: float = 0.0
    cpu_s: float = 0.0
    wall_s: float = 0.0

    @property
    def cores(self) -> str:
        """CPU seconds of the bridge a second, as text."""
        return f"{self.cpu_s / self.wall_s:.2f}" if self.wall_s else "-"


async def _play(
    port: int, seconds: float, quality: str, played: Played, begin: float, ended: threading.Event | None = None,
    beside: Callable[[AsyncClient], Coroutine[Any, Any, None]] | None = None,
) -> None:  # fmt: skip
    """Play one stream in real time, from `begin` on. `beside` runs along with it and is cancelled at its end."""
    stem, mix = (np.concatenate([sound, sound[:, :FRAMES]], axis=1) for sound in excerpt(10.0))
    async with AsyncClient(RATE, 2, 2, max_block=FRAMES, port=port) as client:
        await client.set_quality(quality)
        await asyncio.sleep(max(0.0, begin - time.monotonic()))
        along = None if beside is None else asyncio.create_task(beside(client))
        first, number = time.monotonic(), 0
        while number < seconds * RATE / FRAMES and not (ended is not None and ended.is_set()):
            start = number * FRAMES % (stem.shape[1] - FRAMES)
            part = slice(start, start + FRAMES)
            asked = time.monotonic()
            reply = await client.send(stem[:, part], mix[:, part])
            if number * FRAMES > 2 * client.latency_samples:
                played.blocks += 1
                played.late += reply.status == Status.LATE
                played.worst_s = max(played.worst_s, time.monotonic() - asked)
            number += 1
            await asyncio.sleep(max(0.0, first + number * FRAMES / RATE - time.monotonic()))
        if along is not None:
            if not along.done():
                along.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await along


def play(
    port: int, streams: int, seconds: float, quality: str, ended: threading.Event | None = None,
    played: Played | None = None,
) -> Played:  # fmt: skip
    """Play that many streams at once in real time, for `seconds` or until `ended`, started at different moments within
    one chunk. The outcome is added to `played`."""
    played = Played() if played is None else played

    async def all_of_them() -> Played:
        begin = time.monotonic() + 2.0
        await asyncio.gather(
            *(_play(port, seconds, quality, played, begin + 0.046 * i / streams, ended) for i in range(streams))
        )
        return played

    return asyncio.run(all_of_them())


def carried(seconds: float, least: int, most: int) -> list[tuple[str, int, Played]]:
    """(quality, streams at once, what happened to them), for one more stream each time until blocks are late. It starts
    with `least` streams, and with half as many at the quality best, which takes two steps."""
    found = []
    with bridge("--max-streams", str(most + 1)) as (port, pid):
        for quality in ("draft", "best"):
            for streams in range(least if quality == "draft" else max(1, least // 2), most + 1):
                cpu, wall = cpu_seconds(pid), time.monotonic()
                played = play(port, streams, seconds, quality)
                played.cpu_s, played.wall_s = cpu_seconds(pid) - cpu, time.monotonic() - wall - 2.0  # before `begin`
                found.append((quality, streams, played))
                if played.late > 0:
                    break
    return found


def blends(seconds: float, every_s: float) -> tuple[Played, list[float]]:
    """A stream in real time that gets another blend every `every_s` seconds, of any number of adapters at weights of up
    to 1.5. Returns what happened to it, and how many seconds the answer to each change took."""
    rng, waits, played = random.Random(3), list[float](), Played()

    async def change(client: AsyncClient) -> None:
        while True:
            chosen = rng.sample(TYPES, rng.randint(1, len(TYPES)))
            asked = time.monotonic()
            await client.blend({name: round(rng.uniform(0.1, 1.5), 2) for name in chosen})
            waits.append(time.monotonic() - asked)
            await asyncio.sleep(max(0.0, asked + every_s - time.monotonic()))

    with bridge() as (port, _):
        asyncio.run(_play(port, seconds, "draft", played, time.monotonic() + 1.0, beside=change))
    return played, waits


def memory(streams: int = 8) -> tuple[float, float]:
    """(MB of a bridge with its model and one stream, MB for each further stream), each after a second of audio."""
    with bridge("--max-streams", "64") as (port, pid), contextlib.ExitStack() as stack:
        sizes = []
        for _ in range(streams + 1):
            client = stack.enter_context(Client(RATE, 2, 2, port=port))
            sound = np.zeros((2, RATE), np.float32) + 0.01
            client.process(sound, sound, offline=True)
            sizes.append(resident_mb(pid))
        return sizes[0], (sizes[-1] - sizes[0]) / streams


def fuzz_beside_a_stream(messages: int, rate: float) -> tuple[Played, Played, list[float]]:
    """(a stream alone for 15 s, the same stream while `messages` mutated messages arrive, memory in MB before them and
    after each quarter)."""
    with bridge() as (port, pid):
        ended, played, alone = threading.Event(), Played(), Played()
        player = threading.Thread(target=play, args=(port, 1, 1e6, "draft", ended, played))
        player.start()
        time.sleep(18.0)
        alone, played.blocks, played.late, played.worst_s = replace(played), 0, 0, 0.0
        fuzz(port, 3000, seed=0, rate=rate)  # for memory that grows only once
        sizes = [resident_mb(pid)]
        for quarter in range(4):
            fuzz(port, messages // 4, seed=1 + quarter, rate=rate)
            sizes.append(resident_mb(pid))
        ended.set()
        player.join()
        return alone, played, sizes


def soak(minutes: float) -> tuple[int, int, list[float]]:
    """Four places in which streams come and go until each has had `minutes` of audio. Blocks are offline, so that they
    come back as fast as they are repaired; presets change, and every block is checked. Returns (streams, blocks, memory
    in MB at ten moments)."""
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
                    assert np.isfinite(out).all(), "non-finite samples"
                    assert np.abs(out - dry).max() < 1.0, "a correction larger than full scale"
                    counts[1] += 1

    async def all_of_them(port: int, pid: int) -> None:
        tasks = [asyncio.create_task(one(port, minutes * 60)) for _ in range(4)]
        while not all(task.done() for task in tasks):
            sizes.append(resident_mb(pid))
            await asyncio.sleep(2.0)
        await asyncio.gather(*tasks)

    with bridge("--max-streams", "8") as (port, pid):
        asyncio.run(all_of_them(port, pid))
    places = np.linspace(0, len(sizes) - 1, 10).round().astype(int)
    return counts[0], counts[1], [sizes[place] for place in places]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("what", nargs="+", choices=["round-trips", "carried", "blends", "memory", "fuzz", "soak"])
    parser.add_argument("--count", type=int, default=20000, help="round trips through each server")
    parser.add_argument("--seconds", type=float, default=60.0, help="length of the streams of carried and blends")
    parser.add_argument("--least", type=int, default=1, help="streams at once that carried starts with")
    parser.add_argument("--most", type=int, default=24, help="streams at once that carried stops at")
    parser.add_argument("--every", type=float, default=1.0, help="seconds between two blends")
    parser.add_argument("--messages", type=int, default=200_000, help="mutated messages")
    parser.add_argument("--rate", type=float, default=3000.0, help="mutated messages a second; 0: no limit")
    parser.add_argument("--minutes", type=float, default=30.0, help="audio in each of the four places of the soak")
    given = parser.parse_args()

    def show_round_trips() -> None:
        rows = []
        for found in round_trips(given.count):
            shown = [f"{value:.0f}" for value in found.quantiles_us]
            ratios = [f"{a / b:.2f}" for a, b in zip(found.quantiles_us[:2], found.raw_us, strict=False)]
            rows.append([found.protocol, found.server, *shown, *ratios, f"{found.cpu_us:.0f}"])
        head = ["protocol", "server", "p50", "p99", "p99.9", "p50 / raw echo", "p99 / raw echo", "server's CPU"]
        print_table(f"Round trips of {FRAMES} stereo frames, microseconds", head, rows)

    def show_carried() -> None:
        rows = [
            [quality, str(n), str(met.blocks), str(met.late), f"{1000 * met.worst_s:.1f}", met.cores]
            for quality, n, met in carried(given.seconds, given.least, given.most)
        ]
        head = ["quality", "streams at once", "blocks", "late", "longest answer, ms", "CPU cores in use"]
        print_table(f"Streams of {given.seconds:g} s at {RATE} Hz, {FRAMES} frames, with the mix", head, rows)

    def show_blends() -> None:
        met, waits = blends(given.seconds, given.every)
        if not waits:
            raise SystemExit(f"Error: the bridge answered no blend within {given.seconds:g} s; try a larger --seconds")
        rows = [[
            str(len(waits)), f"{1000 * np.median(waits):.0f}", f"{1000 * max(waits):.0f}", str(met.blocks),
            str(met.late), f"{1000 * met.worst_s:.1f}",
        ]]  # fmt: skip
        head = ["blends", "answer, median, ms", "longest, ms", "blocks", "late", "longest answer to a block, ms"]
        print_table(f"Another blend every {given.every:g} s in a stream of {given.seconds:g} s", head, rows)

    def show_memory() -> None:
        first, more = memory()
        rows = [[f"{first:.0f} MB", f"{more:.1f} MB"]]
        print_table("Memory of the bridge", ["with the model and one stream", "for each further stream"], rows)

    def show_fuzz() -> None:
        alone, beside, sizes = fuzz_beside_a_stream(given.messages, given.rate)
        rows = [
            [name, str(met.blocks), str(met.late), f"{1000 * met.worst_s:.1f}"]
            for name, met in (("alone", alone), ("beside the messages", beside))
        ]
        pace = f"{given.rate:g} a second" if given.rate else "as fast as they can be made"
        title = f"One stream beside {given.messages} mutated messages, {pace}"
        print_table(title, ["the stream", "blocks", "late", "longest answer, ms"], rows)
        print(f"Memory before the messages and after each quarter, MB: {', '.join(f'{size:.0f}' for size in sizes)}\n")

    def show_soak() -> None:
        streams, blocks, sizes = soak(given.minutes)
        print(f"Soak: {streams} streams and {blocks} blocks, all correct.")
        print(f"Memory at ten moments from start to end, MB: {', '.join(f'{size:.0f}' for size in sizes)}\n")

    shows: dict[str, Callable[[], Any]] = {
        "round-trips": show_round_trips, "carried": show_carried, "blends": show_blends, "memory": show_memory,
        "fuzz": show_fuzz, "soak": show_soak,
    }  # fmt: skip
    for name in given.what:
        shows[name]()


if __name__ == "__main__":
    main()

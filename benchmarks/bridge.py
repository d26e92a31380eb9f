"""The bridge under load: round trips beside other servers, streams carried at once, blends that change while a stream
runs, memory, mutated messages, a soak.

    python -m stemprover.benchmarks.bridge round-trips carried blends memory
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
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from ..bridge.client.client import AsyncClient, Client
from ..bridge.osc import Status
from ..engine.detect.bank import TYPES
from .echo import FRAMES, RATE, round_trips
from .mutations import fuzz
from .speed import excerpt


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


@dataclass
class Played:
    """What streams in real time met. worst_s: the longest wait for an answer."""

    blocks: int = 0
    late: int = 0
    worst_s: float = 0.0


async def _play(
    port: int, seconds: float, quality: str, met: Played, begin: float, ended: threading.Event | None = None,
    beside: Callable[[AsyncClient], Coroutine[Any, Any, None]] | None = None,
) -> None:  # fmt: skip
    """One stream in real time; `beside` runs along with it, as long as it lasts."""
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
                met.blocks += 1
                met.late += reply.status == Status.LATE
                met.worst_s = max(met.worst_s, time.monotonic() - asked)
            number += 1
            await asyncio.sleep(max(0.0, first + number * FRAMES / RATE - time.monotonic()))
        if along is not None:
            if not along.done():
                along.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await along


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


def blends(seconds: float, every_s: float) -> tuple[Played, list[float]]:
    """A stream in real time whose blend is another one every `every_s` seconds, of any number of adapters at weights up
    to 1.5. Returns what it met, and how many seconds each change waited for its answer."""
    rng, taken, met = random.Random(3), list[float](), Played()

    async def change(client: AsyncClient) -> None:
        while True:
            chosen = rng.sample(TYPES, rng.randint(1, len(TYPES)))
            asked = time.monotonic()
            await client.blend({name: round(rng.uniform(0.1, 1.5), 2) for name in chosen})
            taken.append(time.monotonic() - asked)
            await asyncio.sleep(max(0.0, asked + every_s - time.monotonic()))

    with bridge() as (port, _):
        asyncio.run(_play(port, seconds, "draft", met, time.monotonic() + 1.0, beside=change))
    return met, taken


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
    parser.add_argument("what", nargs="+", choices=["round-trips", "carried", "blends", "memory", "fuzz", "soak"])
    parser.add_argument("--count", type=int, default=20000, help="round trips")
    parser.add_argument("--seconds", type=float, default=60.0, help="how long streams play at once")
    parser.add_argument("--least", type=int, default=1, help="streams at once to begin with")
    parser.add_argument("--most", type=int, default=24, help="streams that are tried at once")
    parser.add_argument("--every", type=float, default=1.0, help="seconds from one blend to the next")
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

    def show_blends() -> None:
        met, taken = blends(given.seconds, given.every)
        console.print(
            f"{len(taken)} blends in {given.seconds:g} s of a stream, each answered after "
            f"{1000 * np.median(taken):.0f} ms (longest {1000 * max(taken):.0f}): "
            f"{met.late} of {met.blocks} blocks late, longest answer to a block {1000 * met.worst_s:.1f} ms"
        )

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
        "round-trips": show_round_trips, "carried": show_carried, "blends": show_blends, "memory": show_memory,
        "fuzz": show_fuzz, "soak": show_soak,
    }  # fmt: skip
    for name in given.what:
        shows[name]()


if __name__ == "__main__":
    main()

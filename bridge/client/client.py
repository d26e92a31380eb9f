"""Clients of the bridge: for asyncio and for plain scripts.

    with Client(48000, channels=2, mix_channels=2) as bridge:
        bridge.select("bleed")
        out = bridge.process(block, mix)  # as many samples as went in, bridge.latency_samples late
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar

import numpy as np

from ...engine.dsp.fifo import Fifo
from ...engine.errors import OptionError, StemProverError
from .. import PORT
from ..osc import VERSION, Code, Flag, Status, from_blob, to_blob
from .connection import BridgeError, BridgeLostError, Link, fail

FIRST_WAIT_S, LONGEST_WAIT_S = 0.25, 5.0  # between two tries to reach the bridge
TOKEN_VARIABLE = "STEMPROVER_TOKEN"
T = TypeVar("T")


@dataclass(frozen=True)
class Reply:
    """A block that came back: sound (C, n), what it is, how long it took in the bridge."""

    sound: np.ndarray
    status: Status
    position: int
    seconds: float


def find_token(file: Path | None = None) -> str:
    """The token in the file, or in the environment variable STEMPROVER_TOKEN; else nothing."""
    if file is not None:
        try:
            return file.read_text().strip()
        except OSError as error:
            raise OptionError(f"--token-file {file} cannot be read ({error.strerror})") from error
        except UnicodeDecodeError as error:
            raise OptionError(f"--token-file {file} is no text; name the bridge's own") from error
    return os.environ.get(TOKEN_VARIABLE, "")


class AsyncClient:
    """One stream through a bridge, on an event loop. `connect` (or `async with`), then `process` or `send`, `flush`.

    Where the bridge goes away, `process` gives the sound as it came, as late as before, and the client tries to reach
    the bridge again, after 0.25 to 5 s. Raises BridgeLostError where it was never reached, and BridgeError for what it
    refuses.
    """

    def __init__(
        self,
        sample_rate: int,
        channels: int = 2,
        mix_channels: int = 0,
        *,
        max_block: int = 2048,
        name: str = "",
        host: str = "127.0.0.1",
        port: int = PORT,
        token: str | None = None,
    ) -> None:
        self.sample_rate, self.channels, self.mix_channels = sample_rate, channels, mix_channels
        self.max_block, self.name, self.host, self.port = max_block, name or f"pid {os.getpid()}", host, port
        self.token = find_token() if token is None else token
        self.latency_samples = self.stream = self.session = 0
        self.latency: dict[str, int] = {}
        self.late = self.blocks = 0
        self.connected = False  # with the stream open and its settings told
        self.on_message: Callable[[str, tuple[Any, ...]], None] = lambda address, arguments: None
        self._blocks: deque[tuple[int, asyncio.Future[Reply]]] = deque()
        self._settings: dict[str, tuple[str, tuple[Any, ...]]] = {}
        self._tail: list[np.ndarray] = []
        self._sequence = itertools.count()
        self._position = 0
        self._dry = Fifo()
        self._sends = False  # blocks go by `send`, so that _dry has none of them
        self._torn = False  # a block was refused: the next one begins anew
        self._fresh = 0  # samples that have to go out before what comes from the bridge is all of this stream
        self._link: Link | None = None
        self._again: asyncio.Task[None] | None = None
        self._closed = False

    async def __aenter__(self) -> AsyncClient:
        await self.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def connect(self) -> None:
        """Reach the bridge and open the stream."""
        await self._open()
        self._dry.push(np.zeros((self.channels, self.latency_samples), np.float32))
        self._fresh = 0

    async def send(self, block: np.ndarray, mix: np.ndarray | None = None, flags: int = 0) -> Reply:
        """The next block (C, n) and its mixture (M, n); returns what comes back for it."""
        self._sends = True
        return await self._post(block, mix, flags)

    async def process(self, block: np.ndarray, mix: np.ndarray | None = None, *, offline: bool = False) -> np.ndarray:
        """As many samples (C, n), `latency_samples` late; repaired, or as they came where the bridge is late or gone.
        `offline` waits for the repair."""
        sound = np.asarray(block, np.float32)
        self._dry.push(sound.copy())
        parts = []
        for start in range(0, sound.shape[1], self.max_block):
            part = slice(start, start + self.max_block)
            parts.append(await self._piece(sound[:, part], None if mix is None else mix[:, part], offline))
        return np.concatenate(parts, axis=1) if parts else np.zeros((self.channels, 0), np.float32)

    async def _piece(self, sound: np.ndarray, mix: np.ndarray | None, offline: bool) -> np.ndarray:
        count = sound.shape[1]
        dry = self._dry.pop(count)
        if not self.connected:
            self._come_back()
            return dry
        try:
            reply = await self._post(sound, mix, Flag.OFFLINE if offline else Flag(0))
        except BridgeLostError:
            self._come_back()
            return dry
        old = min(count, self._fresh)
        self._fresh -= old
        return np.concatenate([dry[:, :old], reply.sound[:, old:]], axis=1)

    async def flush(self) -> np.ndarray:
        """The last `latency_samples` samples; the stream is as new afterwards. Where the bridge is gone they come as
        they went in; after `send`, which keeps none, BridgeLostError is raised."""
        rest = self._dry.pop(self.latency_samples) if self.latency_samples else np.zeros((self.channels, 0))
        self._dry.push(np.zeros((self.channels, self.latency_samples), np.float32))
        self._tail = []
        try:
            if not self.connected:
                raise BridgeLostError(f"no bridge at {self.host}:{self.port}")
            await self._ask("/flush", "i", self.stream)
        except BridgeLostError:
            if self._sends:
                raise
            return rest
        self._sends = False
        self._position, self._sequence = 0, itertools.count()
        found = np.concatenate(self._tail, axis=1)
        self._fresh, old = 0, self._fresh
        return np.concatenate([rest[:, :old], found[:, old:]], axis=1)

    async def reset(self) -> None:
        """Back to the state before the first block; settings stay."""
        await self._ask("/reset", "i", self.stream)
        self._position, self._sequence, self._fresh = 0, itertools.count(), 0
        self._dry = Fifo()
        self._dry.push(np.zeros((self.channels, self.latency_samples), np.float32))

    async def select(self, preset: str) -> int:
        """A preset by name, or auto. Returns the position, in what comes back, from which it holds."""
        return await self._set("preset", "s", preset)

    async def blend(self, weights: Mapping[str, float]) -> int:
        """Several presets at once; as `select`."""
        flat = [value for pair in weights.items() for value in pair]
        return await self._set("blend", "sf" * len(weights), *flat)

    async def set_wet(self, share: float) -> int:
        """0 untouched, 1 as the preset says; as `select`."""
        return await self._set("wet", "f", share)

    async def set_bypass(self, on: bool) -> int:
        """Latency-matched bypass; as `select`."""
        return await self._set("bypass", "i", int(on))

    async def set_quality(self, quality: str) -> int:
        """draft, standard or best; as `select`."""
        return await self._set("quality", "s", quality)

    async def presets(self) -> dict[str, str]:
        """Name to title."""
        flat = (await self._ask("/presets", ""))[1:]
        return dict(zip(flat[::2], flat[1::2], strict=True))

    async def ping(self) -> dict[str, float]:
        """Round trip in seconds, late and lost blocks, waiting blocks, load."""
        begun = time.monotonic()
        _, _, _, _, late, lost, waiting, load = await self._ask("/ping", "d", begun)
        return {"round_trip_s": time.monotonic() - begun, "late": late, "lost": lost, "waiting": waiting, "load": load}

    async def request(self, address: str, tags: str, *values: Any) -> tuple[Any, ...]:
        """Any message whose first argument is a request; returns the answer's arguments."""
        return await self._ask(address, tags, *values)

    async def close(self) -> None:
        """End the stream and the connection."""
        self._closed = True
        if self._again is not None:
            self._again.cancel()
        if self.connected and self.stream:
            with contextlib.suppress(StemProverError, TimeoutError):
                await asyncio.wait_for(self._ask("/close", "i", self.stream), 2.0)
        if self._link is not None:
            self._link.close()
        self.connected = False

    # the connection

    async def _open(self) -> None:
        link = self._link = await Link.open(self.host, self.port, self._hear, self._refused, self._lost)
        role = "stream" if self.channels else "control"
        shape = (self.sample_rate, self.max_block, self.channels, self.mix_channels) if self.channels else (0, 0, 0, 0)
        try:
            found = await link.ask("/hello", "sssiiiii", self.token, self.name, role, *shape, VERSION)
            _, self.session, self.stream, _, self.latency_samples, *parts, _ = found
            self.latency = dict(zip(("window", "lookahead", "chunk", "adaptation"), parts, strict=True))
            self._position, self._sequence = 0, itertools.count()
            for name, (tags, values) in list(self._settings.items()):
                try:
                    await self._ask_stream(name, tags, *values)
                except BridgeError:
                    del self._settings[name]  # another bridge may not have that preset: the sound is worth more
        except BaseException:
            link.close()  # with the stream, if there is one: the next try opens another
            raise
        self._fresh = self.latency_samples
        self.connected = True

    def _come_back(self) -> None:
        if self._closed or (self._again is not None and not self._again.done()):
            return

        async def tries() -> None:
            wait = FIRST_WAIT_S
            while not self._closed:
                await asyncio.sleep(wait)
                try:
                    await self._open()
                except (BridgeLostError, BridgeError):
                    wait = min(LONGEST_WAIT_S, 2 * wait)
                    continue
                return

        self._again = asyncio.get_running_loop().create_task(tries())

    def _lost(self, link: Link) -> None:
        if link is not self._link:
            return
        self.connected = False
        for _, future in self._blocks:
            fail(future, BridgeLostError(f"the bridge at {self.host}:{self.port} has gone"))
        self._blocks.clear()

    def _refused(self, error: BridgeError, address: str, sequence: int) -> None:
        if address.endswith("/block"):
            self._torn = True
            for number, future in self._blocks:
                if number == sequence:
                    fail(future, error)
        elif self._link is not None:
            self._link.fail_all(error)

    async def _post(self, block: np.ndarray, mix: np.ndarray | None, flags: int) -> Reply:
        sound = np.asarray(block, np.float32)
        if sound.ndim != 2 or len(sound) != self.channels:
            raise OptionError(f"block of shape {sound.shape}: give ({self.channels}, samples)")
        if self.mix_channels:
            song = np.zeros((0, 0)) if mix is None else np.asarray(mix, np.float32)
            if song.shape != (self.mix_channels, sound.shape[1]):
                raise OptionError(f"mix of shape {song.shape}: give ({self.mix_channels}, {sound.shape[1]})")
            sound = np.concatenate([sound, song])
        elif mix is not None:
            raise OptionError("this stream has no mixture channels; open it with mix_channels")
        if not 1 <= sound.shape[1] <= self.max_block:
            raise OptionError(f"block of {sound.shape[1]} frames: give 1 to {self.max_block} (max_block)")
        if not self.connected or self._link is None:
            raise BridgeLostError(f"no bridge at {self.host}:{self.port}")
        await self._link.room.wait()
        sequence, count = next(self._sequence), sound.shape[1]
        if self._torn:
            self._torn, flags = False, flags | Flag.DISCONTINUITY
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._blocks.append((sequence, future))
        self._link.write("/block", "iihiib", self.stream, sequence, self._position, count, int(flags), to_blob(sound))
        self._position += count
        return await future

    async def _set(self, name: str, tags: str, *values: Any) -> int:
        answer = await self._ask_stream(name, tags, *values)
        if name in ("preset", "blend"):
            self._settings.pop("preset", None)
            self._settings.pop("blend", None)
        self._settings[name] = (tags, values)
        return int(answer[3])

    async def _ask_stream(self, name: str, tags: str, *values: Any) -> tuple[Any, ...]:
        return await self._linked().ask(f"/stream/{self.stream}/{name}", tags, *values, last=True)

    async def _ask(self, address: str, tags: str, *values: Any) -> tuple[Any, ...]:
        return await self._linked().ask(address, tags, *values)

    def _linked(self) -> Link:
        if self._link is None:
            raise BridgeLostError(f"no bridge at {self.host}:{self.port}")
        return self._link

    def _hear(self, path: str, arguments: tuple[Any, ...]) -> None:
        if path == "/block":
            self._take(arguments)
        self.on_message(path, arguments)

    def _take(self, arguments: tuple[Any, ...]) -> None:
        _, sequence, position, frames, _, status, microseconds, _, blob = arguments
        sound = from_blob(blob, self.channels, frames).copy()
        if sequence < 0:
            self._tail.append(sound)
            return
        self.blocks += 1
        self.late += status == Status.LATE
        while self._blocks and self._blocks[0][0] <= sequence:
            number, future = self._blocks.popleft()
            if number == sequence:
                if not future.done():
                    future.set_result(Reply(sound, Status(status), position, microseconds * 1e-6))
                return
            fail(future, BridgeError(Code.ORDER, f"block {number} was not answered"))


class Client:
    """As AsyncClient, for scripts: every method waits for its answer. A context manager."""

    def __init__(self, sample_rate: int, channels: int = 2, mix_channels: int = 0, **options: Any) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="stemprover-client", daemon=True)
        self._thread.start()
        self._client = AsyncClient(sample_rate, channels, mix_channels, **options)
        try:
            self._run(self._client.connect())
        except BaseException:
            self._end()
            raise

    @property
    def latency_samples(self) -> int:
        """Samples from a sample's arrival to its repair."""
        return self._client.latency_samples

    @property
    def late(self) -> int:
        """Blocks that came back untouched, since their repair was late."""
        return self._client.late

    @property
    def blocks(self) -> int:
        """Blocks that came back."""
        return self._client.blocks

    @property
    def connected(self) -> bool:
        """Whether the bridge is there."""
        return self._client.connected

    def process(self, block: np.ndarray, mix: np.ndarray | None = None, *, offline: bool = False) -> np.ndarray:
        """As AsyncClient.process."""
        return self._run(self._client.process(block, mix, offline=offline))

    def submit(self, block: np.ndarray, mix: np.ndarray | None = None, *, offline: bool = False) -> Future[Reply]:
        """A block on its way: the future holds what comes back. Blocks go out in the order of the calls."""
        flags = Flag.OFFLINE if offline else Flag(0)
        return asyncio.run_coroutine_threadsafe(self._client.send(block, mix, flags), self._loop)

    def flush(self) -> np.ndarray:
        """As AsyncClient.flush."""
        return self._run(self._client.flush())

    def reset(self) -> None:
        """As AsyncClient.reset."""
        self._run(self._client.reset())

    def select(self, preset: str) -> int:
        """As AsyncClient.select."""
        return self._run(self._client.select(preset))

    def blend(self, weights: Mapping[str, float]) -> int:
        """As AsyncClient.blend."""
        return self._run(self._client.blend(weights))

    def set_wet(self, share: float) -> int:
        """As AsyncClient.set_wet."""
        return self._run(self._client.set_wet(share))

    def set_bypass(self, on: bool) -> int:
        """As AsyncClient.set_bypass."""
        return self._run(self._client.set_bypass(on))

    def set_quality(self, quality: str) -> int:
        """As AsyncClient.set_quality."""
        return self._run(self._client.set_quality(quality))

    def presets(self) -> dict[str, str]:
        """As AsyncClient.presets."""
        return self._run(self._client.presets())

    def ping(self) -> dict[str, float]:
        """As AsyncClient.ping."""
        return self._run(self._client.ping())

    def request(self, address: str, tags: str, *values: Any) -> tuple[Any, ...]:
        """As AsyncClient.request."""
        return self._run(self._client.request(address, tags, *values))

    def close(self) -> None:
        """End the stream and the connection."""
        if self._loop.is_running():
            self._run(self._client.close())
            self._end()

    def __enter__(self) -> Client:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _end(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(timeout=5.0)

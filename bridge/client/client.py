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
from ...engine.stem_names import UNKNOWN
from .. import PORT, TOKEN_VARIABLE
from ..osc import VERSION, Code, Flag, Status, from_blob, to_blob
from .connection import BridgeError, BridgeLostError, Connection, fail

FIRST_WAIT_S, LONGEST_WAIT_S = 0.25, 5.0  # between two attempts to reach the bridge
T = TypeVar("T")


@dataclass(frozen=True)
class Reply:
    """A block that came back: audio (C, n), its status, and the time it spent in the bridge."""

    audio: np.ndarray
    status: Status
    position: int
    seconds: float


def find_token(file: Path | None = None) -> str:
    """The token in the file, or in the environment variable STEMPROVER_TOKEN; an empty string if there is none."""
    if file is not None:
        try:
            return file.read_text().strip()
        except OSError as error:
            raise OptionError(f"--token-file {file} cannot be read ({error.strerror})") from error
        except UnicodeDecodeError as error:
            raise OptionError(f"--token-file {file} is not a text file; use the bridge's own") from error
    return os.environ.get(TOKEN_VARIABLE, "")


class AsyncClient:
    """One stream through a bridge, on an event loop. `connect` (or `async with`), then `process` or `send`, and
    `flush`.

    If the bridge goes away, `process` returns the dry signal with the same latency, and the client keeps trying to
    reach the bridge again, every 0.25 to 5 s. Raises BridgeLostError if it never was reached, and BridgeError for what
    it refuses.
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
        self.connected = False  # and the stream open with its settings
        self.on_message: Callable[[str, tuple[Any, ...]], None] = lambda address, arguments: None
        self._blocks: deque[tuple[int, asyncio.Future[Reply]]] = deque()
        self._settings: dict[str, tuple[Any, ...]] = {}
        self._tail: list[np.ndarray] = []
        self._sequence = itertools.count()
        self._position = 0
        self._dry = Fifo()
        self._sends = False  # blocks go by `send`, so _dry does not hold them
        self._interrupted = False  # a block was refused: the next one is a discontinuity
        self._dry_first = 0  # samples of a new stream that only the dry signal has
        self._connection: Connection | None = None
        self._reconnecting: asyncio.Task[None] | None = None
        self._closed = False

    async def __aenter__(self) -> AsyncClient:
        await self.connect()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def connect(self) -> None:
        """Connect and open the stream."""
        await self._open()
        self._dry.push(np.zeros((self.channels, self.latency_samples), np.float32))
        self._dry_first = 0

    async def send(self, block: np.ndarray, mix: np.ndarray | None = None, flags: int = 0) -> Reply:
        """The next block (C, n) and its mix (M, n); returns what comes back for it."""
        self._sends = True
        return await self._post(block, mix, flags)

    async def process(self, block: np.ndarray, mix: np.ndarray | None = None, *, offline: bool = False) -> np.ndarray:
        """As many samples (C, n), `latency_samples` late; repaired, or dry if the bridge is late or gone. `offline`:
        wait for the repair."""
        audio = np.asarray(block, np.float32)
        self._dry.push(audio.copy())
        parts = []
        for start in range(0, audio.shape[1], self.max_block):
            part = slice(start, start + self.max_block)
            parts.append(await self._process_block(audio[:, part], None if mix is None else mix[:, part], offline))
        return np.concatenate(parts, axis=1) if parts else np.zeros((self.channels, 0), np.float32)

    async def _process_block(self, audio: np.ndarray, mix: np.ndarray | None, offline: bool) -> np.ndarray:
        count = audio.shape[1]
        dry = self._dry.pop(count)
        if not self.connected:
            self._reconnect()
            return dry
        try:
            reply = await self._post(audio, mix, Flag.OFFLINE if offline else Flag(0))
        except BridgeLostError:
            self._reconnect()
            return dry
        old = min(count, self._dry_first)
        self._dry_first -= old
        return np.concatenate([dry[:, :old], reply.audio[:, old:]], axis=1)

    async def flush(self) -> np.ndarray:
        """The last `latency_samples` samples; the stream is as new afterwards. If the bridge is gone they are dry;
        after `send`, which does not keep the dry signal, BridgeLostError is raised."""
        rest = self._dry.pop(self.latency_samples) if self.latency_samples else np.zeros((self.channels, 0))
        self._dry.push(np.zeros((self.channels, self.latency_samples), np.float32))
        self._tail = []
        try:
            if not self.connected:
                raise BridgeLostError(f"no bridge at {self.host}:{self.port}")
            await self._ask("/flush", self.stream)
        except BridgeLostError:
            if self._sends:
                raise
            return rest
        self._sends = False
        self._position, self._sequence = 0, itertools.count()
        found = np.concatenate(self._tail, axis=1)
        self._dry_first, old = 0, self._dry_first
        return np.concatenate([rest[:, :old], found[:, old:]], axis=1)

    async def reset(self) -> None:
        """Back to the state before the first block; settings stay."""
        await self._ask("/reset", self.stream)
        self._position, self._sequence, self._dry_first = 0, itertools.count(), 0
        self._dry = Fifo()
        self._dry.push(np.zeros((self.channels, self.latency_samples), np.float32))

    async def select(self, preset: str) -> int:
        """A preset by name, or auto. Returns the position of the returned audio at which it takes effect."""
        return await self._set("preset", preset)

    async def blend(self, weights: Mapping[str, float]) -> int:
        """Several presets at once; as `select`."""
        if not weights:
            raise OptionError("a blend needs at least one preset, as in {'bleed': 0.6}")
        flat = [value for pair in weights.items() for value in pair]
        return await self._set("blend", *flat)

    async def set_wet(self, amount: float) -> int:
        """0 untouched, 1 as the preset says; as `select`."""
        return await self._set("wet", amount)

    async def set_bypass(self, on: bool) -> int:
        """Latency-matched bypass; as `select`."""
        return await self._set("bypass", int(on))

    async def set_check_mix(self, on: bool) -> int:
        """Whether the bridge has to prove the mix before it uses it, as it does at first; False if that was done."""
        return await self._set("check_mix", int(on))

    async def set_quality(self, quality: str) -> int:
        """draft, standard or best; as `select`."""
        return await self._set("quality", quality)

    async def set_role(self, role: str | None) -> int:
        """What the stem is, one of stem_names.ROLES; None if it is not known. As `select`."""
        return await self._set("role", role or UNKNOWN)

    async def presets(self) -> dict[str, str]:
        """Name to title."""
        flat = (await self._ask("/presets"))[1:]
        return dict(zip(flat[::2], flat[1::2], strict=True))

    async def ping(self) -> dict[str, float]:
        """Round trip in seconds, late and lost blocks, waiting blocks, load."""
        begun = time.monotonic()
        _, _, _, _, late, lost, waiting, load = await self._ask("/ping", begun)
        return {"round_trip_s": time.monotonic() - begun, "late": late, "lost": lost, "waiting": waiting, "load": load}

    async def request(self, address: str, tags: str, *values: Any) -> tuple[Any, ...]:
        """Any message whose first argument is a request; returns the answer's arguments."""
        return await self._required_connection().ask_raw(address, tags, *values)

    async def close(self) -> None:
        """Close the stream and the connection."""
        self._closed = True
        if self._reconnecting is not None:
            self._reconnecting.cancel()
        if self.connected and self.stream:
            with contextlib.suppress(StemProverError, TimeoutError):
                await asyncio.wait_for(self._ask("/close", self.stream), 2.0)
        if self._connection is not None:
            self._connection.close()
        self.connected = False

    # the connection

    async def _open(self) -> None:
        connection = self._connection = await Connection.open(
            self.host, self.port, self._received, self._refused, self._lost
        )
        role = "stream" if self.channels else "control"
        shape = (self.sample_rate, self.max_block, self.channels, self.mix_channels) if self.channels else (0, 0, 0, 0)
        try:
            found = await connection.ask("/hello", self.token, self.name, role, *shape, VERSION)
            _, self.session, self.stream, _, self.latency_samples, *parts, _ = found
            self.latency = dict(zip(("window", "lookahead", "chunk", "adaptation"), parts, strict=True))
            self._position, self._sequence = 0, itertools.count()
            for name, values in list(self._settings.items()):
                try:
                    await self._ask_stream(name, *values)
                except BridgeError:
                    del self._settings[name]  # another bridge may not have that preset: audio matters more
        except BaseException:
            connection.close()  # and the stream with it: the next attempt opens another
            raise
        self._dry_first = self.latency_samples
        self.connected = True

    def _reconnect(self) -> None:
        if self._closed or (self._reconnecting is not None and not self._reconnecting.done()):
            return

        async def attempts() -> None:
            wait = FIRST_WAIT_S
            while not self._closed:
                await asyncio.sleep(wait)
                try:
                    await self._open()
                except (BridgeLostError, BridgeError):
                    wait = min(LONGEST_WAIT_S, 2 * wait)
                    continue
                return

        self._reconnecting = asyncio.get_running_loop().create_task(attempts())

    def _lost(self, connection: Connection) -> None:
        if connection is not self._connection:
            return
        self.connected = False
        for _, future in self._blocks:
            fail(future, BridgeLostError(f"the bridge at {self.host}:{self.port} has stopped"))
        self._blocks.clear()

    def _refused(self, error: BridgeError, address: str, sequence: int) -> None:
        if address.endswith("/block"):
            self._interrupted = True
            for number, future in self._blocks:
                if number == sequence:
                    fail(future, error)
        elif self._connection is not None:
            self._connection.fail_all(error)

    async def _post(self, block: np.ndarray, mix: np.ndarray | None, flags: int) -> Reply:
        audio = np.asarray(block, np.float32)
        if audio.ndim != 2 or len(audio) != self.channels:
            raise OptionError(f"block of shape {audio.shape}: pass ({self.channels}, samples)")
        if self.mix_channels:
            whole = np.zeros((0, 0)) if mix is None else np.asarray(mix, np.float32)
            if whole.shape != (self.mix_channels, audio.shape[1]):
                raise OptionError(f"mix of shape {whole.shape}: pass ({self.mix_channels}, {audio.shape[1]})")
            audio = np.concatenate([audio, whole])
        elif mix is not None:
            raise OptionError("this stream has no mix channels; open it with mix_channels")
        if not 1 <= audio.shape[1] <= self.max_block:
            raise OptionError(f"block of {audio.shape[1]} frames: use 1 to {self.max_block} (max_block)")
        if not self.connected or self._connection is None:
            raise BridgeLostError(f"no bridge at {self.host}:{self.port}")
        await self._connection.room.wait()
        sequence, count = next(self._sequence), audio.shape[1]
        if self._interrupted:
            self._interrupted, flags = False, flags | Flag.DISCONTINUITY
        future: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._blocks.append((sequence, future))
        self._connection.send("/block", self.stream, sequence, self._position, count, int(flags), to_blob(audio))
        self._position += count
        return await future

    async def _set(self, name: str, *values: Any) -> int:
        answer = await self._ask_stream(name, *values)
        if name in ("preset", "blend"):
            self._settings.pop("preset", None)
            self._settings.pop("blend", None)
        self._settings[name] = values
        return int(answer[3])

    async def _ask_stream(self, name: str, *values: Any) -> tuple[Any, ...]:
        return await self._ask(f"/stream/{self.stream}/{name}", *values)

    async def _ask(self, path: str, *values: Any) -> tuple[Any, ...]:
        return await self._required_connection().ask(path, *values)

    def _required_connection(self) -> Connection:
        if self._connection is None:
            raise BridgeLostError(f"no bridge at {self.host}:{self.port}")
        return self._connection

    def _received(self, path: str, arguments: tuple[Any, ...]) -> None:
        if path == "/block":
            self._take(arguments)
        self.on_message(path, arguments)

    def _take(self, arguments: tuple[Any, ...]) -> None:
        _, sequence, position, frames, _, status, microseconds, _, blob = arguments
        audio = from_blob(blob, self.channels, frames).copy()
        if sequence < 0:
            self._tail.append(audio)
            return
        self.blocks += 1
        self.late += status == Status.LATE
        while self._blocks and self._blocks[0][0] <= sequence:
            number, future = self._blocks.popleft()
            if number == sequence:
                if not future.done():
                    future.set_result(Reply(audio, Status(status), position, microseconds * 1e-6))
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
        """Blocks that came back dry because their repair was late."""
        return self._client.late

    @property
    def blocks(self) -> int:
        """Blocks that came back."""
        return self._client.blocks

    @property
    def connected(self) -> bool:
        """Whether the bridge can be reached."""
        return self._client.connected

    def process(self, block: np.ndarray, mix: np.ndarray | None = None, *, offline: bool = False) -> np.ndarray:
        """As AsyncClient.process."""
        return self._run(self._client.process(block, mix, offline=offline))

    def submit(self, block: np.ndarray, mix: np.ndarray | None = None, *, offline: bool = False) -> Future[Reply]:
        """Send a block without waiting: the future holds what comes back. Blocks are sent in the order of the calls."""
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

    def set_wet(self, amount: float) -> int:
        """As AsyncClient.set_wet."""
        return self._run(self._client.set_wet(amount))

    def set_bypass(self, on: bool) -> int:
        """As AsyncClient.set_bypass."""
        return self._run(self._client.set_bypass(on))

    def set_check_mix(self, on: bool) -> int:
        """As AsyncClient."""
        return self._run(self._client.set_check_mix(on))

    def set_quality(self, quality: str) -> int:
        """As AsyncClient.set_quality."""
        return self._run(self._client.set_quality(quality))

    def set_role(self, role: str | None) -> int:
        """As AsyncClient.set_role."""
        return self._run(self._client.set_role(role))

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
        """Close the stream and the connection."""
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

"""What all sessions of a bridge share: models, worker threads, open streams and their limit, jobs. No sockets."""

from __future__ import annotations

import asyncio
import hmac
import itertools
import json
import logging
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ... import __version__
from ...engine.bundle import base_bundle
from ...engine.constants import MODEL_RATE
from ...engine.dsp.channels import pair_count
from ...engine.errors import OptionError
from ...engine.latency import ModelTiming, stream_latency
from ...engine.preset import Preset, find_presets, load_preset
from ...engine.repair import Repairer, available_cores
from ...engine.stem_names import UNKNOWN
from .. import PORT
from ..osc import Code, ProtocolError, StreamFormat
from .model_cache import MAX_LOAD, ModelCache, fits, load_of
from .scheduler import WorkerPool
from .stream import CHUNK_FRAMES, Answer, Stream

if TYPE_CHECKING:
    from .jobs import Jobs

_LOG = logging.getLogger("stemprover.bridge")
ASSUMED_COST = 0.15  # cores that a model step occupies, until it is measured
UNUSED_S = 0.25  # that a stream over UDP without a block keeps its place when there is no other
STATUS_S, TITLES_S = 0.1, 1.0  # how old a cached answer may be
USUAL_RATES = (MODEL_RATE, 48000, 88200, 96000)
MOST_STREAMS = 128


def log(event: str, **fields: Any) -> None:
    """One log line for one event."""
    text = " ".join(f"{key}={json.dumps(value) if isinstance(value, str) else value}" for key, value in fields.items())
    _LOG.info("event=%s %s", event, text)


@dataclass(frozen=True)
class BridgeConfig:
    """How a bridge runs. host: an address of this machine; any but loopback needs a token. port: OSC over TCP and UDP.
    http_port: discovery and monitor page, always on loopback. 0 for a free port. roots: folders that jobs may read and
    write. check_mix: whether streams begin with their mix
    unproved. threads: workers, None for one a CPU core. most_streams: None for what the machine can run."""

    host: str = "127.0.0.1"
    port: int = PORT
    http_port: int = PORT + 1
    token: str | None = None
    roots: tuple[Path, ...] = ()
    device: str = "auto"
    threads: int | None = None
    most_streams: int | None = None
    jobs_file: Path | None = None
    check_mix: bool = True
    make_repairer: Callable[..., Repairer] = field(default=Repairer, repr=False)

    def __post_init__(self) -> None:
        if self.host in ("", "0.0.0.0", "::", "*"):
            raise OptionError(
                f"--host {self.host or repr('')} means all networks of this machine; use one address, such as 127.0.0.1"
            )
        if not self.is_local and not self.token:
            raise OptionError(f"--host {self.host} can be reached by others: set a token as well (--token-file)")
        for name, port in (("--port", self.port), ("--http-port", self.http_port)):
            if not 0 <= port <= 65535:
                raise OptionError(f"{name} {port} is out of range; use 0 (any) to 65535")
        if self.port == self.http_port and self.port:
            raise OptionError(f"--port and --http-port are both {self.port}; use two different ports")
        for root in self.roots:
            if not root.is_dir():
                raise OptionError(f"--root {root} is not a directory; create it first")

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the bridge."""
        return self.host in ("localhost", "::1") or self.host.startswith("127.")


class Registry:
    """Create it on the event loop's thread, which owns it."""

    def __init__(self, config: BridgeConfig) -> None:
        self.config = config
        self.cores = config.threads or available_cores()
        self.started = time.time()
        self.timing = ModelTiming.from_json(json.loads((base_bundle() / "bundle.json").read_text()))
        self.models = ModelCache(self._make, self.cores)
        self.workers = WorkerPool(self.cores)
        self.streams: dict[int, Stream] = {}
        self._over_udp: set[int] = set()  # numbers of streams
        self._measurer = ThreadPoolExecutor(1, thread_name_prefix="stemprover-measurer")
        self._measured: set[int] = set()  # sample rates
        self.jobs: Jobs | None = None
        self._status, self._status_at = "", -1.0
        self._titles: asyncio.Future[list[tuple[str, str]]] | None = None
        self._titles_at = 0.0
        self._numbers = itertools.count(1)
        self._sessions = itertools.count(1)
        self.general = load_preset("general")
        self.models.get(self.general, "standard")  # loads while the sockets open
        for rate in USUAL_RATES:
            self._measurer.submit(self._measure, rate)

    @property
    def cost_per_step(self) -> float:
        """CPU cores that a model step occupies for a channel pair."""
        return self.models.cost_per_step or ASSUMED_COST

    def new_session(self) -> int:
        """The next session's number."""
        return next(self._sessions)

    def check_token(self, given: str) -> None:
        """Raises ProtocolError unless this is the token, or none is needed."""
        wanted = self.config.token
        if wanted and not hmac.compare_digest(given.encode("utf-8", "replace"), wanted.encode()):
            raise ProtocolError(
                Code.TOKEN, "the token is missing or wrong; it is in the bridge's --token-file or STEMPROVER_TOKEN"
            )

    async def measure(self, sample_rate: int) -> None:
        """Measure a rate's latency once, without blocking the event loop."""
        if sample_rate not in self._measured:
            await asyncio.get_running_loop().run_in_executor(self._measurer, self._measure, sample_rate)

    def _measure(self, sample_rate: int) -> None:
        stream_latency(self.timing, sample_rate, CHUNK_FRAMES)
        self._measured.add(sample_rate)

    def open(
        self, name: str, form: StreamFormat, answer: Callable[[Answer], None], *, datagrams: bool = False
    ) -> Stream:
        """A new stream, after `measure` of its rate. Raises ProtocolError (BUSY) if this machine cannot run more.
        datagrams: its client may go away unnoticed."""
        more = load_of(pair_count(form.channels), "standard", self.cost_per_step)
        if not self._has_room(more):
            self.drop_unused(UNUSED_S, most=1)
        if not self._has_room(more):
            raise ProtocolError(
                Code.BUSY,
                f"{len(self.streams)} streams are open, all that {self.cores} CPU cores can run; close one first",
            )
        number = next(self._numbers)
        stream = Stream(number, name, form, self.timing, self.general, self.models, self.workers.wake, answer)
        if form.has_mix and self.config.check_mix:
            stream.check_mix(True)
        stream.selection.allow = lambda quality: self._check_quality(number, quality)
        self.streams[number] = stream
        if datagrams:
            self._over_udp.add(number)
        log(
            "open", stream=number, name=name, rate=form.sample_rate, channels=form.channels,
            mix=form.mix_channels, latency=stream.latency.total,
        )  # fmt: skip
        return stream

    def _check_quality(self, number: int, quality: str) -> None:
        """Raises ProtocolError (BUSY) if a stream would be too much at this quality."""
        mine = self.stream(number)
        loads = {other: stream.load(self.cost_per_step) for other, stream in self.streams.items() if stream is not mine}
        more = load_of(pair_count(mine.format.channels), quality, self.cost_per_step)
        grows = more > mine.load(self.cost_per_step)
        if grows and self.config.most_streams is None and not fits(loads, more, self.cores):
            raise ProtocolError(
                Code.BUSY, f"quality {quality} is more than this machine can run beside {len(loads)} other streams"
            )

    def _has_room(self, more: float) -> bool:
        most = self.config.most_streams
        if len(self.streams) >= (MOST_STREAMS if most is None else most):
            return False
        loads = {number: stream.load(self.cost_per_step) for number, stream in self.streams.items()}
        return most is not None or fits(loads, more, self.cores)

    def drop_unused(self, seconds: float, most: int | None = None) -> None:
        """Close the oldest streams over UDP, `most` at most, that have had no block since they were opened so many
        seconds ago: they take the place of others."""
        before = time.monotonic() - seconds
        streams = [self.streams[number] for number in sorted(self._over_udp)]
        unused = [stream for stream in streams if stream.counters.blocks == 0 and stream.opened < before]
        for stream in unused[:most]:
            self.close(stream)

    def close(self, stream: Stream) -> None:
        """Close a stream."""
        if self.streams.pop(stream.number, None) is None:
            return
        self._over_udp.discard(stream.number)
        stream.close()
        counters = stream.counters
        log("close", stream=stream.number, blocks=counters.blocks, late=counters.late, lost=counters.lost)

    def stream(self, number: int) -> Stream:
        """An open stream. Raises ProtocolError."""
        if number not in self.streams:
            raise ProtocolError(Code.NO_STREAM, f"stream {number} is not open")
        return self.streams[number]

    def capacity(self) -> int:
        """Stereo streams of standard quality that this machine can run at once."""
        if self.config.most_streams is not None:
            return self.config.most_streams
        return max(1, min(MOST_STREAMS, int(MAX_LOAD * self.cores / max(self.cost_per_step, 1e-6))))

    def status(self) -> dict[str, Any]:
        """The state of the bridge, for JSON."""
        return {
            "version": __version__,
            "uptime_s": round(time.time() - self.started, 1),
            "model": "ready" if self.models.cost_per_step is not None else "loading",
            "processors": self.cores,
            "cost_per_pair": round(self.cost_per_step, 4),
            "carries_streams": self.capacity(),
            "load": round(sum(s.counters.load for s in self.streams.values()) / self.cores, 4),
            "streams": [stream_status(stream) for stream in self.streams.values()],
            "jobs": [] if self.jobs is None else [job.as_dict() for job in self.jobs.recent()],
        }

    def status_json(self) -> str:
        """`status` as JSON, at most STATUS_S old."""
        now = time.monotonic()
        if now - self._status_at > STATUS_S:
            self._status, self._status_at = json.dumps(self.status()), now
        return self._status

    async def titles(self) -> list[tuple[str, str]]:
        """Name and title of all presets, at most TITLES_S old."""
        now = time.monotonic()
        if self._titles is None or now - self._titles_at > TITLES_S:
            loop = asyncio.get_running_loop()
            self._titles, self._titles_at = loop.run_in_executor(None, lambda: list(preset_titles())), now
        return await asyncio.shield(self._titles)

    async def shut(self) -> None:
        """Let the waiting blocks be answered, then stop the threads."""
        streams = list(self.streams.values())
        waiting = [stream for stream in streams if stream.queued]
        deadline = time.monotonic() + 2.0
        while any(stream.queued for stream in waiting) and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        for stream in streams:
            self.close(stream)
        self.models.close()
        self._measurer.shutdown(wait=False, cancel_futures=True)
        await asyncio.get_running_loop().run_in_executor(None, self.workers.close)

    def _make(self, preset: Preset, quality: str) -> Repairer:
        return self.config.make_repairer(preset, quality=quality, device=self.config.device, jobs=1)


def stream_status(stream: Stream) -> dict[str, Any]:
    """A stream's state, for JSON."""
    form, latency, counters = stream.format, stream.latency, stream.counters
    return {
        "stream": stream.number,
        "name": stream.name,
        "rate_hz": form.sample_rate,
        "channels": form.channels,
        "mix_channels": form.mix_channels,
        "max_block": form.max_block,
        "preset": stream.selection.name,
        "now": stream.selection.preset.name,
        "wet": stream.wet,
        "bypass": stream.bypass,
        "quality": stream.selection.quality,
        "role": stream.role or UNKNOWN,
        "latency": {
            "total": latency.total,
            "window": latency.window,
            "lookahead": latency.lookahead,
            "chunk": latency.chunk,
            "adaptation": latency.adaptation,
        },
        "blocks": counters.blocks,
        "late": counters.late,
        "lost": counters.lost,
        "queued": stream.queued,
        "load": round(counters.load, 4),
        "trouble": stream.trouble,
        "side_chain": stream.mix_text,
    }


def preset_titles() -> Iterable[tuple[str, str]]:
    """Name and title of all presets that can be chosen."""
    yield "auto", "Chosen by the detectors"
    for name, path in find_presets().items():
        yield name, load_preset(path).title

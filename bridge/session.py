"""One stream of the bridge: blocks come in on the event loop, a worker thread makes their change, answers go out."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..engine.channels import pair_count
from ..engine.detect.choice import LiveChoice
from ..engine.errors import StemProverError
from ..engine.fifo import Fifo
from ..engine.live import ChangeStream
from ..engine.resample import check_rate
from ..engine.silence import SilenceGate
from ..engine.stream import MODEL_RATE, DeltaStream
from .auto import AUTO, preset_for_weights
from .models import Models, load_of
from .output import Output, reserve_samples
from .presets import Preset, blend_presets, load_preset
from .protocol import MAX_BLOCK, MAX_CHANNELS, Code, Flag, ProtocolError, Status

_LOG = logging.getLogger("stemprover.bridge")
CHUNK_FRAMES = 4
BACKLOG_S = 1.0  # live sound that may wait for the model before it is given up
OFFLINE_S = 2.0  # sound that may wait for its answer before no more is read
MOST_BACKLOG_S = 6.0  # sound that is kept for the model; of what comes beyond it only the length counts
LOUDEST = 1e4
FLUSH_FRAMES = 1024  # of the blocks that a flush is answered with: fit for a datagram
_OFFLINE, _DISCONTINUITY, _LAST = int(Flag.OFFLINE), int(Flag.DISCONTINUITY), int(Flag.LAST)
_FLUSHED, _LOST = -1, -2  # sequence numbers of blocks that no client has sent
MOST_WAITING = 4096  # blocks
DEADLINE = 0.5  # of a live block's own duration, how long its answer may wait


@dataclass(frozen=True)
class Format:
    """Of a stream's sound. Raises OptionError, ProtocolError for what cannot be."""

    sample_rate: int
    max_block: int
    channels: int
    mix_channels: int

    def __post_init__(self) -> None:
        check_rate(self.sample_rate)
        if not 1 <= self.channels <= MAX_CHANNELS:
            raise ProtocolError(Code.ARGUMENTS, f"channels={self.channels}: give 1 to {MAX_CHANNELS}")
        if self.mix_channels not in (0, 1, 2, self.channels):
            raise ProtocolError(
                Code.ARGUMENTS, f"mixture channels={self.mix_channels}: give 0, 1, 2 or {self.channels} as the stem has"
            )
        if not 1 <= self.max_block <= MAX_BLOCK:
            raise ProtocolError(Code.ARGUMENTS, f"maximum block of {self.max_block} frames: give 1 to {MAX_BLOCK}")

    def mix_for_stem(self, mix: np.ndarray) -> np.ndarray:
        """Mixture channels (M, n) as the stem has them (C, n)."""
        if len(mix) == self.channels:
            return mix
        return np.repeat(mix.mean(axis=0, keepdims=True, dtype=np.float32), self.channels, axis=0)


@dataclass(frozen=True)
class Latency:
    """In samples at the client's rate. adaptation: both resamplers, and the time that the model has for a chunk."""

    total: int
    window: int
    lookahead: int
    chunk: int
    adaptation: int

    @classmethod
    def of(cls, changes: ChangeStream, window: int, lookahead: int) -> Latency:
        """window, lookahead in samples of the model's rate."""
        rate = changes.sample_rate
        slack = -(-changes.chunk_samples * rate // MODEL_RATE)
        total = changes.latency_samples + slack + reserve_samples(rate)
        parts = (window, lookahead, changes.chunk_samples)
        window, lookahead, chunk = (part * rate // MODEL_RATE for part in parts)
        return cls(total, window, lookahead, chunk, total - window - lookahead - chunk)


@dataclass(frozen=True)
class Answer:
    """A block that goes back."""

    sequence: int
    position: int
    flags: int
    status: Status
    seconds: float
    sound: np.ndarray


@dataclass
class Counters:
    """Since the stream was opened. load: processor time of the last seconds of sound, as a share of it."""

    blocks: int = 0
    late: int = 0
    lost: int = 0
    load: float = 0.0


@dataclass
class _Waiting:
    sequence: int
    position: int
    frames: int
    flags: int
    arrived: float
    deadline: float | None


@dataclass
class _Piece:
    """Sound for the model, or as many samples of which there is none."""

    samples: int
    live: bool
    stem: np.ndarray | None = None
    mix: np.ndarray | None = None
    after_end: bool = False

    def cut(self, samples: int) -> _Piece:
        """Its first samples, which it loses."""
        first = _Piece(
            samples,
            self.live,
            None if self.stem is None else self.stem[:, :samples],
            None if self.mix is None else self.mix[:, :samples],
            self.after_end,
        )
        self.samples -= samples
        self.stem = None if self.stem is None else self.stem[:, samples:]
        self.mix = None if self.mix is None else self.mix[:, samples:]
        return first


@dataclass
class _Job:
    """Something for the worker to do between two chunks."""

    act: Callable[[ChangeStream], Any]
    then: Callable[[Any], None] = lambda _: None


class _SupersededError(ProtocolError):
    """A choice that another one has taken the place of."""


class Scope:
    """The last sound that came in and went out, for the monitor: peaks since they were last asked for, and spectra."""

    SIZE = 2048

    def __init__(self) -> None:
        self._recent = {"dry": np.zeros(self.SIZE, np.float32), "wet": np.zeros(self.SIZE, np.float32)}
        self._peaks = {"dry": 0.0, "wet": 0.0}

    def add(self, side: str, sound: np.ndarray) -> None:
        """Sound (C, n) of a side, dry or wet."""
        self._peaks[side] = max(self._peaks[side], float(np.abs(sound).max(initial=0.0)))
        self._recent[side] = np.concatenate([self._recent[side], sound.mean(axis=0, dtype=np.float32)])[-self.SIZE :]

    def take(self, bands: int, sample_rate: int) -> dict[str, dict[str, Any]]:
        """For each side the peak and the levels of `bands` bands from 40 Hz up, in dB of full scale."""
        edges = np.geomspace(40.0, sample_rate / 2, bands + 1) / sample_rate * self.SIZE
        starts = np.minimum(edges[:-1].astype(int), self.SIZE // 2)
        found: dict[str, dict[str, Any]] = {}
        for side, recent in self._recent.items():
            power = np.abs(np.fft.rfft(np.nan_to_num(recent) * np.hanning(self.SIZE))) ** 2
            levels = 10 * np.log10(np.maximum.reduceat(power, starts) / (self.SIZE / 4) ** 2 + 1e-10)
            peak = 20 * np.log10(min(self._peaks[side], 1e5) + 1e-5)
            found[side] = {"peak_db": round(float(peak), 1), "bands_db": np.round(levels, 1).tolist()}
            self._peaks[side] = 0.0
        return found


class Stream:
    """All methods are for the event loop's thread but `turn`, which is the worker's. `answer` is called with each block
    that goes back, in order."""

    def __init__(
        self,
        number: int,
        name: str,
        form: Format,
        window: tuple[int, int, int],
        preset: Preset,
        models: Models,
        wake: Callable[[Stream], None],
        answer: Callable[[Answer], None],
    ) -> None:
        """window: hop, STFT window and look-ahead of the model, in samples of its rate. preset: to begin with."""
        self.number, self.name, self.format = number, name, form
        self._loop = asyncio.get_running_loop()
        self._models, self._wake, self._answer = models, wake, answer
        hop, stft, lookahead = window
        delay = lookahead + stft - hop
        self._changes = ChangeStream(
            hop, delay, form.sample_rate, form.channels, form.mix_channels > 0, CHUNK_FRAMES
        )
        self.latency = Latency.of(self._changes, stft - hop, lookahead)
        # At the model's rate a turn is a chunk. At others the two drift apart, so that a chunk may have to wait for the
        # next turn: a short one.
        chunk = self._changes.chunk_samples
        self._turn_samples = chunk if form.sample_rate == MODEL_RATE else chunk * form.sample_rate // MODEL_RATE // 4
        self.wet, self.bypass, self.quality = 1.0, False, "standard"
        self.preset, self.selected = preset, preset.name
        self.counters, self.scope = Counters(), Scope()
        self.watched = self.closed = False
        self.opened = time.monotonic()
        self.trouble = ""  # why there is no model
        self._begin(self._changes)
        self._output = self._new_output()
        self._lock = threading.Lock()  # for what both threads write
        self._inbox: deque[_Piece] = deque()
        self._inbox_samples = 0
        self._jobs: deque[_Job] = deque()
        self._epoch = 0
        self._choice: LiveChoice | None = None
        self._choice_told = False
        self._held = True  # offline sound waits for the first model; live sound goes on without
        self._waiting: deque[_Waiting] = deque()
        self._timer: asyncio.TimerHandle | None = None
        self._sequence = -1
        self._position: int | None = None  # of the next sample that should come in
        self._pushed = 0  # samples since the first
        self._flush_done: asyncio.Future[None] | None = None
        self._ending: asyncio.Task[None] | None = None
        self._choosing: asyncio.Task[None] | None = None
        self._chosen = 0
        self._use(self.preset, self._first_loaded)

    @property
    def position(self) -> int:
        """Of the next sample that goes back."""
        return (self._position or 0) - sum(w.frames for w in self._waiting)

    @property
    def queued(self) -> int:
        """Blocks that wait for their answer."""
        return len(self._waiting)

    @property
    def crowded(self) -> bool:
        """Whether no more should be read for now."""
        return sum(w.frames for w in self._waiting) > OFFLINE_S * self.format.sample_rate

    def _first_loaded(self, found: int | BaseException) -> None:
        if isinstance(found, BaseException) and not isinstance(found, _SupersededError):
            self.trouble = str(found)
            _LOG.error("event=model-error stream=%d text=%s", self.number, found)

    def load(self, cost_per_step: float) -> float:
        """Processors that it keeps busy."""
        return load_of(pair_count(self.format.channels), self.quality, cost_per_step)

    def set_wet(self, share: float) -> int:
        """The share of the preset's change; returns the position from which it holds."""
        if not 0.0 <= share <= 1.0:
            raise ProtocolError(Code.ARGUMENTS, f"wet={share:g}: give 0 (untouched) to 1 (as the preset says)")
        self.wet = float(share)
        self._output.set(wet=self.wet, at_once=self._position is None)
        return self.position

    def set_bypass(self, on: bool) -> int:
        """Latency-matched bypass; returns the position from which it holds."""
        self.bypass = on
        self._output.set(bypass=on, at_once=self._position is None)
        return self.position

    async def select(self, name: str) -> int:
        """A preset by its name, or auto; returns the position from which it holds. Raises PresetError."""
        if "/" in name or "\\" in name or name.endswith(".toml"):
            raise ProtocolError(Code.PRESET, f"{name!r} is no preset's name; /presets lists them")
        preset = await self._read(load_preset, "general" if name == AUTO else name)
        position = await self._select(preset, name)
        with self._lock:
            form = self.format
            self._choice_told = False
            self._choice = LiveChoice(form.sample_rate, form.channels, form.mix_channels > 0) if name == AUTO else None
        return position

    async def blend(self, weights: dict[str, float]) -> int:
        """Several presets; as `select`."""
        preset = await self._read(blend_presets, weights)
        with self._lock:
            self._choice = None
        return await self._select(preset, preset.name)

    async def set_quality(self, quality: str) -> int:
        """Steps of the sampler; as `select`."""
        load_of(1, quality, 1.0)
        self.quality = quality
        return await self._select(self.preset, self.selected)

    async def _read(self, act: Callable[..., Preset], *args: Any) -> Preset:
        """Presets are files: the loop does not wait for the disk."""
        return await self._loop.run_in_executor(None, act, *args)

    async def _select(self, preset: Preset, name: str) -> int:
        if preset.before or preset.after:
            raise ProtocolError(
                Code.PRESET, f"{preset.name} has plugins around the repair, which streams have not; render files"
            )
        done: asyncio.Future[int] = self._loop.create_future()
        self._use(preset, lambda found: _settle(done, found))
        position = await done
        self.preset, self.selected = preset, name
        return position

    def _use(self, preset: Preset, then: Callable[[int | BaseException], None]) -> None:
        """Load, then let the worker go over to it; `then` gets the position from which it holds, or what went wrong."""
        self._chosen += 1
        ticket = self._chosen
        future = self._models.get(preset, self.quality)

        def loaded() -> None:
            if self.closed or ticket != self._chosen:
                then(_SupersededError(Code.PRESET, f"{preset.name}: another choice was made before it was loaded"))
                return
            if (error := future.exception()) is not None:
                self._held = False
                self._wake(self)
                then(error)
                return
            self._let_in(future.result(), preset.wet, then)

        if future.done():
            loaded()
        else:
            future.add_done_callback(lambda _: self._call(loaded))

    def _let_in(self, delta: DeltaStream, wet: float, then: Callable[[int | BaseException], None]) -> None:
        model = delta if wet > 0.0 else None

        def act(changes: ChangeStream) -> int:
            if changes.heard_samples == 0:
                changes.begin(model, wet)
                return 0
            return changes.swap(model, wet)

        def acted(found: int | BaseException) -> None:
            self._held = False
            self._wake(self)
            if isinstance(found, BaseException):
                then(found)
                return
            start = (self._position or 0) - self._pushed
            then(max(self.position, start + found + self.latency.total))

        self._do(act, acted)

    def _do(self, act: Callable[[ChangeStream], Any], then: Callable[[Any], None]) -> None:
        with self._lock:
            self._jobs.append(_Job(act, then))
        self._wake(self)

    def _call(self, act: Callable[..., None], *args: Any) -> None:
        """From another thread, on the loop's; nothing where that has ended."""
        try:
            self._loop.call_soon_threadsafe(act, *args)
        except RuntimeError:
            self.closed = True

    # sound

    def push(self, sequence: int, position: int, flags: int, sound: np.ndarray) -> None:
        """The next block (C + M, n); it is answered through `answer`. Raises ProtocolError for one that does not fit;
        the stream is unharmed by it."""
        form, frames = self.format, sound.shape[1]
        if frames > form.max_block:
            raise ProtocolError(
                Code.TOO_LARGE, f"a block of {frames} frames; this stream takes up to {form.max_block} (see /hello)"
            )
        if len(self._waiting) >= MOST_WAITING:
            raise ProtocolError(Code.QUEUE, f"{len(self._waiting)} blocks wait; wait for their answers")
        if self._flush_done is not None:
            raise ProtocolError(Code.ORDER, "the stream is being flushed; wait for its /ack")
        self._follow(sequence, position, flags)
        live = not flags & _OFFLINE
        if live and self._held:
            self._held = False
        deadline = self._loop.time() + DEADLINE * frames / form.sample_rate if live else None
        self._waiting.append(_Waiting(sequence, position, frames, flags, time.perf_counter(), deadline))
        self._take(sound, live=live)
        self.counters.blocks += 1
        if self.watched:
            self.scope.add("dry", sound[: form.channels])
        self._give()
        if flags & _LAST:
            self._ending = self._loop.create_task(self.flush())

    async def flush(self) -> None:
        """Sends the last `latency` samples as blocks of sequence -1; the stream is as new afterwards."""
        if self._flush_done is not None:
            raise ProtocolError(Code.ORDER, "the stream is being flushed; wait for its /ack")
        rest, position = self.latency.total, self._position or 0
        self._flush_done = self._loop.create_future()
        while rest:
            count = min(rest, FLUSH_FRAMES)
            flags = _OFFLINE | (_LAST if count == rest else 0)
            self._waiting.append(_Waiting(_FLUSHED, position, count, flags, time.perf_counter(), None))
            rest, position = rest - count, position + count
        self._output.end()
        self._feed(_Piece(self.latency.total, False, after_end=True))
        if not self._held:
            self._wake(self)
        self._give()
        try:
            await self._flush_done
        finally:
            self._flush_done = None
        await self.reset()

    async def reset(self) -> None:
        """Back to the state before the first block; settings stay."""
        done: asyncio.Future[None] = self._loop.create_future()
        with self._lock:
            self._epoch += 1
            self._inbox.clear()
            self._inbox_samples = 0
        if self._flush_done is not None:
            _settle(self._flush_done, None)
        self._waiting.clear()
        self._position, self._sequence, self._pushed = None, -1, 0
        self._output = self._new_output()
        self._do(self._begin, lambda found: _settle(done, found))
        await done

    def close(self) -> None:
        """Ends it: nothing is answered any more."""
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
        for task in (self._ending, self._choosing):
            if task is not None:
                task.cancel()
        with self._lock:
            self._inbox.clear()
            self._jobs.clear()

    def _new_output(self) -> Output:
        form = self.format
        output = Output(form.sample_rate, form.channels, self.latency.total)
        output.set(wet=self.wet, bypass=self.bypass, at_once=True)
        return output

    def _follow(self, sequence: int, position: int, flags: int) -> None:
        """Keeps step with the client: what was lost on the way is silence here, so that the rest stays in its place."""
        if self._position is not None and not flags & _DISCONTINUITY:
            gap = position - self._position
            if sequence <= self._sequence or gap < 0:
                raise ProtocolError(
                    Code.ORDER, f"block {sequence} at {position} comes after {self._sequence}, up to {self._position}"
                )
            if gap > self.format.sample_rate:
                raise ProtocolError(
                    Code.ORDER, f"block {sequence} at {position} leaves out {gap} samples; flag it as a discontinuity"
                )
            if gap:
                self.counters.lost += max(1, sequence - self._sequence - 1)
                channels = self.format.channels + self.format.mix_channels
                at_once = None if flags & _OFFLINE else 0.0
                self._waiting.append(_Waiting(_LOST, self._position, gap, flags, time.perf_counter(), at_once))
                self._take(np.zeros((channels, gap), np.float32), live=True)
        self._sequence, self._position = sequence, position

    def _take(self, sound: np.ndarray, *, live: bool) -> None:
        """Into the output, and to the model."""
        form, count = self.format, sound.shape[1]
        stem, mix = sound[: form.channels], sound[form.channels :]
        self._output.push(stem)
        self._pushed += count
        self._position = (self._position or 0) + count
        if self._inbox_samples > MOST_BACKLOG_S * form.sample_rate:
            self._feed(_Piece(count, live))  # no time for it: only its length counts
            return
        self._feed(_Piece(count, live, stem, mix if len(mix) else None))

    def _feed(self, piece: _Piece) -> None:
        with self._lock:
            last = self._inbox[-1] if self._inbox else None
            if last is not None and last.stem is None and piece.stem is None and not piece.after_end:
                last.samples += piece.samples
            else:
                self._inbox.append(piece)
            self._inbox_samples += piece.samples
            enough = self._inbox_samples >= self._turn_samples
        if enough and not self._held:
            self._wake(self)

    def _give(self) -> None:
        """Answers what can be answered."""
        now = self._loop.time()
        while self._waiting and not self.closed:
            head = self._waiting[0]
            ready = self._output.mute or not self._output.missing(head.frames)
            if not ready and (head.deadline is None or head.deadline > now):
                break
            self._waiting.popleft()
            sound, status = self._output.pull(head.frames)
            if head.sequence == _LOST:
                continue
            self.counters.late += status == Status.LATE
            if self.watched:
                self.scope.add("wet", sound)
            self._answer(
                Answer(head.sequence, head.position, head.flags, status, time.perf_counter() - head.arrived, sound)
            )
            if head.sequence == _FLUSHED and head.flags & _LAST and self._flush_done is not None:
                _settle(self._flush_done, None)
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting and not self.closed and (deadline := self._waiting[0].deadline) is not None:
            self._timer = self._loop.call_at(deadline, self._give)

    def _arrived(self, epoch: int, change: np.ndarray, speaks: bool, share: float) -> None:
        self.counters.load += 0.02 * (share - self.counters.load)
        if epoch == self._epoch and not self.closed:
            self._output.push_change(change, speaks)
            self._give()

    def _choose(self, weights: dict[str, float]) -> None:
        """What a live choice asks for."""
        self._choosing = self._loop.create_task(self._go_over(weights))

    async def _go_over(self, weights: dict[str, float]) -> None:
        preset = await self._read(preset_for_weights, weights)
        if self.selected != AUTO or self.closed:
            return

        def then(found: int | BaseException) -> None:
            if not isinstance(found, BaseException):
                self.preset = preset

        self._use(preset, then)

    # the worker's thread

    def turn(self) -> bool:
        """One chunk's worth of work."""
        with self._lock:
            jobs = list(self._jobs)
            self._jobs.clear()
            epoch = self._epoch
        for job in jobs:
            try:
                found = job.act(self._changes)
            except StemProverError as error:
                found = error
            self._call(job.then, found)
        if self._held:
            return False
        with self._lock:
            waiting = self._inbox_samples
            pieces = self._pop(self._turn_samples) if epoch == self._epoch else []
        if not pieces:
            return False
        begun, count = time.perf_counter(), sum(piece.samples for piece in pieces)
        given_up = waiting > BACKLOG_S * self.format.sample_rate and all(piece.live for piece in pieces)
        parts = [self._changed(piece, given_up) for piece in pieces]
        share = (time.perf_counter() - begun) / (count / self.format.sample_rate)
        self._call(self._arrived, epoch, np.concatenate(parts, axis=1), self._changes.speaks, share)
        return waiting - count >= self._turn_samples

    def _changed(self, piece: _Piece, given_up: bool) -> np.ndarray:
        """The change (C, n) that is ready after a piece, let through where there is sound."""
        form = self.format
        if piece.stem is None:
            stem = np.zeros((form.channels, piece.samples), np.float32)
            song = stem if form.mix_channels else None
            given_up = piece.live
        else:
            stem = _finite(piece.stem)
            song = None if piece.mix is None else form.mix_for_stem(_finite(piece.mix))
            if self._choice is not None and not given_up:
                self._listen(self._choice, stem, song)
        if piece.after_end:
            self._gains.push(self._gate.process(stem[:, :0], last=True))
        else:
            self._gains.push(self._gate.process(stem))
            self._sounded += stem.shape[1]
        change = (self._changes.miss if given_up else self._changes.process)(stem, song)
        change = change[:, : self._sounded - self._made]
        if count := change.shape[1]:
            self._made += count
            change = change * self._gains.pop(count)
        return change

    def _begin(self, changes: ChangeStream) -> None:
        """The worker's part, as new."""
        changes.reset()
        self._gate = SilenceGate(self.format.sample_rate, self.format.channels)
        self._gains = Fifo()
        self._sounded = self._made = 0  # samples of sound that came, and of change that was made

    def _listen(self, choice: LiveChoice, stem: np.ndarray, song: np.ndarray | None) -> None:
        before = dict(choice.weights)
        after = dict(choice.process(stem, song))
        if choice.made and (after != before or not self._choice_told):
            self._choice_told = True
            self._call(self._choose, after)

    def _pop(self, samples: int) -> list[_Piece]:
        """Pieces of at most `samples` samples; long ones are cut."""
        taken: list[_Piece] = []
        while samples > 0 and self._inbox:
            piece = self._inbox[0]
            if piece.samples <= samples:
                taken.append(self._inbox.popleft())
            else:
                taken.append(piece.cut(samples))
            samples -= taken[-1].samples
        self._inbox_samples -= sum(piece.samples for piece in taken)
        return taken


def _finite(sound: np.ndarray) -> np.ndarray:
    """What the model hears: samples that are no numbers, or absurdly large, would stay in its memory."""
    return np.nan_to_num(np.clip(sound, -LOUDEST, LOUDEST), nan=0.0)


def _settle(future: asyncio.Future[Any], found: Any) -> None:
    if future.done():
        return
    if isinstance(found, BaseException):
        future.set_exception(found)
    else:
        future.set_result(found)

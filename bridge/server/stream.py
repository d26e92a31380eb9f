"""One stream of the bridge, on the event loop: blocks come in, answers go out; a worker makes their correction."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import numpy as np

from ...engine.detect.choice import Choice, LiveChoice
from ...engine.dsp.channels import pair_count
from ...engine.latency import BridgeLatency, ModelTiming, reserve_samples
from ...engine.live import LiveCorrectionStream
from ...engine.mix.guard import MixReport
from ...engine.mixer import Mixer
from ...engine.preset import Preset
from ...engine.stem_names import check_role
from ...engine.stream import CorrectionStream
from ..osc import Code, Flag, ProtocolError, Status, StreamFormat
from .meters import Scope
from .model_cache import ModelCache, load_of
from .selection import Done, Selection, SupersededError, settle
from .worker import InputBlock, StreamWorker

_LOG = logging.getLogger("stemprover.bridge")
CHUNK_FRAMES = 4
OFFLINE_S = 2.0  # audio that may wait for its answer before reading stops
FLUSH_FRAMES = 1024  # of the blocks that answer a flush: they fit into a datagram
_OFFLINE, _DISCONTINUITY, _LAST = int(Flag.OFFLINE), int(Flag.DISCONTINUITY), int(Flag.LAST)
_FLUSHED, _LOST = -1, -2  # sequence numbers of blocks that no client has sent
MOST_WAITING = 4096  # blocks
DEADLINE_FRACTION = 0.5  # of a live block's duration, that its answer may wait


@dataclass(frozen=True)
class Answer:
    """A block that goes back: audio (C, n)."""

    sequence: int
    position: int
    flags: int
    status: Status
    seconds: float
    audio: np.ndarray


@dataclass
class Counters:
    """Since the stream was opened. load: CPU time of the last seconds of audio, as a fraction of real time."""

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


class Stream:
    """All methods are for the event loop's thread but `run_chunk`, which is the worker's. answer: called with each
    block that goes back, in order."""

    def __init__(
        self,
        number: int,
        name: str,
        form: StreamFormat,
        timing: ModelTiming,
        preset: Preset,
        models: ModelCache,
        wake: Callable[[Stream], None],
        answer: Callable[[Answer], None],
    ) -> None:
        """timing: of all models. preset: to begin with."""
        self.number, self.name, self.format = number, name, form
        self._loop = asyncio.get_running_loop()
        self._wake, self._answer = wake, answer
        corrections = LiveCorrectionStream(timing, form.sample_rate, form.channels, form.has_mix, CHUNK_FRAMES)
        self.latency = BridgeLatency.of(timing, form.sample_rate, CHUNK_FRAMES)
        self._worker = StreamWorker(
            form, corrections, self.call, self._respond, self._follow_choice, self._failed, self._mix_changed
        )
        self.mix_changed: Callable[[str, int], None] = lambda text, state: None
        self.checks_mix = False
        self.wet, self.bypass = 1.0, False
        self.role: str | None = None
        self.counters, self.scope = Counters(), Scope()
        self.watched = self.closed = False
        self.opened = time.monotonic()
        self.trouble = ""  # why there is no model
        self._mixer = self._new_mixer()
        self._waiting: deque[_Waiting] = deque()
        self._waiting_frames = 0
        self._timer: asyncio.TimerHandle | None = None
        self._sequence = -1
        self._position: int | None = None  # of the next sample expected
        self._pushed = 0  # samples since the first
        self._flush_done: asyncio.Future[Any] | None = None
        self._futures: set[asyncio.Future[Any]] = set()  # that somebody waits for
        self._ending: asyncio.Task[None] | None = None
        self._choosing: asyncio.Task[None] | None = None
        self.selection = Selection(self, models, preset)
        self.selection.begin(self._first_model_loaded)

    @property
    def position(self) -> int:
        """Of the next sample that goes back."""
        return (self._position or 0) - self._waiting_frames

    @property
    def queued(self) -> int:
        """Blocks that wait for their answer."""
        return len(self._waiting)

    @property
    def crowded(self) -> bool:
        """Whether no more should be read for now."""
        return self._waiting_frames > OFFLINE_S * self.format.sample_rate or len(self._waiting) > MOST_WAITING // 2

    def _first_model_loaded(self, found: int | BaseException) -> None:
        if isinstance(found, BaseException) and not isinstance(found, SupersededError) and not self.closed:
            self.trouble = str(found)
            _LOG.error("event=model-error stream=%d text=%s", self.number, found)

    def load(self, cost_per_step: float) -> float:
        """CPU cores the stream occupies."""
        return load_of(pair_count(self.format.channels), self.selection.quality, cost_per_step)

    def set_wet(self, amount: float) -> int:
        """The amount of the preset's correction; returns the position at which it takes effect."""
        if not 0.0 <= amount <= 1.0:
            raise ProtocolError(Code.ARGUMENTS, f"wet={amount:g}: use 0 (untouched) to 1 (as the preset says)")
        self.wet = float(amount)
        self._mixer.set(wet=self.wet, at_once=self._position is None)
        return self.position

    def set_bypass(self, on: bool) -> int:
        """Latency-matched bypass; returns the position at which it takes effect."""
        self.bypass = on
        self._mixer.set(bypass=on, at_once=self._position is None)
        return self.position

    def check_mix(self, on: bool) -> int:
        """Have the mix proved before it is used, or use it as it is; returns the position at which that begins."""
        self.checks_mix = on
        self._worker.check_mix(on)
        return self.position

    def set_role(self, role: str | None) -> int:
        """What the stem is, None if it is not known; returns the position at which that takes effect. Raises
        OptionError for another role."""
        self.role = check_role(role)
        self._worker.set_role(role)
        return self.position

    @property
    def mix_text(self) -> str:
        """What is known of the mix, for users; empty without one."""
        return str(self._worker.mix_report) if self.format.has_mix and self.checks_mix else ""

    def _mix_changed(self, report: MixReport) -> None:
        _LOG.info("event=mix stream=%d state=%s", self.number, report.state.name.lower())
        self.mix_changed(str(report), int(report.state))

    def future(self) -> asyncio.Future[Any]:
        """Something to wait for, which ends with the stream at the latest."""
        future = self._loop.create_future()
        if self.closed:
            future.set_exception(self.gone())
        else:
            self._futures.add(future)
            future.add_done_callback(self._futures.discard)
        return future

    def gone(self) -> ProtocolError:
        """The error for a stream that was closed meanwhile."""
        return ProtocolError(Code.NO_STREAM, f"stream {self.number} was closed meanwhile")

    def use_model(self, model: CorrectionStream, wet: float, then: Done) -> None:
        """Have the worker go over to a model; `then` gets the position at which it takes effect, or an error."""
        wanted = model if wet > 0.0 else None

        def act(corrections: LiveCorrectionStream) -> int:
            if corrections.processed_samples == 0:
                corrections.begin(wanted, wet)
                return 0
            return corrections.swap(wanted, wet)

        def acted(found: int | BaseException) -> None:
            self.stop_waiting_for_model()
            if isinstance(found, BaseException):
                then(found)
                return
            start = (self._position or 0) - self._pushed
            then(max(self.position, start + found + self.latency.total))

        self._worker.call_before_next_chunk(act, acted)
        self._wake(self)

    def stop_waiting_for_model(self) -> None:
        """Offline audio has waited for the first model; live audio goes on without."""
        self._worker.held = False
        self._wake(self)

    def call(self, act: Callable[..., None], *args: Any) -> None:
        """From another thread: call on the loop's, unless the loop has ended."""
        try:
            self._loop.call_soon_threadsafe(act, *args)
        except RuntimeError:
            self.closed = True

    def follow(self, choice: LiveChoice | None) -> None:
        """Have this choice analyse what comes; None for no choice."""
        self._worker.follow(choice)

    # audio

    def push(self, sequence: int, position: int, flags: int, audio: np.ndarray) -> None:
        """The next block (C + M, n), which must not change afterwards; it is answered through `answer`. Raises
        ProtocolError for one that does not fit; the stream is unharmed by it."""
        form, frames = self.format, audio.shape[1]
        if frames > form.max_block:
            raise ProtocolError(
                Code.TOO_LARGE, f"a block of {frames} frames; this stream takes up to {form.max_block} (see /hello)"
            )
        if len(self._waiting) >= MOST_WAITING:
            raise ProtocolError(Code.QUEUE, f"{len(self._waiting)} blocks are waiting; wait for their answers")
        if self._flush_done is not None:
            raise ProtocolError(Code.ORDER, "the stream is being flushed; wait for its /ack")
        self._keep_position(sequence, position, flags)
        live = not flags & _OFFLINE
        if live:
            self._worker.held = False
        deadline = self._loop.time() + DEADLINE_FRACTION * frames / form.sample_rate if live else None
        self._wait(_Waiting(sequence, position, frames, flags, time.perf_counter(), deadline))
        self._take(audio, live=live)
        self.counters.blocks += 1
        if self.watched:
            self.scope.add("dry", audio[: form.channels])
        self._respond()
        if self._worker.due:  # after the answer: a worker must not take this thread's time before it
            self._wake(self)
        if flags & _LAST:
            self._ending = self._loop.create_task(self.flush())

    def run_chunk(self) -> bool:
        """For the worker: one chunk's worth of work; True if there is more."""
        return self._worker.run_chunk()

    @property
    def urgent(self) -> bool:
        """Whether somebody listens in real time."""
        return self._worker.urgent

    def flush(self) -> Coroutine[Any, Any, None]:
        """Sends the last `latency` samples as blocks of sequence -1; the stream is as new afterwards. Begins at once;
        the coroutine waits for the end."""
        if self._flush_done is not None:
            raise ProtocolError(Code.ORDER, "the stream is being flushed; wait for its /ack")
        rest, position = self.latency.total, self._position or 0
        done = self._flush_done = self.future()
        while rest:
            count = min(rest, FLUSH_FRAMES)
            flags = _OFFLINE | (_LAST if count == rest else 0)
            self._wait(_Waiting(_FLUSHED, position, count, flags, time.perf_counter(), None))
            rest, position = rest - count, position + count
        self._mixer.end()
        self._worker.feed(InputBlock(self.latency.total, False, after_end=True))
        self._wake(self)
        self._respond()

        async def ended() -> None:
            try:
                await done
            finally:
                if self._flush_done is done:
                    self._flush_done = None
            await self.reset()

        return ended()

    def reset(self) -> Coroutine[Any, Any, None]:
        """Back to the state before the first block; settings stay. Begins at once, as `flush`."""
        done = self.future()
        if self._flush_done is not None:
            settle(self._flush_done, None)
            self._flush_done = None
        self._waiting.clear()
        self._waiting_frames = 0
        self._position, self._sequence, self._pushed = None, -1, 0
        self._mixer = self._new_mixer()
        self.trouble = ""
        self._worker.reset(lambda found: settle(done, found))
        self._wake(self)

        async def ended() -> None:
            await done

        return ended()

    def close(self) -> None:
        """Ends the stream: nothing is answered any more, and everything it uses is released."""
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
        for task in (self._ending, self._choosing):
            if task is not None:
                task.cancel()
        self._worker.close()
        self.selection.close()
        self._waiting.clear()
        self._waiting_frames = 0
        for future in list(self._futures):
            settle(future, self.gone())
        self._answer = lambda _: None
        self.mix_changed = lambda text, state: None

    def _new_mixer(self) -> Mixer:
        form = self.format
        reserve = reserve_samples(form.sample_rate)
        mixer = Mixer(form.channels, form.sample_rate, latency_samples=self.latency.total, reserve_samples=reserve)
        mixer.set(wet=self.wet, bypass=self.bypass, at_once=True)
        return mixer

    def _keep_position(self, sequence: int, position: int, flags: int) -> None:
        """Follows the client's positions: lost blocks become silence here, so that everything else keeps its place."""
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
                self._wait(_Waiting(_LOST, self._position, gap, flags, time.perf_counter(), at_once))
                self._take(np.broadcast_to(np.float32(0.0), (channels, gap)), live=not flags & _OFFLINE)
        self._sequence, self._position = sequence, position

    def _take(self, audio: np.ndarray, *, live: bool) -> None:
        """To the mixer and to the worker."""
        form, count = self.format, audio.shape[1]
        stem, mix = audio[: form.channels], audio[form.channels :]
        self._mixer.push(stem)
        self._pushed += count
        self._position = (self._position or 0) + count
        if self._worker.full:
            self._worker.feed(InputBlock(count, live))  # no time for it: only its length counts
        else:
            self._worker.feed(InputBlock(count, live, stem, mix if len(mix) else None))

    def _wait(self, block: _Waiting) -> None:
        self._waiting.append(block)
        self._waiting_frames += block.frames

    def _respond(self) -> None:
        """Answers what can be answered; a chunk of the worker calls again for the rest, or the first block's
        deadline."""
        self._collect()
        self._answer_ready()
        if self._waiting:
            self._worker.eager = True
            if self._collect():  # a chunk may have ended just before it could see that
                self._answer_ready()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting and not self.closed and (deadline := self._waiting[0].deadline) is not None:
            self._timer = self._loop.call_at(deadline, self._respond)

    def _collect(self) -> bool:
        """Moves the worker's results to the mixer; whether there were any."""
        found = False
        while (result := self._worker.take()) is not None:
            self.counters.load += 0.02 * (result.load - self.counters.load)
            self._mixer.push_correction(result.correction, repaired=result.repaired)
            found = True
        return found

    def _answer_ready(self) -> None:
        now = self._loop.time()
        while self._waiting and not self.closed:
            head = self._waiting[0]
            # Offline blocks wait for their repair even if it is not audible: else the model would fall behind.
            ready = not self._mixer.missing(head.frames) or (self._mixer.mute and head.deadline is not None)
            if not ready and (head.deadline is None or head.deadline > now):
                break
            self._waiting.popleft()
            self._waiting_frames -= head.frames
            if head.sequence == _LOST:
                self._mixer.skip(head.frames)
                continue
            mixed = self._mixer.pull(head.frames)
            status = Status.LATE if mixed.late else Status.WET if mixed.repaired else Status.WARMING_UP
            self.counters.late += mixed.late
            if self.watched:
                self.scope.add("wet", mixed.audio)
            seconds = time.perf_counter() - head.arrived
            self._answer(Answer(head.sequence, head.position, head.flags, status, seconds, mixed.audio))
            if head.sequence == _FLUSHED and head.flags & _LAST and self._flush_done is not None:
                settle(self._flush_done, None)

    def _failed(self, error: Exception) -> None:
        """The model raised an exception: its audio stays dry until a reset."""
        self.trouble = f"the model failed ({type(error).__name__}); reset the stream, or see the bridge's log"

    def _follow_choice(self, choice: Choice) -> None:
        """Carries out what a live choice asks for."""
        self._choosing = self._loop.create_task(self.selection.follow(choice))

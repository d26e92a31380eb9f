"""One stream of the bridge, on the event loop: blocks come in, answers go out; a worker makes their change."""

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
from ...engine.latency import Latency
from ...engine.live import ChangeStream
from ...engine.mixer import Output
from ...engine.preset import Preset
from ...engine.stream import DeltaStream
from ..osc import Code, Flag, ProtocolError, Status
from .audio_format import Format
from .meters import Scope
from .model_cache import Models, load_of
from .selection import Selection, SupersededError, Told, settle
from .worker import Piece, Turns

_LOG = logging.getLogger("stemprover.bridge")
CHUNK_FRAMES = 4
OFFLINE_S = 2.0  # sound that may wait for its answer before no more is read
FLUSH_FRAMES = 1024  # of the blocks that a flush is answered with: fit for a datagram
_OFFLINE, _DISCONTINUITY, _LAST = int(Flag.OFFLINE), int(Flag.DISCONTINUITY), int(Flag.LAST)
_FLUSHED, _LOST = -1, -2  # sequence numbers of blocks that no client has sent
MOST_WAITING = 4096  # blocks
DEADLINE = 0.5  # of a live block's own duration, how long its answer may wait


@dataclass
class _Waiting:
    sequence: int
    position: int
    frames: int
    flags: int
    arrived: float
    deadline: float | None


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
        self._wake, self._answer = wake, answer
        hop, stft, lookahead = window
        delay = lookahead + stft - hop
        changes = ChangeStream(hop, delay, form.sample_rate, form.channels, form.mix_channels > 0, CHUNK_FRAMES)
        self.latency = Latency.of(form.sample_rate, stft - hop, lookahead, changes.chunk_samples)
        self._turns = Turns(form, changes, self.call, self._give, self._choose, self._failed)
        self.wet, self.bypass = 1.0, False
        self.counters, self.scope = Counters(), Scope()
        self.watched = self.closed = False
        self.opened = time.monotonic()
        self.trouble = ""  # why there is no model
        self._output = self._new_output()
        self._waiting: deque[_Waiting] = deque()
        self._waiting_frames = 0
        self._timer: asyncio.TimerHandle | None = None
        self._sequence = -1
        self._position: int | None = None  # of the next sample that should come in
        self._pushed = 0  # samples since the first
        self._flush_done: asyncio.Future[Any] | None = None
        self._open: set[asyncio.Future[Any]] = set()  # what somebody waits for
        self._ending: asyncio.Task[None] | None = None
        self._choosing: asyncio.Task[None] | None = None
        self.selection = Selection(self, models, preset)
        self.selection.begin(self._first_loaded)

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

    def _first_loaded(self, found: int | BaseException) -> None:
        if isinstance(found, BaseException) and not isinstance(found, SupersededError) and not self.closed:
            self.trouble = str(found)
            _LOG.error("event=model-error stream=%d text=%s", self.number, found)

    def load(self, cost_per_step: float) -> float:
        """Processors that it keeps busy."""
        return load_of(pair_count(self.format.channels), self.selection.quality, cost_per_step)

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

    def future(self) -> asyncio.Future[Any]:
        """Something to wait for, which ends with the stream at the latest."""
        future = self._loop.create_future()
        if self.closed:
            future.set_exception(self.gone())
        else:
            self._open.add(future)
            future.add_done_callback(self._open.discard)
        return future

    def gone(self) -> ProtocolError:
        """That it was closed meanwhile."""
        return ProtocolError(Code.NO_STREAM, f"stream {self.number} was closed meanwhile")

    def go_over(self, model: DeltaStream, wet: float, then: Told) -> None:
        """Have the worker go over to a model; `then` gets the position from which it holds, or what went wrong."""
        wanted = model if wet > 0.0 else None

        def act(changes: ChangeStream) -> int:
            if changes.heard_samples == 0:
                changes.begin(wanted, wet)
                return 0
            return changes.swap(wanted, wet)

        def acted(found: int | BaseException) -> None:
            self.go_on()
            if isinstance(found, BaseException):
                then(found)
                return
            start = (self._position or 0) - self._pushed
            then(max(self.position, start + found + self.latency.total))

        self._turns.do(act, acted)
        self._wake(self)

    def go_on(self) -> None:
        """Offline sound has waited for the first model; live sound goes on without."""
        self._turns.held = False
        self._wake(self)

    def call(self, act: Callable[..., None], *args: Any) -> None:
        """From another thread, on the loop's; nothing where that has ended."""
        try:
            self._loop.call_soon_threadsafe(act, *args)
        except RuntimeError:
            self.closed = True

    def listen(self, choice: LiveChoice | None) -> None:
        """Have this choice hear what comes; None: nobody listens."""
        self._turns.listen(choice)

    # sound

    def push(self, sequence: int, position: int, flags: int, sound: np.ndarray) -> None:
        """The next block (C + M, n), which must not change afterwards; it is answered through `answer`. Raises
        ProtocolError for one that does not fit; the stream is unharmed by it."""
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
        if live:
            self._turns.held = False
        deadline = self._loop.time() + DEADLINE * frames / form.sample_rate if live else None
        self._wait(_Waiting(sequence, position, frames, flags, time.perf_counter(), deadline))
        self._take(sound, live=live)
        self.counters.blocks += 1
        if self.watched:
            self.scope.add("dry", sound[: form.channels])
        self._give()
        if self._turns.due:  # after the answer: a worker must not take this thread's time before it
            self._wake(self)
        if flags & _LAST:
            self._ending = self._loop.create_task(self.flush())

    def turn(self) -> bool:
        """The worker's: one chunk's worth of work; True where there is more."""
        return self._turns.turn()

    @property
    def urgent(self) -> bool:
        """Whether somebody listens in real time."""
        return self._turns.urgent

    def flush(self) -> Coroutine[Any, Any, None]:
        """Sends the last `latency` samples as blocks of sequence -1; the stream is as new afterwards. Begins at once;
        what it returns waits for the end."""
        if self._flush_done is not None:
            raise ProtocolError(Code.ORDER, "the stream is being flushed; wait for its /ack")
        rest, position = self.latency.total, self._position or 0
        done = self._flush_done = self.future()
        while rest:
            count = min(rest, FLUSH_FRAMES)
            flags = _OFFLINE | (_LAST if count == rest else 0)
            self._wait(_Waiting(_FLUSHED, position, count, flags, time.perf_counter(), None))
            rest, position = rest - count, position + count
        self._output.end()
        self._turns.feed(Piece(self.latency.total, False, after_end=True))
        self._wake(self)
        self._give()

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
        self._output = self._new_output()
        self.trouble = ""
        self._turns.reset(lambda found: settle(done, found))
        self._wake(self)

        async def ended() -> None:
            await done

        return ended()

    def close(self) -> None:
        """Ends it: nothing is answered any more, and what it has taken up is free."""
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()
        for task in (self._ending, self._choosing):
            if task is not None:
                task.cancel()
        self._turns.close()
        self.selection.close()
        self._waiting.clear()
        self._waiting_frames = 0
        for future in list(self._open):
            settle(future, self.gone())
        self._answer = lambda _: None

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
                self._wait(_Waiting(_LOST, self._position, gap, flags, time.perf_counter(), at_once))
                self._take(np.broadcast_to(np.float32(0.0), (channels, gap)), live=not flags & _OFFLINE)
        self._sequence, self._position = sequence, position

    def _take(self, sound: np.ndarray, *, live: bool) -> None:
        """Into the output, and to the model."""
        form, count = self.format, sound.shape[1]
        stem, mix = sound[: form.channels], sound[form.channels :]
        self._output.push(stem)
        self._pushed += count
        self._position = (self._position or 0) + count
        if self._turns.full:
            self._turns.feed(Piece(count, live))  # no time for it: only its length counts
        else:
            self._turns.feed(Piece(count, live, stem, mix if len(mix) else None))

    def _wait(self, block: _Waiting) -> None:
        self._waiting.append(block)
        self._waiting_frames += block.frames

    def _give(self) -> None:
        """Answers what can be answered; for the rest a turn of the worker calls again, or the first one's deadline."""
        self._collect()
        self._answer_ready()
        if self._waiting:
            self._turns.eager = True
            if self._collect():  # a turn may have ended just before it could know
                self._answer_ready()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._waiting and not self.closed and (deadline := self._waiting[0].deadline) is not None:
            self._timer = self._loop.call_at(deadline, self._give)

    def _collect(self) -> bool:
        """What turns have made, into the output; whether there was any."""
        found = False
        while (made := self._turns.take()) is not None:
            self.counters.load += 0.02 * (made.load - self.counters.load)
            self._output.push_change(made.change, made.speaks)
            found = True
        return found

    def _answer_ready(self) -> None:
        now = self._loop.time()
        while self._waiting and not self.closed:
            head = self._waiting[0]
            # Offline blocks wait for their repair even where it is not heard: else the model would fall behind.
            ready = not self._output.missing(head.frames) or (self._output.mute and head.deadline is not None)
            if not ready and (head.deadline is None or head.deadline > now):
                break
            self._waiting.popleft()
            self._waiting_frames -= head.frames
            if head.sequence == _LOST:
                self._output.skip(head.frames)
                continue
            sound, status = self._output.pull(head.frames)
            self.counters.late += status == Status.LATE
            if self.watched:
                self.scope.add("wet", sound)
            self._answer(
                Answer(head.sequence, head.position, head.flags, status, time.perf_counter() - head.arrived, sound)
            )
            if head.sequence == _FLUSHED and head.flags & _LAST and self._flush_done is not None:
                settle(self._flush_done, None)

    def _failed(self, error: Exception) -> None:
        """The model raised something: its sound stays as it is until a reset."""
        self.trouble = f"the model failed ({type(error).__name__}); reset the stream, or see the bridge's log"

    def _choose(self, choice: Choice) -> None:
        """What a live choice asks for."""
        self._choosing = self._loop.create_task(self.selection.follow(choice))


@dataclass(frozen=True)
class Answer:
    """A block that goes back: sound (C, n)."""

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

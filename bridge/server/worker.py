"""Runs the model for one stream: takes input blocks, returns corrections, one chunk at a time."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from ...engine.constants import MODEL_RATE
from ...engine.detect.choice import Choice, LiveChoice
from ...engine.dsp.channels import finite
from ...engine.errors import StemProverError
from ...engine.live import LiveCorrectionStream
from ...engine.mix.guard import MixGuard, MixReport, MixState
from ..osc import StreamFormat

_LOG = logging.getLogger("stemprover.bridge")
BACKLOG_S = 1.0  # live audio that may wait for the model before it is dropped
AHEAD_S = 0.25  # live audio that may come early: what comes faster cannot be played yet, so it is not urgent
MOST_BACKLOG_S = 6.0  # audio that is kept for the model; beyond it only the length counts


@dataclass
class InputBlock:
    """Audio for the model, or just a number of samples without audio. after_end: silence after the stream's end."""

    samples: int
    live: bool
    stem: np.ndarray | None = None
    mix: np.ndarray | None = None
    after_end: bool = False

    def split(self, samples: int) -> InputBlock:
        """Removes and returns the first samples."""
        first = InputBlock(
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


class WorkerResult(NamedTuple):
    """The outcome of one chunk: the correction (C, n), whether a model made it, and the time it took as a fraction of
    the audio's duration."""

    correction: np.ndarray
    repaired: bool
    load: float


@dataclass
class PendingCall:
    """A call to make in the worker's thread between two chunks, and what gets its result."""

    act: Callable[[LiveCorrectionStream], Any]
    then: Callable[[Any], None]


class StreamWorker:
    """`run_chunk` is for the worker's thread; all other methods are for the event loop's.

    call: has a function called on the loop's thread. ready: called there after a chunk, if `eager` was set before the
    chunk ended; the result is in `take`. choose: called there with what a live choice asks for. failed: called there
    with the model's exception. mix_changed: called there when the mix begins or ceases to be used.
    """

    def __init__(
        self,
        form: StreamFormat,
        corrections: LiveCorrectionStream,
        call: Callable[..., None],
        ready: Callable[[], None],
        choose: Callable[[Choice], None],
        failed: Callable[[Exception], None],
        mix_changed: Callable[[MixReport], None],
    ) -> None:
        self.format = form
        self.held = True  # whether audio waits for a model
        self.eager = False
        self._corrections, self._call = corrections, call
        self._ready, self._choose, self._failed, self._mix_changed = ready, choose, failed, mix_changed
        self._lock = threading.Lock()  # for what both threads write
        self._inbox: deque[InputBlock] = deque()
        self._inbox_samples = 0
        self._needed = 0
        self.urgent = False  # whether the last audio was live, and no faster than real time
        self._ahead, self._fed_at = 0.0, 0.0  # samples, and when
        self._calls: deque[PendingCall] = deque()
        self._epoch = 0
        self._results: deque[tuple[int, WorkerResult]] = deque()
        self._choice: LiveChoice | None = None
        self._reported: LiveChoice | None = None  # the choice whose first result was reported
        self._broken = False
        self._guard: MixGuard | None = None
        self.mix_report = MixReport(MixState.USED)
        self._begin(corrections)

    @property
    def due(self) -> bool:
        """Whether there is enough audio for a chunk."""
        return self._inbox_samples >= self._needed and not self.held

    @property
    def full(self) -> bool:
        """Whether so much audio waits that there will be no time for more."""
        return self._inbox_samples > MOST_BACKLOG_S * self.format.sample_rate

    def feed(self, block: InputBlock) -> None:
        """The next audio."""
        rate, now = self.format.sample_rate, time.monotonic()
        # After a pause it may catch up.
        self._ahead = max(-1.0 * rate, self._ahead - (now - self._fed_at) * rate) + block.samples
        self._fed_at = now
        self.urgent = block.live and self._ahead <= AHEAD_S * rate + self.format.max_block
        with self._lock:
            last = self._inbox[-1] if self._inbox else None
            if last is not None and last.stem is None and block.stem is None and not block.after_end:
                last.samples += block.samples
            else:
                self._inbox.append(block)
            self._inbox_samples += block.samples

    def call_before_next_chunk(self, act: Callable[[LiveCorrectionStream], Any], then: Callable[[Any], None]) -> None:
        """Have `act` called in the worker's thread, and `then` on the loop's with its result or its exception."""
        with self._lock:
            self._calls.append(PendingCall(act, then))

    def reset(self, then: Callable[[Any], None]) -> None:
        """Back to the state before the first sample, with the chosen model."""
        with self._lock:
            self._epoch += 1
            self._inbox.clear()
            self._inbox_samples = 0
        self._ahead = 0.0
        self.call_before_next_chunk(self._begin, then)

    def follow(self, choice: LiveChoice | None) -> None:
        """Have this choice analyse the audio from now on and report what it asks for; None for no choice."""
        with self._lock:
            self._choice = choice

    def check_mix(self, on: bool) -> None:
        """Have the mix proved before it is used, from the next chunk on; or use it as it is."""

        def act(corrections: LiveCorrectionStream) -> None:
            form = self.format
            self._guard = MixGuard(form.sample_rate, form.channels) if on and form.has_mix else None
            self._use_mix(self._guard is None and form.has_mix)

        self.call_before_next_chunk(act, _ignore)

    def set_role(self, role: str | None) -> None:
        """What the stem is, from the next chunk on."""

        def act(corrections: LiveCorrectionStream) -> None:
            corrections.role = role

        self.call_before_next_chunk(act, _ignore)

    def take(self) -> WorkerResult | None:
        """The oldest result not taken yet, or None."""
        while self._results:
            epoch, result = self._results.popleft()
            if epoch == self._epoch:
                return result
        return None

    def close(self) -> None:
        """Release everything; a chunk that is running is finished."""
        with self._lock:
            self._epoch += 1
            self._inbox.clear()
            self._inbox_samples = 0
            self._calls.clear()
            self._choice = None
        self.held = True
        self._results.clear()
        # frees the owner at once
        self._call = self._ready = self._choose = self._failed = self._mix_changed = _ignore

    # the worker's thread

    def run_chunk(self) -> bool:
        """One chunk's worth of work; True if there is more."""
        while True:
            with self._lock:  # one hold of the lock: no call may come between the last one and the audio after it
                if not self._calls:
                    if self.held:
                        return False
                    epoch, waiting = self._epoch, self._inbox_samples
                    blocks = self._pop(self._needed)
                    break
                pending = self._calls.popleft()
            self._run_call(pending)
        if not blocks:
            return False
        begun, count = time.perf_counter(), sum(block.samples for block in blocks)
        too_late = waiting > BACKLOG_S * self.format.sample_rate and all(block.live for block in blocks)
        correction = self._without_model(blocks) if self._broken else self._correction(blocks, too_late)
        load = (time.perf_counter() - begun) / (count / self.format.sample_rate)
        repaired = self._corrections.is_settled and not self._broken
        self._results.append((epoch, WorkerResult(np.asfortranarray(correction), repaired, load)))
        if self.eager:
            self.eager = False
            self._call(self._ready)
        with self._lock:
            self._needed = self._samples_needed()
            ends = bool(self._inbox) and self._inbox[-1].after_end
            return ends or self._inbox_samples >= self._needed

    def _run_call(self, pending: PendingCall) -> None:
        try:
            found = pending.act(self._corrections)
        except Exception as error:  # whoever waits must learn of it, and the stream must go on
            if not isinstance(error, StemProverError):
                _LOG.exception("event=worker-error")
            found = error
        self._call(pending.then, found)

    def _samples_needed(self) -> int:
        """Samples at the stream's rate that complete the next chunk. Resamplers deliver in bursts, so a chunk may turn
        out to lack a little: then a quarter of one at a time is added, not single samples."""
        rate, chunk = self.format.sample_rate, self._corrections.chunk_samples
        missing = self._corrections.missing_samples
        if rate != MODEL_RATE:
            missing = max(missing, chunk // 4)
        return -(-missing * rate // MODEL_RATE)

    def _correction(self, blocks: list[InputBlock], too_late: bool) -> np.ndarray:
        """The correction (C, n) that is ready after these blocks. If the model fails it is zero, until a reset."""
        parts: list[np.ndarray] = []
        for number, block in enumerate(blocks):
            try:
                parts.append(self._block_correction(block, too_late))
            except Exception as error:
                _LOG.exception("event=model-error")
                self._broken = True
                self._call(self._failed, error)
                parts.append(self._without_model(blocks[number:]))
                break
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def _without_model(self, blocks: list[InputBlock]) -> np.ndarray:
        return self._corrections.without_model(sum(block.samples for block in blocks if not block.after_end))

    def _begin(self, corrections: LiveCorrectionStream) -> None:
        corrections.reset()
        if self._guard is not None:
            self._guard = MixGuard(self.format.sample_rate, self.format.channels)
            self._use_mix(False)
        self._broken = False
        self._needed = self._samples_needed()

    def _block_correction(self, block: InputBlock, too_late: bool) -> np.ndarray:
        """The correction (C, n) that is ready after a block."""
        if block.after_end:
            return self._corrections.finish(block.samples)
        form = self.format
        if block.stem is None:
            stem = np.zeros((form.channels, block.samples), np.float32)
            mix = stem if form.has_mix else None
            too_late = block.live
        else:
            stem = finite(block.stem)
            mix = None if block.mix is None else form.mix_for_stem(finite(block.mix))
            if self._guard is not None and mix is not None and not too_late:
                mix = self._guard.process(stem, mix)
                self._use_mix(self._guard.uses_mix)
            if (choice := self._choice) is not None and not too_late:
                self._analyse(choice, stem, mix)
        return (self._corrections.drop if too_late else self._corrections.process)(stem, mix)

    def _use_mix(self, on: bool) -> None:
        """Go over to the repair with the mix, or without it; a live choice begins anew."""
        report = self._guard.report if self._guard is not None else MixReport(MixState.USED)
        if report != self.mix_report:
            self.mix_report = report
            self._call(self._mix_changed, report)
        if on == self._corrections.uses_mix:
            return
        self._corrections.use_mix(on)
        with self._lock:
            if self._choice is not None:
                self._choice = LiveChoice(self.format.sample_rate, self.format.channels, on)

    def _analyse(self, choice: LiveChoice, stem: np.ndarray, mix: np.ndarray | None) -> None:
        before = choice.present
        after = choice.process(stem, mix if choice.has_mix else None)
        if choice.made and (after != before or self._reported is not choice):
            self._reported = choice
            self._call(self._choose, after)

    def _pop(self, samples: int) -> list[InputBlock]:
        """Blocks of at most `samples` samples in all; the last one may be split."""
        taken: list[InputBlock] = []
        while samples > 0 and self._inbox:
            block = self._inbox[0]
            if block.samples <= samples:
                taken.append(self._inbox.popleft())
            else:
                taken.append(block.split(samples))
            samples -= taken[-1].samples
        self._inbox_samples -= sum(block.samples for block in taken)
        return taken


def _ignore(*_: Any) -> None:
    """For calls that nobody waits for any more."""

"""The worker's half of a stream: sound in, the change that repairs it out, one chunk at each turn."""

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
from ...engine.dsp.fifo import Fifo
from ...engine.dsp.silence import SilenceGate
from ...engine.errors import StemProverError
from ...engine.live import ChangeStream
from .audio_format import Format

_LOG = logging.getLogger("stemprover.bridge")
BACKLOG_S = 1.0  # live sound that may wait for the model before it is given up
AHEAD_S = 0.25  # live sound that may come before its time: what comes faster cannot be played, so is not urgent
MOST_BACKLOG_S = 6.0  # sound that is kept for the model; of what comes beyond it only the length counts


@dataclass
class Piece:
    """Sound for the model, or as many samples of which there is none."""

    samples: int
    live: bool
    stem: np.ndarray | None = None
    mix: np.ndarray | None = None
    after_end: bool = False

    def cut(self, samples: int) -> Piece:
        """Its first samples, which it loses."""
        first = Piece(
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


class Made(NamedTuple):
    """What a turn brought: change (C, n), whether a model made it, and the time it took as a share of the sound's."""

    change: np.ndarray
    speaks: bool
    load: float


@dataclass
class _Errand:
    """Something to do between two chunks."""

    act: Callable[[ChangeStream], Any]
    then: Callable[[Any], None]


class Turns:
    """`turn` is the worker's; all other methods are for the event loop's thread.

    call: has a function called on the loop's thread. ready: called there after a turn, if `eager` was set before the
    turn came to its end; what was made is in `take`. choose: called there with what a live choice asks for.
    failed: called there with what the model raised.
    """

    def __init__(
        self,
        form: Format,
        changes: ChangeStream,
        call: Callable[..., None],
        ready: Callable[[], None],
        choose: Callable[[Choice], None],
        failed: Callable[[Exception], None],
    ) -> None:
        self.format = form
        self.held = True  # whether sound waits for what is still to come
        self.eager = False
        self._changes, self._call = changes, call
        self._ready, self._choose, self._failed = ready, choose, failed
        self._lock = threading.Lock()  # for what both threads write
        self._inbox: deque[Piece] = deque()
        self._inbox_samples = 0
        self._needed = 0
        self.urgent = False  # whether the last sound was live, and not faster than it can be played
        self._ahead, self._fed_at = 0.0, 0.0  # samples
        self._errands: deque[_Errand] = deque()
        self._epoch = 0
        self._made: deque[tuple[int, Made]] = deque()
        self._choice: LiveChoice | None = None
        self._choice_told = False
        self._broken = False
        self._sounded = self._given = 0  # samples of sound that came, and of change that was made
        self._begin(changes)

    @property
    def due(self) -> bool:
        """Whether there is sound enough for a turn."""
        return self._inbox_samples >= self._needed and not self.held

    @property
    def full(self) -> bool:
        """Whether so much sound waits that there will be no time for what comes."""
        return self._inbox_samples > MOST_BACKLOG_S * self.format.sample_rate

    def feed(self, piece: Piece) -> None:
        """The next sound."""
        rate, now = self.format.sample_rate, time.monotonic()
        # What a pause has put it behind, it may make up for.
        self._ahead = max(-1.0 * rate, self._ahead - (now - self._fed_at) * rate) + piece.samples
        self._fed_at = now
        self.urgent = piece.live and self._ahead <= AHEAD_S * rate + self.format.max_block
        with self._lock:
            last = self._inbox[-1] if self._inbox else None
            if last is not None and last.stem is None and piece.stem is None and not piece.after_end:
                last.samples += piece.samples
            else:
                self._inbox.append(piece)
            self._inbox_samples += piece.samples

    def do(self, act: Callable[[ChangeStream], Any], then: Callable[[Any], None]) -> None:
        """Have `act` called in the worker's thread before the next chunk, and `then` on the loop's with what it
        returned, or with the error."""
        with self._lock:
            self._errands.append(_Errand(act, then))

    def reset(self, then: Callable[[Any], None]) -> None:
        """Back to the state before the first sound, with the last model chosen."""
        with self._lock:
            self._epoch += 1
            self._inbox.clear()
            self._inbox_samples = 0
        self._ahead = 0.0
        self.do(self._begin, then)

    def listen(self, choice: LiveChoice | None) -> None:
        """Have this choice listen from now on, and say what it asks for; None: nobody listens."""
        with self._lock:
            self._choice, self._choice_told = choice, False

    def take(self) -> Made | None:
        """The oldest of what was made and not taken, or None."""
        while self._made:
            epoch, made = self._made.popleft()
            if epoch == self._epoch:
                return made
        return None

    def close(self) -> None:
        """Let go of everything; a turn that is under way comes to its end."""
        with self._lock:
            self._epoch += 1
            self._inbox.clear()
            self._inbox_samples = 0
            self._errands.clear()
            self._choice = None
        self.held = True
        self._made.clear()
        self._call = self._ready = self._choose = self._failed = _nothing  # what has no owner any more is freed at once

    # the worker's thread

    def turn(self) -> bool:
        """One chunk's worth of work; True where there is more."""
        with self._lock:
            errands = list(self._errands)
            self._errands.clear()
            epoch = self._epoch
        for errand in errands:
            try:
                found = errand.act(self._changes)
            except Exception as error:  # whoever waits for it must hear of it, and the stream must go on
                if not isinstance(error, StemProverError):
                    _LOG.exception("event=worker-error")
                found = error
            self._call(errand.then, found)
        if self.held:
            return False
        with self._lock:
            waiting = self._inbox_samples
            pieces = self._pop(self._needed) if epoch == self._epoch else []
        if not pieces:
            return False
        begun, count = time.perf_counter(), sum(piece.samples for piece in pieces)
        given_up = waiting > BACKLOG_S * self.format.sample_rate and all(piece.live for piece in pieces)
        change = self._dry(pieces) if self._broken else self._wet(pieces, given_up)
        share = (time.perf_counter() - begun) / (count / self.format.sample_rate)
        speaks = self._changes.speaks and not self._broken
        self._made.append((epoch, Made(np.asfortranarray(change), speaks, share)))
        if self.eager:
            self.eager = False
            self._call(self._ready)
        with self._lock:
            self._needed = self._samples_needed()
            ends = bool(self._inbox) and self._inbox[-1].after_end
            return ends or self._inbox_samples >= self._needed

    def _samples_needed(self) -> int:
        """Sound (at the stream's rate) with which the next chunk is whole. Resamplers hand on in bursts, so a chunk may
        turn out to lack a little: then it is a quarter of one at a time, not sample by sample."""
        rate, chunk = self.format.sample_rate, self._changes.chunk_samples
        missing = self._changes.missing_samples
        if rate != MODEL_RATE:
            missing = max(missing, chunk // 4)
        return -(-missing * rate // MODEL_RATE)

    def _wet(self, pieces: list[Piece], given_up: bool) -> np.ndarray:
        """The change (C, n) that is ready after these pieces. Where the model fails, there is none from then on, until
        the stream is reset."""
        before = self._sounded
        try:
            parts = [self._changed(piece, given_up) for piece in pieces]
        except Exception as error:
            _LOG.exception("event=model-error")
            self._broken, self._sounded = True, before
            self._call(self._failed, error)
            return self._dry(pieces)
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def _dry(self, pieces: list[Piece]) -> np.ndarray:
        """No change (C, n), for all sound that has had none."""
        self._sounded += sum(piece.samples for piece in pieces if not piece.after_end)
        missing, self._given = self._sounded - self._given, self._sounded
        return np.zeros((self.format.channels, missing), np.float32)

    def _begin(self, changes: ChangeStream) -> None:
        changes.reset()
        self._broken = False
        self._gate = SilenceGate(self.format.sample_rate, self.format.channels)
        self._gains = Fifo()
        self._sounded = self._given = 0
        self._needed = self._samples_needed()

    def _changed(self, piece: Piece, given_up: bool) -> np.ndarray:
        """The change (C, n) that is ready after a piece, let through where there is sound."""
        form = self.format
        if piece.stem is None:
            stem = np.zeros((form.channels, piece.samples), np.float32)
            song = stem if form.mix_channels else None
            given_up = piece.live
        else:
            stem = finite(piece.stem)
            song = None if piece.mix is None else form.mix_for_stem(finite(piece.mix))
            if (choice := self._choice) is not None and not given_up:
                self._listen(choice, stem, song)
        if piece.after_end:
            self._gains.push(self._gate.process(stem[:, :0], last=True))
        else:
            self._gains.push(self._gate.process(stem))
            self._sounded += stem.shape[1]
        change = (self._changes.miss if given_up else self._changes.process)(stem, song)
        change = change[:, : self._sounded - self._given]
        if count := change.shape[1]:
            self._given += count
            change = change * self._gains.pop(count)
        return change

    def _listen(self, choice: LiveChoice, stem: np.ndarray, song: np.ndarray | None) -> None:
        before = choice.present
        after = choice.process(stem, song)
        # The weights alone decide on the model here: a separator's stem has general, as one where nothing was found.
        if choice.made and (after.weights != before.weights or not self._choice_told):
            self._choice_told = True
            self._call(self._choose, after)

    def _pop(self, samples: int) -> list[Piece]:
        """Pieces of at most `samples` samples; long ones are cut."""
        taken: list[Piece] = []
        while samples > 0 and self._inbox:
            piece = self._inbox[0]
            if piece.samples <= samples:
                taken.append(self._inbox.popleft())
            else:
                taken.append(piece.cut(samples))
            samples -= taken[-1].samples
        self._inbox_samples -= sum(piece.samples for piece in taken)
        return taken


def _nothing(*_: Any) -> None:
    """For what nobody waits for."""

"""A live stream: host blocks of any size in, the same number of samples out, a fixed latency later."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .constants import MODEL_RATE
from .dsp.channels import finite, pair_count
from .dsp.fifo import Fifo
from .dsp.resample import Resampler
from .dsp.silence import SilenceGate
from .errors import MixMismatchError, OptionError
from .latency import round_trip_latency
from .mixer import add_change
from .stream import DeltaState, DeltaStream

FADE_S = 0.02


@dataclass
class _Voice:
    """A model in a stream (None: no change), the share of its change that is added, the samples it still has to hear
    before it may sound, and its states: megabytes, made with the first sample that is not silence."""

    delta: DeltaStream | None
    wet: float
    unready: int = 0
    states: list[DeltaState] | None = None

    @classmethod
    def of(cls, delta: DeltaStream | None, wet: float, *, late: bool = False) -> _Voice:
        """`late`: it joins a stream that runs."""
        if delta is None or wet == 0.0:
            return cls(None, 0.0)
        needed = delta.memory_samples + delta.warmup_samples + delta.delay_samples if late else 0
        return cls(delta, wet, needed)

    def change(self, stem: np.ndarray, mix: np.ndarray | None) -> np.ndarray:
        """The wet change (C, n) of a chunk."""
        if self.delta is None:
            return np.zeros_like(stem)
        if self.states is None:
            if not stem.any() and (mix is None or not mix.any()):
                self.unready = max(0, self.unready - stem.shape[1])
                return np.zeros_like(stem)  # what the states would be after silence is what they begin with
            self.states = [self.delta.start() for _ in range(pair_count(len(stem)))]
        # What it has to hear first is longer than what the model sees: that part is only listened to.
        listen_only = self.unready > self.delta.warmup_samples + self.delta.delay_samples
        change, self.states = self.delta.process_channels(stem, mix, self.states, listen_only=listen_only)
        self.unready = max(0, self.unready - stem.shape[1])
        return np.float32(self.wet) * change


class ChangeStream:
    """The change that a model makes, at the host's rate and in step with the sound: `process(stem, mix)` returns what
    is ready, from the change of the first sample on; `latency_samples` after a sample its change is ready at the
    latest.

    hop, delay_samples: of the models that may follow each other in it. It begins with no change at all; `begin` names
    the model before the first block, `swap` goes over to another at any time.
    """

    def __init__(
        self, hop: int, delay_samples: int, sample_rate: int, channels: int, has_mix: bool, chunk_frames: int
    ) -> None:
        if channels < 1:
            raise OptionError(f"channels={channels}: give 1 or more")
        if chunk_frames < 1:
            raise OptionError(f"chunk_frames={chunk_frames}: give 1 or more")
        self.sample_rate, self.channels, self.has_mix = sample_rate, channels, has_mix
        self._hop, self._delay, self._chunk = hop, delay_samples, chunk_frames * hop
        self._model: tuple[DeltaStream | None, float] = (None, 0.0)
        self._chosen = False
        self._next: _Voice | None = None
        self._later: _Voice | None = None  # what a fade that has begun must wait for
        self.latency_samples = round_trip_latency(sample_rate, self._chunk, self._delay)
        self.reset()

    @property
    def chunk_samples(self) -> int:
        """Samples of a chunk at the model's rate."""
        return self._chunk

    @property
    def missing_samples(self) -> int:
        """Samples at the model's rate that the next chunk lacks."""
        return self._chunk - self._waiting

    @property
    def heard_samples(self) -> int:
        """Samples at the model's rate that went through a model, or past it."""
        return self._heard_samples

    @property
    def wet(self) -> float:
        """The share of the change of the last model chosen."""
        return self._model[1]

    @property
    def speaks(self) -> bool:
        """Whether what is heard is what was chosen, be it no change at all, and not the lack of it."""
        return self._chosen and (self._voice.delta is not None or self._model[0] is None)

    def begin(self, delta: DeltaStream | None, wet: float) -> None:
        """The model from the first sample on (or, in a stream that runs, from the next chunk on, abruptly and without
        what it should have heard before). Raises OptionError as `swap`."""
        self._check(delta, wet)
        self._model, self._chosen = (delta, wet), True
        self._voice = _Voice.of(delta, wet)
        self._next, self._later, self._faded = None, None, 0

    def reset(self) -> None:
        """Back to the state before the first block, with the last model chosen."""
        self._sources = 2 * self.channels if self.has_mix else self.channels
        self._there = Resampler(self.sample_rate, MODEL_RATE, self._sources)
        self._back = Resampler(MODEL_RATE, self.sample_rate, self.channels)
        self._model_in = Fifo()
        self._waiting = 0  # samples in _model_in
        self._heard_samples = 0  # in chunks, at the model's rate
        self._skip = self._delay
        self._voice = _Voice.of(*self._model)
        self._next, self._later, self._faded = None, None, 0

    def swap(self, delta: DeltaStream | None, wet: float) -> int:
        """Go over to another model of the same look-ahead, or to no change at all (None), with a cross-fade of 20 ms
        once it has heard enough of the sound; until then the present one goes on. Costs both models meanwhile. `wet`:
        the share of its change that is added. A swap that still waits is replaced, a fade that has begun is ended
        first. Returns the sample of the sound, counted from the first, from which the change begins to be the new one.
        Raises OptionError for a model or a share that does not fit."""
        self._check(delta, wet)
        self._model, self._chosen = (delta, wet), True
        voice = _Voice.of(delta, wet, late=True)
        if self._faded:
            self._later = voice
        else:
            self._next = voice
        chunks = -(-voice.unready // self._chunk)
        return max(0, self._heard_samples + chunks * self._chunk - self._delay) * self.sample_rate // MODEL_RATE

    def miss(self, stem: np.ndarray, mix: np.ndarray | None = None) -> np.ndarray:
        """As `process`, for a sound that there is no time to repair: no model runs, the change is zero, and the model
        listens anew from what follows."""
        self._voice, self._next, self._later, self._faded = _Voice.of(None, 0.0), None, None, 0
        change = self.process(stem, mix)
        if self._model[0] is not None:
            self._next = _Voice.of(*self._model, late=True)
        return change

    def process(self, stem: np.ndarray, mix: np.ndarray | None = None) -> np.ndarray:
        """The next samples (C, n), and the mixture's where the stream has one, to the change (C, m) that is ready."""
        arrived = self._there.process(stem if mix is None else np.concatenate([stem, mix]))
        self._model_in.push(arrived)
        self._waiting += arrived.shape[1]
        parts = [np.zeros((self.channels, 0), np.float32)]
        while self._waiting >= self._chunk:
            block = self._model_in.pop(self._chunk)
            self._waiting -= self._chunk
            self._heard_samples += self._chunk
            song = block[self.channels :] if self.has_mix else None
            change = self._heard(block[: self.channels], song)
            parts.append(self._back.process(change[:, self._skip :]))
            self._skip = max(0, self._skip - self._chunk)
        return np.concatenate(parts, axis=1)

    def _check(self, delta: DeltaStream | None, wet: float) -> None:
        if delta is not None and (delta.hop, delta.delay_samples) != (self._hop, self._delay):
            raise OptionError(
                f"a model of hop {delta.hop} and delay {delta.delay_samples} cannot follow one of hop {self._hop} and "
                f"delay {self._delay}; open a new stream"
            )
        if not 0.0 <= wet <= 1.0:
            raise OptionError(f"wet={wet:g} is out of range; give 0 (untouched) to 1 (fully repaired)")

    def _heard(self, stem: np.ndarray, mix: np.ndarray | None) -> np.ndarray:
        change = self._voice.change(stem, mix)
        if self._next is None:
            return change
        ready = self._next.unready == 0
        other = self._next.change(stem, mix)
        if not ready:
            return change
        length = round(FADE_S * MODEL_RATE)
        share = np.minimum(1.0, (self._faded + 1 + np.arange(stem.shape[1])) / length).astype(np.float32)
        self._faded += stem.shape[1]
        if self._faded >= length:
            self._voice, self._next, self._later, self._faded = self._next, self._later, None, 0
        return change + share * (other - change)


class RepairStream:
    """`process(block)` returns as many samples as it gets, `latency_samples` late; `flush()` returns those still
    inside.

    The latency is fixed from the start: STFT window, look-ahead, one chunk, and the resamplers where the rate is not
    44.1 kHz.
    """

    def __init__(
        self, delta: DeltaStream, sample_rate: int, channels: int, has_mix: bool, wet: float, chunk_frames: int
    ) -> None:
        self._changes = ChangeStream(delta.hop, delta.delay_samples, sample_rate, channels, has_mix, chunk_frames)
        self._changes.begin(delta, wet)
        self.sample_rate, self.channels, self.has_mix = sample_rate, channels, has_mix
        self.latency_samples = self._changes.latency_samples
        self.reset()

    @property
    def wet(self) -> float:
        """The share of the change that is added."""
        return self._changes.wet

    def reset(self) -> None:
        """Back to the state before the first block."""
        self._changes.reset()
        self._gate = SilenceGate(self.sample_rate, self.channels)
        self._dry, self._gains, self._change = Fifo(), Fifo(), Fifo()
        self._ready = 0  # samples in _change
        self._dry.push(np.zeros((self.channels, self.latency_samples), np.float32))
        self._lead = self.latency_samples

    def swap(self, delta: DeltaStream | None, wet: float | None = None) -> None:
        """As `ChangeStream.swap`; `wet`: as before."""
        self._changes.swap(delta, self.wet if wet is None else wet)

    def process(self, block: np.ndarray, mix: np.ndarray | None = None) -> np.ndarray:
        """Host block (C, n), and the mixture's where the stream has one, to (C, n) float32. Raises OptionError,
        MixMismatchError for blocks that do not fit; the stream is unharmed by them."""
        if np.asarray(block).dtype.kind != "f":
            raise OptionError(f"block of type {np.asarray(block).dtype}: give floats with a full scale of 1.0")
        stem = np.asarray(block, np.float32)
        if stem.ndim != 2 or stem.shape[0] != self.channels:
            raise OptionError(f"block of shape {np.shape(block)}: give ({self.channels}, samples)")
        if (mix is not None) != self.has_mix:
            raise MixMismatchError(
                f"this stream was made with has_mix={self.has_mix}; {'leave out' if mix is not None else 'give'} mix"
            )
        if mix is not None and np.shape(mix) != stem.shape:
            raise MixMismatchError(f"mix of shape {np.shape(mix)} and block of shape {stem.shape} must be equal")
        self._dry.push(stem.copy())
        heard = finite(stem)
        self._gains.push(self._gate.process(heard))
        self._take(self._changes.process(heard, None if mix is None else finite(np.asarray(mix, np.float32))))
        return self._give(stem.shape[1])

    def flush(self) -> np.ndarray:
        """The last `latency_samples` samples (C, latency); afterwards the stream is as new."""
        rest = np.zeros((self.channels, self.latency_samples), np.float32)
        self._gains.push(self._gate.process(rest[:, :0], last=True))
        self._take(self._changes.process(rest, rest if self.has_mix else None))
        out = self._give(self.latency_samples)
        self.reset()
        return out

    def _take(self, change: np.ndarray) -> None:
        self._change.push(change)
        self._ready += change.shape[1]

    def _give(self, count: int) -> np.ndarray:
        if count == 0:
            return np.zeros((self.channels, 0), np.float32)
        dry = self._dry.pop(count)
        lead = min(count, self._lead)
        self._lead -= lead
        out = dry.copy()
        if count > lead:
            assert self._ready >= count - lead, "the latency is a bound on what the model needs"
            self._ready -= count - lead
            change = self._change.pop(count - lead) * self._gains.pop(count - lead)
            out[:, lead:] = add_change(dry[:, lead:], change, 1.0)
        return out

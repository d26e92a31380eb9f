"""A live stream: host blocks of any size in, the same number of samples out, a fixed latency later."""

from __future__ import annotations

import numpy as np

from .channels import add_change, pair_count
from .errors import MixMismatchError, OptionError
from .fifo import Fifo
from .resample import Resampler, round_trip_latency
from .silence import SilenceGate
from .stream import MODEL_RATE, DeltaStream


class RepairStream:
    """`process(block)` returns as many samples as it gets, `latency_samples` late; `flush()` returns those still
    inside.

    The latency is fixed from the start: STFT window, look-ahead, one chunk, and the resamplers where the rate is not
    44.1 kHz.
    """

    def __init__(
        self, delta: DeltaStream, sample_rate: int, channels: int, has_mix: bool, wet: float, chunk_frames: int
    ) -> None:
        if channels < 1:
            raise OptionError(f"channels={channels}: give 1 or more")
        if chunk_frames < 1:
            raise OptionError(f"chunk_frames={chunk_frames}: give 1 or more")
        self.sample_rate, self.channels, self.has_mix, self.wet = sample_rate, channels, has_mix, wet
        self._delta = delta
        self._chunk = chunk_frames * delta.hop
        self.latency_samples = round_trip_latency(sample_rate, self._chunk, delta.delay_samples)
        self.reset()

    def reset(self) -> None:
        """Back to the state before the first block."""
        self._sources = 2 * self.channels if self.has_mix else self.channels
        self._there = Resampler(self.sample_rate, MODEL_RATE, self._sources)
        self._back = Resampler(MODEL_RATE, self.sample_rate, self.channels)
        self._gate = SilenceGate(self.sample_rate, self.channels)
        self._model_in, self._dry, self._gains, self._change = Fifo(), Fifo(), Fifo(), Fifo()
        self._waiting = self._ready = 0  # samples in _model_in and in _change
        self._dry.push(np.zeros((self.channels, self.latency_samples), np.float32))
        self._skip = self._delta.delay_samples
        self._lead = self.latency_samples
        self._states = [self._delta.start() for _ in range(pair_count(self.channels))]

    def process(self, block: np.ndarray, mix: np.ndarray | None = None) -> np.ndarray:
        """Host block (C, n), and the mixture's where the stream has one, to (C, n) float32. Raises OptionError,
        MixMismatchError for blocks that do not fit; the stream is unharmed by them."""
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
        if self.wet:
            self._gains.push(self._gate.process(stem))
            self._advance(stem if mix is None else np.concatenate([stem, np.asarray(mix, np.float32)]))
        return self._give(stem.shape[1])

    def flush(self) -> np.ndarray:
        """The last `latency_samples` samples (C, latency); afterwards the stream is as new."""
        rest = self.latency_samples
        if self.wet:
            self._gains.push(self._gate.process(np.zeros((self.channels, 0), np.float32), last=True))
            self._advance(np.zeros((self._sources, rest), np.float32))
        out = self._give(rest)
        self.reset()
        return out

    def _advance(self, host: np.ndarray) -> None:
        arrived = self._there.process(host)
        self._model_in.push(arrived)
        self._waiting += arrived.shape[1]
        while self._waiting >= self._chunk:
            block = self._model_in.pop(self._chunk)
            self._waiting -= self._chunk
            mix = block[self.channels :] if self.has_mix else None
            change, self._states = self._delta.process_channels(block[: self.channels], mix, self._states)
            part = self._back.process(change[:, self._skip :])
            self._skip = max(0, self._skip - self._chunk)
            self._change.push(part)
            self._ready += part.shape[1]

    def _give(self, count: int) -> np.ndarray:
        if count == 0:
            return np.zeros((self.channels, 0), np.float32)
        dry = self._dry.pop(count)
        if self.wet == 0.0:
            return dry.copy()
        lead = min(count, self._lead)
        self._lead -= lead
        out = dry.copy()
        if count > lead:
            assert self._ready >= count - lead, "the latency is a bound on what the model needs"
            self._ready -= count - lead
            change = self._change.pop(count - lead) * self._gains.pop(count - lead)
            out[:, lead:] = add_change(dry[:, lead:], change, self.wet)
        return out

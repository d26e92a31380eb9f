"""Live streams: host blocks of any size in, as many samples out, a fixed latency later."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .constants import MODEL_RATE
from .dsp.channels import check_mix, finite, pair_count
from .dsp.fifo import Fifo
from .dsp.resample import Resampler
from .errors import MixMismatchError, OptionError
from .latency import ModelTiming, stream_latency
from .mixer import Mixer, SilenceMask
from .stem_names import check_role
from .stream import CorrectionState, CorrectionStream

FADE_S = 0.02


@dataclass
class _ModelSlot:
    """One model in a stream (None: no correction). wet: the amount of its correction. unready: samples that it must
    still process before it may be heard, the last `sees` of them with the model running; before that only the features,
    which remember longer, are updated. states: megabytes, made with the first sample that is not silence."""

    model: CorrectionStream | None
    wet: float
    unready: int = 0
    sees: int = 0
    with_mix: bool = True
    states: list[CorrectionState] | None = None

    @classmethod
    def of(cls, model: CorrectionStream | None, wet: float, with_mix: bool, *, joins: bool = False) -> _ModelSlot:
        """`with_mix`: whether it hears the mix. `joins`: the stream is running already."""
        if model is None or wet == 0.0:
            return cls(None, 0.0, with_mix=with_mix)
        sees = model.warmup_samples + model.timing.delay_samples
        return cls(model, wet, model.memory_samples + sees if joins else 0, sees, with_mix)

    def correction(self, stem: np.ndarray, mix: np.ndarray | None, role: str | None) -> np.ndarray:
        """The correction (C, n) of a chunk of a stem with this role, times wet."""
        if self.model is None:
            return np.zeros_like(stem)
        mix = mix if self.with_mix else None
        if self.states is None:
            if not stem.any() and (mix is None or not mix.any()):
                self.unready = max(0, self.unready - stem.shape[1])
                return np.zeros_like(stem)  # the states after silence are the states to begin with
            self.states = [self.model.start(role=role) for _ in range(pair_count(len(stem)))]
        listen_only = self.unready > self.sees
        correction, self.states = self.model.process_channels(stem, mix, self.states, listen_only=listen_only)
        self.unready = max(0, self.unready - stem.shape[1])
        return np.float32(self.wet) * correction


class LiveCorrectionStream:
    """The correction that a model makes, at the host's rate: `process(stem, mix)` returns what is ready, from the
    correction of the first sample on. The correction of a sample is ready `latency_samples` later at the latest.

    timing: of all models that may follow each other in the stream. It starts without a model; `begin` sets the one for
    the first block, and `swap` changes it at any time. Digital silence gets no correction. Input must be finite.
    """

    def __init__(self, timing: ModelTiming, sample_rate: int, channels: int, has_mix: bool, chunk_frames: int) -> None:
        if channels < 1:
            raise OptionError(f"channels={channels}: use 1 or more")
        if chunk_frames < 1:
            raise OptionError(f"chunk_frames={chunk_frames}: use 1 or more")
        self.timing, self.sample_rate, self.channels, self.has_mix = timing, sample_rate, channels, has_mix
        self.latency_samples = stream_latency(timing, sample_rate, chunk_frames)
        self._chunk = chunk_frames * timing.hop
        self.uses_mix = has_mix
        self._role: str | None = None
        self._chosen: tuple[CorrectionStream | None, float] | None = None
        self._next: _ModelSlot | None = None
        self._after_next: _ModelSlot | None = None  # waits for the end of a fade that has begun
        self.reset()

    @property
    def chunk_samples(self) -> int:
        """Samples of a chunk at the model's rate."""
        return self._chunk

    @property
    def missing_samples(self) -> int:
        """Samples at the model's rate that the next chunk still needs."""
        return self._chunk - len(self._model_in)

    @property
    def processed_samples(self) -> int:
        """Samples at the model's rate that were processed in chunks."""
        return self._processed

    @property
    def wet(self) -> float:
        """The amount of the chosen model's correction."""
        return 0.0 if self._chosen is None else self._chosen[1]

    @property
    def role(self) -> str | None:
        """What the stem is, one of stem_names.ROLES, from the next chunk on; None if it is not known. Setting another
        raises OptionError."""
        return self._role

    @role.setter
    def role(self, role: str | None) -> None:
        self._role = check_role(role)
        for slot in (self._current, self._next, self._after_next):
            if slot is not None and slot.model is not None and slot.states is not None:
                slot.states = [slot.model.with_role(state, role) for state in slot.states]

    @property
    def is_settled(self) -> bool:
        """Whether the correction is the chosen model's (or none was wanted), rather than still missing."""
        return self._chosen is not None and (self._current.model is not None or self._chosen[0] is None)

    def begin(self, model: CorrectionStream | None, wet: float) -> None:
        """Set the model for the first sample (in a running stream: for the next chunk, without a fade and without what
        it should have processed before). Raises OptionError as `swap`."""
        self._check(model, wet)
        self._chosen = (model, wet)
        self._current = _ModelSlot.of(model, wet, self.uses_mix)
        self._next, self._after_next, self._faded = None, None, 0

    def reset(self) -> None:
        """Back to the state before the first block, with the chosen model."""
        sources = 2 * self.channels if self.has_mix else self.channels
        self._down = Resampler(self.sample_rate, MODEL_RATE, sources)
        self._up = Resampler(MODEL_RATE, self.sample_rate, self.channels)
        self._model_in = Fifo()
        self._mask = SilenceMask(self.sample_rate, self.channels)
        self._processed = 0  # samples in chunks, at the model's rate
        self._received = self._returned = 0  # samples of the stem, and of its correction
        self._skip = self.timing.delay_samples
        self._current = _ModelSlot.of(*(self._chosen or (None, 0.0)), self.uses_mix)
        self._next, self._after_next, self._faded = None, None, 0

    def swap(self, model: CorrectionStream | None, wet: float) -> int:
        """Go over to another model of the same timing, or to none, with a cross-fade of 20 ms once it has processed
        enough; until then the present one goes on, and both cost time. wet: the amount of its correction.

        A swap that still waits is replaced; a fade that has begun is finished first. Returns the sample, counted from
        the first, at which the correction begins to be the new one. Raises OptionError for a model or an amount that
        does not fit.
        """
        self._check(model, wet)
        self._chosen = (model, wet)
        slot = _ModelSlot.of(model, wet, self.uses_mix, joins=True)
        if self._faded:
            self._after_next = slot
        else:
            self._next = slot
        chunks = -(-slot.unready // self._chunk)
        at = self._processed + chunks * self._chunk - self.timing.delay_samples
        return max(0, at) * self.sample_rate // MODEL_RATE

    def use_mix(self, on: bool) -> None:
        """Have the model hear the mix from now on, or not; as `swap`, to the same model."""
        if on == self.uses_mix:
            return
        self.uses_mix = on
        if self._chosen is not None and self._processed:
            self.swap(*self._chosen)
        elif self._chosen is not None:
            self.begin(*self._chosen)

    def process(self, stem: np.ndarray, mix: np.ndarray | None = None) -> np.ndarray:
        """The next samples (C, n), and the mix's where the stream has one, to the correction (C, m) that is ready."""
        self._mask.push(stem)
        correction = self._run(stem, mix)
        self._received += stem.shape[1]
        return self._return(correction)

    def drop(self, stem: np.ndarray, mix: np.ndarray | None = None) -> np.ndarray:
        """As `process`, for samples that there is no time to repair: no model runs, their correction is zero, and the
        model starts anew with what follows."""
        nothing = _ModelSlot.of(None, 0.0, self.uses_mix)
        self._current, self._next, self._after_next, self._faded = nothing, None, None, 0
        correction = self.process(stem, mix)
        if self._chosen is not None and self._chosen[0] is not None:
            self._next = _ModelSlot.of(*self._chosen, self.uses_mix, joins=True)
        return correction

    def finish(self, samples: int) -> np.ndarray:
        """The correction (C, m) that becomes ready when `samples` samples of silence follow the end."""
        self._mask.end()
        silence = np.zeros((self.channels, samples), np.float32)
        return self._return(self._run(silence, silence if self.has_mix else None))

    def without_model(self, samples: int) -> np.ndarray:
        """A correction of zero (C, m) for all samples that have had none, and for `samples` more that are not passed
        in: for a model that has failed, until `reset`."""
        self._received += samples
        missing, self._returned = self._received - self._returned, self._received
        return np.zeros((self.channels, missing), np.float32)

    def _run(self, stem: np.ndarray, mix: np.ndarray | None) -> np.ndarray:
        self._model_in.push(self._down.process(stem if mix is None else np.concatenate([stem, mix])))
        parts = [np.zeros((self.channels, 0), np.float32)]
        while len(self._model_in) >= self._chunk:
            block = self._model_in.pop(self._chunk)
            self._processed += self._chunk
            mix_block = block[self.channels :] if self.has_mix else None
            correction = self._chunk_correction(block[: self.channels], mix_block)
            parts.append(self._up.process(correction[:, self._skip :]))
            self._skip = max(0, self._skip - self._chunk)
        return np.concatenate(parts, axis=1)

    def _return(self, correction: np.ndarray) -> np.ndarray:
        """No more correction than there was signal, masked where that is silent."""
        correction = correction[:, : self._received - self._returned]
        self._returned += correction.shape[1]
        return self._mask.apply(correction)

    def _check(self, model: CorrectionStream | None, wet: float) -> None:
        if model is not None and model.timing != self.timing:
            raise OptionError(
                f"a model of {_sizes(model.timing)} cannot follow one of {_sizes(self.timing)}; open a new stream"
            )
        if not 0.0 <= wet <= 1.0:
            raise OptionError(f"wet={wet:g} is out of range; use 0 (untouched) to 1 (fully repaired)")

    def _chunk_correction(self, stem: np.ndarray, mix: np.ndarray | None) -> np.ndarray:
        correction = self._current.correction(stem, mix, self._role)
        if self._next is None:
            return correction
        ready = self._next.unready == 0
        other = self._next.correction(stem, mix, self._role)
        if not ready:
            return correction
        length = round(FADE_S * MODEL_RATE)
        gain = np.minimum(1.0, (self._faded + 1 + np.arange(stem.shape[1])) / length).astype(np.float32)
        self._faded += stem.shape[1]
        if self._faded >= length:
            self._current, self._next, self._after_next, self._faded = self._next, self._after_next, None, 0
        return correction + gain * (other - correction)


def _sizes(timing: ModelTiming) -> str:
    return f"hop {timing.hop}, window {timing.window} and look-ahead {timing.lookahead}"


class RepairStream:
    """`process(block)` returns as many samples as it gets, `latency_samples` late; `flush()` returns those still
    inside. The latency (latency.stream_latency) is fixed from the start."""

    def __init__(
        self, model: CorrectionStream, sample_rate: int, channels: int, has_mix: bool, wet: float, chunk_frames: int,
        role: str | None = None,
    ) -> None:  # fmt: skip
        self._corrections = LiveCorrectionStream(model.timing, sample_rate, channels, has_mix, chunk_frames)
        self._corrections.role = role
        self._corrections.begin(model, wet)
        self.sample_rate, self.channels, self.has_mix = sample_rate, channels, has_mix
        self.latency_samples = self._corrections.latency_samples
        self.reset()

    @property
    def wet(self) -> float:
        """The amount of the correction that is added, 0 to 1."""
        return self._corrections.wet

    def reset(self) -> None:
        """Back to the state before the first block."""
        self._corrections.reset()
        self._mixer = Mixer(self.channels, self.sample_rate, latency_samples=self.latency_samples)

    def swap(self, model: CorrectionStream | None, wet: float | None = None) -> None:
        """As `LiveCorrectionStream.swap`; without `wet` the amount stays."""
        self._corrections.swap(model, self.wet if wet is None else wet)

    def process(self, block: np.ndarray, mix: np.ndarray | None = None) -> np.ndarray:
        """Host block (C, n), and the mix's where the stream has one, to (C, n) float32. Raises OptionError and
        MixMismatchError for blocks that do not fit; they leave the stream unharmed."""
        if np.asarray(block).dtype.kind != "f":
            raise OptionError(f"block of type {np.asarray(block).dtype}: pass floats with a full scale of 1.0")
        stem = np.asarray(block, np.float32)
        if stem.ndim != 2 or stem.shape[0] != self.channels:
            raise OptionError(f"block of shape {np.shape(block)}: pass ({self.channels}, samples)")
        if (mix is not None) != self.has_mix:
            raise MixMismatchError(
                f"this stream was made with has_mix={self.has_mix}: "
                + ("leave out the mix, or open it with has_mix=True" if mix is not None else "pass the mix as well")
            )
        if mix is not None:
            check_mix(stem, mix)
        self._mixer.push(stem.copy())
        clean = None if mix is None else finite(np.asarray(mix, np.float32))
        self._mixer.push_correction(self._corrections.process(finite(stem), clean))
        return self._mixer.pull(stem.shape[1]).audio

    def flush(self) -> np.ndarray:
        """The last `latency_samples` samples (C, latency); afterwards the stream is as new."""
        self._mixer.push_correction(self._corrections.finish(self.latency_samples))
        out = self._mixer.pull(self.latency_samples).audio
        self.reset()
        return out

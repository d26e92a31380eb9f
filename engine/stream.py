"""The model's own stream at 44.1 kHz: hops of a stem (and its mix) in, hops of the correction that repairs it out.

The state of a stream is one dataclass that goes in and comes out. Any split into hops gives the same correction.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np

from .dsp.channels import from_pairs, to_pairs
from .dsp.linked import link
from .dsp.stft import AnalysisState, Stft, SynthesisState
from .dsp.wiener import MEMORY, WienerFilter, WienerState
from .errors import OptionError
from .features import FeatureMaker, Features, FeatureState
from .latency import ModelTiming
from .runtime import ModelState, Runtime
from .trust import Trust, bands_to_bins

#: From which mask likelihood (leakage.Leakage) the Wiener filter's correction counts, and from which it counts fully.
_MASK_LIKELIHOOD = (0.2, 0.5)


@dataclass(frozen=True)
class CorrectionBlend:
    """For a stem that was separated by a mask: the weights (0 to 1) of the network's correction, and of that of a
    multichannel Wiener filter (dsp/wiener.py), which depends on the mask likelihood, not on trust. Raises OptionError
    for other weights."""

    stem: float
    wiener: float

    def __post_init__(self) -> None:
        for name, weight in vars(self).items():
            if not 0.0 <= weight <= 1.0:
                raise OptionError(f"{name}={weight:g} is out of range; use a weight of 0 to 1")


@dataclass(frozen=True)
class ModelMemory:
    """What features, model and trust remember while the model is awake."""

    features: FeatureState
    model: ModelState
    trust: np.ndarray


@dataclass(frozen=True)
class CorrectionState:
    """Everything between two blocks of one stream. wiener: the filter's state, if there is one. quiet: silent hops up
    to now. running: False while the model sleeps."""

    stem: AnalysisState
    mix: AnalysisState
    synthesis: SynthesisState
    memory: ModelMemory
    wiener: WienerState | None
    quiet: int
    running: bool


class _Delayed(NamedTuple):
    """Spectra of what a correction belongs to, one look-ahead late: the stem (B, 2, F, n), and for the last m frames
    the mix and the largest magnitudes allowed (B, 2, F, m). Earlier frames only fill the look-ahead."""

    stem: np.ndarray
    mix: np.ndarray
    limit: np.ndarray


@dataclass(frozen=True)
class CorrectionStream:
    """The correction that repairs a stem, `timing.delay_samples` later than the stem.

    The model sleeps while there is nothing but digital silence within its look-ahead, and starts afresh with the first
    sample: decided hop by hop, so it does not depend on block sizes. trust: how much of the correction is let through.
    linked: more than two channels belong together. blend: with the mix, what the correction is made
    of; None for the network's alone.
    """

    runtime: Runtime
    steps: int
    recompute_control: bool = False
    trust: Trust = field(default_factory=Trust)
    linked: bool = True
    blend: CorrectionBlend | None = None
    timing: ModelTiming = field(init=False)
    stft: Stft = field(init=False)
    maker: FeatureMaker = field(init=False)
    wiener: WienerFilter = field(init=False)

    def __post_init__(self) -> None:
        bundle = self.runtime.bundle
        object.__setattr__(self, "timing", bundle.timing)
        object.__setattr__(self, "stft", Stft(bundle.stft))
        object.__setattr__(self, "maker", FeatureMaker(bundle.latent, bundle.stft))
        object.__setattr__(self, "wiener", WienerFilter(bundle.latent.layout))

    @property
    def warmup_samples(self) -> int:
        """How far back the model sees: the receptive field of all steps and of the window, in whole hops."""
        reach = self.runtime.bundle.receptive_field
        frames = reach["control"] + self.steps * reach["denoiser"] + self.timing.window // self.timing.hop
        return frames * self.timing.hop

    @property
    def memory_samples(self) -> int:
        """How much further back the features remember, in whole hops."""
        return self.maker.memory_frames * self.timing.hop

    @property
    def history_samples(self) -> int:
        """How far back anything has an influence, in whole hops. The Wiener filter's memory is the longest; it may
        start anew."""
        remembered = max(self.memory_samples, MEMORY * self.timing.hop if self._uses_wiener else 0)
        return remembered + self.warmup_samples

    @property
    def _uses_wiener(self) -> bool:
        return self.blend is not None and self.blend.wiener > 0.0

    def start(self, batch: int = 1, role: str | None = None) -> CorrectionState:
        """State before the first sample of a stream of `batch` channel pairs that sound and pause together. role: of
        stem_names.ROLES, None if it is not known. Raises OptionError for another role."""
        return CorrectionState(
            stem=self.stft.start_analysis(2 * batch),
            mix=self.stft.start_analysis(2 * batch),
            synthesis=self.stft.start_synthesis(2 * batch),
            memory=self._start_memory(batch, role),
            wiener=self.wiener.start(batch) if self._uses_wiener else None,
            quiet=self._sleep_after,
            running=False,
        )

    def with_role(self, state: CorrectionState, role: str | None) -> CorrectionState:
        """The state of a stem of another role, which counts from the next sample on."""
        features = replace(state.memory.features, role=role)
        return replace(state, memory=replace(state.memory, features=features))

    def process(
        self, stem: np.ndarray, mix: np.ndarray | None, state: CorrectionState, *, listen_only: bool = False
    ) -> tuple[np.ndarray, CorrectionState]:
        """Stem and mix (B, 2, n * hop) to the correction (B, 2, n * hop), and the next state. `listen_only`: the input
        is only remembered; the model does not run and the correction is zero."""
        correction, _, after = self._spectra(stem, mix, state, listen_only)
        return self._synthesise(correction, after)

    def process_channels(
        self, stem: np.ndarray, mix: np.ndarray | None, states: list[CorrectionState], *, listen_only: bool = False
    ) -> tuple[np.ndarray, list[CorrectionState]]:
        """Any number of channels (C, n * hop) to their correction. The model runs for each pair by itself, so a silent
        one costs no model time; the corrections of more than two `linked` channels become one (linked.link). One state
        a pair (channels.pair_count); `listen_only` as in `process`."""
        stems, mixes = to_pairs(stem), None if mix is None else to_pairs(mix)
        found = [
            self._spectra(stems[i : i + 1], None if mixes is None else mixes[i : i + 1], state, listen_only)
            for i, state in enumerate(states)
        ]
        corrections = [correction for correction, _, _ in found]
        if self.linked and len(states) > 1:
            before = np.concatenate([one for _, one, _ in found])
            corrections = np.split(link(before, np.concatenate(corrections), len(stem) % 2 == 1), len(states))
        made = [self._synthesise(one, state) for one, (_, _, state) in zip(corrections, found, strict=True)]
        return from_pairs(np.concatenate([part for part, _ in made]), len(stem)), [state for _, state in made]

    def _spectra(
        self, stem: np.ndarray, mix: np.ndarray | None, state: CorrectionState, listen_only: bool
    ) -> tuple[np.ndarray, np.ndarray, CorrectionState]:
        """Spectra (B, 2, F, n) of the correction and of the stem that it belongs to, and the next state but for the
        synthesis."""
        batch, _, length = stem.shape
        flat = stem.reshape(2 * batch, length)
        y, stem_state = self.stft.analysis(flat, state.stem)
        y = y.reshape(batch, 2, *y.shape[1:])
        m, mix_state = None, state.mix
        if mix is not None:
            m, mix_state = self.stft.analysis(mix.reshape(2 * batch, length), state.mix)
            m = m.reshape(y.shape)
        covariances, wiener = None, state.wiener
        if m is not None and wiener is not None:
            covariances, wiener = self.wiener.measure(y, m - y, wiener)
        sounding = np.any(flat.reshape(2 * batch, -1, self.timing.hop) != 0.0, axis=(0, 2))
        correction, before = np.zeros_like(y), np.zeros_like(y)
        memory, quiet, running = state.memory, state.quiet, state.running
        for start, stop, quiet_after, awake in _runs(sounding, quiet, self._sleep_after):
            quiet = quiet_after
            if not awake:
                running = False
                continue
            if not running:
                memory, running = self._start_memory(batch, memory.features.role), True
            part = slice(start, stop)
            y_part, m_part = y[..., part], None if m is None else m[..., part]
            if listen_only:
                memory = self._remember(y_part, m_part, memory)
                continue
            here = None if covariances is None else covariances[..., part]
            correction[..., part], before[..., part], memory = self._correct(y_part, m_part, memory, here)
        after = CorrectionState(stem_state, mix_state, state.synthesis, memory, wiener, quiet, running)
        return correction, before, after

    def _remember(self, stem: np.ndarray, mix: np.ndarray | None, memory: ModelMemory) -> ModelMemory:
        """The state after frames that only the features remember."""
        recent = slice(-self.maker.memory_frames, None)
        whole = None if mix is None else mix[..., recent]
        return replace(memory, features=self.maker.listen(stem[..., recent], whole, memory.features))

    def _correct(
        self, stem: np.ndarray, mix: np.ndarray | None, memory: ModelMemory, covariances: np.ndarray | None
    ) -> tuple[np.ndarray, np.ndarray, ModelMemory]:
        """Spectra (B, 2, F, n) of the trusted correction and of the stem that it belongs to, and the next state.
        covariances: the Wiener filter's, of these frames, which are one look-ahead later."""
        made, features = self.maker(stem, mix, memory.features)
        correction, delayed, model = self._run_model(made, memory.model, has_mix=mix is not None)
        amount, trust = self.trust(made, memory.trust)
        correction *= bands_to_bins(amount, self.runtime.bundle.latent.layout)
        after = ModelMemory(features, model, trust)
        if self.blend is None or mix is None:
            return correction, delayed.stem, after
        ready = slice(correction.shape[-1] - delayed.limit.shape[-1], None)
        before = delayed.stem[..., ready]
        wanted = before + self.blend.stem * correction[..., ready]
        if covariances is not None and made.leakage is not None:
            likely = np.interp(made.leakage.mask_likelihood[..., ready], _MASK_LIKELIHOOD, (0.0, 1.0))
            weight = (self.blend.wiener * likely).astype(np.float32)
            wanted += weight[:, None, None] * self.wiener.correction(before, delayed.mix, covariances[..., ready])
        correction[..., ready] = _limited(before, wanted, delayed.limit)
        return correction, delayed.stem, after

    def _synthesise(self, correction: np.ndarray, state: CorrectionState) -> tuple[np.ndarray, CorrectionState]:
        batch = len(correction)
        out, synthesis = self.stft.synthesis(correction.reshape(2 * batch, *correction.shape[2:]), state.synthesis)
        return out.reshape(batch, 2, -1), replace(state, synthesis=synthesis)

    def _start_memory(self, batch: int, role: str | None) -> ModelMemory:
        bundle = self.runtime.bundle
        trust = self.trust.start(batch, bundle.latent.layout, bundle.lookahead)
        return ModelMemory(self.maker.start(batch, role), self.runtime.start(batch, self.steps), trust)

    @property
    def _sleep_after(self) -> int:
        return self.timing.window // self.timing.hop + self.runtime.bundle.lookahead

    def _run_model(
        self, features: Features, model: ModelState, has_mix: bool
    ) -> tuple[np.ndarray, _Delayed, ModelState]:
        count = features.stem.shape[-1]
        repaired, stem, mix, after = self.runtime.step(features, model, self.recompute_control)
        ready = repaired.shape[-1]
        correction, delayed = np.zeros((2, len(stem), 2, self.stft.config.bins, count), np.complex64)
        if ready == 0:
            none = delayed[..., :0]
            return correction, _Delayed(delayed, none, none.real), after
        latent = self.runtime.bundle.latent
        before = latent.decode(stem)
        wanted = latent.decode(repaired)
        whole = latent.decode(mix) if has_mix else before
        limit = magnitude_limit(before, whole if has_mix else None)
        found = _limited(before, wanted, limit)
        correction[..., count - ready :] = found
        delayed[..., count - ready :] = before
        return correction, _Delayed(delayed, whole, limit), after


def _limited(before: np.ndarray, wanted: np.ndarray, limit: np.ndarray) -> np.ndarray:
    """The correction from one spectrum (B, 2, F, N) to the other, whose magnitudes are cut at the limit; zero in silent
    frames, and finite. `wanted` is overwritten."""
    wanted *= np.minimum(1.0, limit / np.maximum(np.abs(wanted), np.float32(1e-20)))
    found: np.ndarray = wanted - before
    found.transpose(0, 3, 1, 2)[~before.any(axis=(1, 2))] = 0.0
    found[~np.isfinite(found)] = 0.0
    return found


def magnitude_limit(stem: np.ndarray, mix: np.ndarray | None) -> np.ndarray:
    """Largest magnitude allowed for each repaired bin (B, 2, F, N), against invented sound.

    With the mix: its magnitude plus 2 dB, or the stem's own. Without: 12 dB over the stem, or 12 dB under the loudest
    bin of the frame, so that a hole may be filled but nothing sticks out.
    """
    size = np.abs(stem)
    if mix is not None:
        return np.maximum(size, np.float32(1.26) * np.abs(mix))
    return np.maximum(np.float32(4.0) * size, np.float32(0.25) * size.max(axis=2, keepdims=True))


def _runs(sounding: np.ndarray, quiet: int, sleep_after: int) -> list[tuple[int, int, int, bool]]:
    """Split hops where the model falls asleep or wakes: (start, stop, quiet after it, awake). `quiet` counts silent
    hops."""
    runs: list[tuple[int, int, int, bool]] = []
    for n, loud in enumerate(sounding):
        quiet = 0 if loud else quiet + 1
        awake = quiet < sleep_after
        if runs and runs[-1][3] == awake:
            runs[-1] = (runs[-1][0], n + 1, quiet, awake)
        else:
            runs.append((n, n + 1, quiet, awake))
    return runs

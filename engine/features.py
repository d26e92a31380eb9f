"""What the control branch is shown, made from the packed spectra of the stem and, when it is there, of the mixture."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from .detect.bank import TYPES, Detectors, DetectorState
from .detect.measures import MEMORY
from .dsp.latent import SLOTS, Latent
from .dsp.leakage import LeakCanceller, LeakState, mid_side
from .dsp.phase import PhaseState, phase_coherence, start_phase
from .dsp.stft import StftConfig

FEATURES = 4 * SLOTS * 2 + 2 * SLOTS * 3 + 8 + 1 + 4 + 2 * SLOTS + len(TYPES)
#: Where among them the log-magnitudes of stem, mixture and rest begin.
LOG_STEM, LOG_MIX, LOG_REST = 128, 160, 192
#: Where among them are the flag for the mixture, and the leak's gain and coherence of mid and side.
MIX_FLAG, LEAK_GAIN, LEAK_COHERENCE = 232, slice(233, 235), slice(235, 237)


@dataclass(frozen=True)
class FeatureState:
    """The last frame of mid and side of stem and mixture, what the leak's gain is measured from, and what the detectors
    of each pair remember."""

    phase: PhaseState
    leak: LeakState
    detectors: tuple[DetectorState, ...]


@dataclass(frozen=True)
class Features:
    """The inputs of the model for one run of frames; B batch, K bands, N frames.

    control (B, 274, K, N): latents of stem and of mixture minus stem, log-magnitudes of stem, mixture and their
    difference, phase coherence in time and over frequency of stem and mixture (mid and side), a flag for the mixture,
    gain and coherence of the leak (mid and side), log-magnitudes of the stem without it, the detectors' severities.
    stem, mix, cancelled (B, 64, K, N): the latents of stem, mixture, and stem without its leak (leak.py); without a
    mixture all three are the stem's. For the gate alone masked (B, N), how far stem and rest are in phase, and balance
    (B, K, N), the stem's part of the power of both (leak.py); without a mixture 0 and 1.
    """

    control: np.ndarray
    stem: np.ndarray
    mix: np.ndarray
    cancelled: np.ndarray
    masked: np.ndarray
    balance: np.ndarray

    @property
    def references(self) -> np.ndarray:
        """What the denoiser's gates act on: stem, mix, cancelled as (B, 3, 64, K, N)."""
        return np.stack([self.stem, self.mix, self.cancelled], axis=1)


@dataclass(frozen=True)
class FeatureMaker:
    """Packed left/right spectra (B, 2, F, N) to Features, frame by frame, with `memory_frames` of memory."""

    latent: Latent = field(default_factory=Latent)
    stft: StftConfig = field(default_factory=StftConfig)

    @property
    def memory_frames(self) -> int:
        """Frames after which nothing is left of what was before."""
        return MEMORY

    @cached_property
    def detectors(self) -> Detectors:
        """The detectors whose maps the control branch sees."""
        return Detectors(stft=self.stft)

    @cached_property
    def _perceptual(self) -> np.ndarray:
        """The perceptual band around the middle of each band of the latent (K,)."""
        layout = self.latent.layout
        middle = layout.starts + layout.widths / 2
        return np.searchsorted(self.detectors.bands.starts, middle, side="right") - 1

    @cached_property
    def _leak(self) -> LeakCanceller:
        return LeakCanceller(self.latent.layout)

    def start(self, batch: int) -> FeatureState:
        """State before the first frame."""
        return FeatureState(
            start_phase((batch, 4, self.latent.layout.bins)),
            self._leak.start(batch),
            tuple(self.detectors.start() for _ in range(batch)),
        )

    def __call__(self, stem: np.ndarray, mix: np.ndarray | None, state: FeatureState) -> tuple[Features, FeatureState]:
        """Features of the frames and the state after them."""
        z_stem = self.latent.encode(stem)
        batch, _, bands, frames = z_stem.shape
        control = np.zeros((batch, FEATURES, bands, frames), np.float32)
        control[:, :64] = z_stem
        control[:, LOG_STEM : LOG_STEM + 2 * SLOTS] = log_magnitude(z_stem)
        z_mix = z_cancelled = z_stem
        sides, leak = _sides(stem, mix), state.leak
        masked, balance = np.zeros((batch, frames), np.float32), np.ones((batch, bands, frames), np.float32)
        if mix is not None:
            z_mix = self.latent.encode(mix)
            z_rest = self.latent.encode(mix - stem)
            control[:, 64:128] = z_rest
            control[:, LOG_MIX : LOG_MIX + 2 * SLOTS] = log_magnitude(z_mix)
            control[:, LOG_REST : LOG_REST + 2 * SLOTS] = log_magnitude(z_rest)
            control[:, MIX_FLAG] = 1.0
            own, rest = sides[:, 0:2], sides[:, 2:4] - sides[:, 0:2]
            found, leak = self._leak.measure(own, rest, leak)
            z_cancelled = self.latent.encode(_left_right(self._leak.cancel(own, rest, found.gain)))
            control[:, LEAK_GAIN] = found.gain
            control[:, LEAK_COHERENCE] = found.coherence
            masked, balance = found.masked, found.balance
        control[:, 237:269] = log_magnitude(z_cancelled)
        temporal, spectral, phase = phase_coherence(sides, self.latent.layout, state.phase)
        control[:, 224:228] = temporal
        control[:, 228:232] = spectral
        severity, detectors = self._detect(stem, mix, state.detectors)
        control[:, 269:] = severity[:, :, self._perceptual]
        made = Features(control, z_stem, z_mix, z_cancelled, masked, balance)
        return made, FeatureState(phase, leak, detectors)

    def listen(self, stem: np.ndarray, mix: np.ndarray | None, state: FeatureState) -> FeatureState:
        """The state after the frames, without their features."""
        sides, leak = _sides(stem, mix), state.leak
        _, _, phase = phase_coherence(sides[..., -1:], self.latent.layout, state.phase)
        if mix is not None:
            leak = self._leak.measure(sides[:, 0:2], sides[:, 2:4] - sides[:, 0:2], leak)[1]
        return FeatureState(phase, leak, self._detect(stem, mix, state.detectors)[1])

    def _detect(
        self, stem: np.ndarray, mix: np.ndarray | None, states: tuple[DetectorState, ...]
    ) -> tuple[np.ndarray, tuple[DetectorState, ...]]:
        found = [
            self.detectors(stem[pair], None if mix is None else mix[pair], state) for pair, state in enumerate(states)
        ]
        return np.stack([severity for severity, _ in found]), tuple(state for _, state in found)


def _sides(stem: np.ndarray, mix: np.ndarray | None) -> np.ndarray:
    """Mid and side of the stem and of the mixture (B, 4, F, N); zeros for a mixture that is not there."""
    sides = np.zeros((len(stem), 4, *stem.shape[2:]), np.complex64)
    sides[:, 0:2] = mid_side(stem)
    if mix is not None:
        sides[:, 2:4] = mid_side(mix)
    return sides


def _left_right(sides: np.ndarray) -> np.ndarray:
    """The inverse of `mid_side`."""
    return np.stack([sides[:, 0] + sides[:, 1], sides[:, 0] - sides[:, 1]], axis=1)


def log_magnitude(latent: np.ndarray) -> np.ndarray:
    """Latent (B, 64, K, N) to a quarter of the natural logarithm of its slots' power (B, 32, K, N), floored at -2.3."""
    power = np.square(latent[:, : 2 * SLOTS]) + np.square(latent[:, 2 * SLOTS :])
    return np.float32(0.25) * np.log(power + np.float32(1e-4))

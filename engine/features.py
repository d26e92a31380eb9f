"""What the control branch is shown, made from the packed spectra of the stem and, when it is there, of the mixture."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property

import numpy as np

from .detect.bank import TYPES, Detectors, DetectorState
from .detect.measures import MEMORY
from .latent import SLOTS, Latent
from .phase import PhaseState, phase_coherence, start_phase
from .stft import StftConfig

FEATURES = 4 * SLOTS * 2 + 2 * SLOTS * 3 + 8 + 1 + len(TYPES)


@dataclass(frozen=True)
class FeatureState:
    """The last frame of mid and side of stem and mixture, and what the detectors of each pair remember."""

    phase: PhaseState
    detectors: tuple[DetectorState, ...]


@dataclass(frozen=True)
class Features:
    """The inputs of the model for one run of frames; B batch, K bands, N frames.

    control (B, 238, K, N): latents of stem and of mixture minus stem, log-magnitudes of stem, mixture and their
    difference, phase coherence in time and over frequency of stem and mixture (mid and side), a flag for the mixture,
    the detectors' severities.
    stem and mix (B, 64, K, N): the latents; without a mixture `mix` equals `stem`.
    """

    control: np.ndarray
    stem: np.ndarray
    mix: np.ndarray


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
        middle = np.cumsum(layout.widths) - layout.widths / 2
        return np.searchsorted(self.detectors.bands.starts, middle, side="right") - 1

    def start(self, batch: int) -> FeatureState:
        """State before the first frame."""
        return FeatureState(
            start_phase((batch, 4, self.latent.layout.bins)), tuple(self.detectors.start() for _ in range(batch))
        )

    def __call__(self, stem: np.ndarray, mix: np.ndarray | None, state: FeatureState) -> tuple[Features, FeatureState]:
        """Features of the frames and the state after them."""
        z_stem = self.latent.encode(stem)
        batch, _, bands, frames = z_stem.shape
        control = np.zeros((batch, FEATURES, bands, frames), np.float32)
        control[:, :64] = z_stem
        control[:, 128:160] = log_magnitude(z_stem)
        z_mix = z_stem
        if mix is not None:
            z_mix = self.latent.encode(mix)
            z_rest = self.latent.encode(mix - stem)
            control[:, 64:128] = z_rest
            control[:, 160:192] = log_magnitude(z_mix)
            control[:, 192:224] = log_magnitude(z_rest)
            control[:, 232] = 1.0
        temporal, spectral, phase = phase_coherence(_sides(stem, mix), self.latent.layout, state.phase)
        control[:, 224:228] = temporal
        control[:, 228:232] = spectral
        severity, detectors = self._detect(stem, mix, state.detectors)
        control[:, 233:] = severity[:, :, self._perceptual]
        return Features(control, z_stem, z_mix), FeatureState(phase, detectors)

    def listen(self, stem: np.ndarray, mix: np.ndarray | None, state: FeatureState) -> FeatureState:
        """The state after the frames, without their features."""
        last = slice(stem.shape[-1] - 1, None)
        _, _, phase = phase_coherence(
            _sides(stem[..., last], None if mix is None else mix[..., last]), self.latent.layout, state.phase
        )
        return FeatureState(phase, self._detect(stem, mix, state.detectors)[1])

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
    sides[:, 0:2] = _mid_side(stem)
    if mix is not None:
        sides[:, 2:4] = _mid_side(mix)
    return sides


def _mid_side(spectrum: np.ndarray) -> np.ndarray:
    return np.stack([spectrum[:, 0] + spectrum[:, 1], spectrum[:, 0] - spectrum[:, 1]], axis=1) * np.float32(0.5)


def log_magnitude(latent: np.ndarray) -> np.ndarray:
    """Latent (B, 64, K, N) to a quarter of the natural logarithm of its slots' power (B, 32, K, N), floored at -2.3."""
    power = np.square(latent[:, : 2 * SLOTS]) + np.square(latent[:, 2 * SLOTS :])
    return np.float32(0.25) * np.log(power + np.float32(1e-4))

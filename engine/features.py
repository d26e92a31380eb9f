"""What the control branch is shown, made from the packed spectra of the stem and, when it is there, of the mixture."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .latent import SLOTS, Latent
from .phase import PhaseState, phase_coherence, start_phase
from .stft import StftConfig

FEATURES = 4 * SLOTS * 2 + 2 * SLOTS * 3 + 8 + 1


@dataclass(frozen=True)
class FeatureState:
    """The last frame of mid and side of stem and mixture."""

    phase: PhaseState


@dataclass(frozen=True)
class Features:
    """The inputs of the model for one run of frames; B batch, K bands, N frames.

    control (B, 233, K, N): latents of stem and of mixture minus stem, log-magnitudes of stem, mixture and their
    difference, phase coherence in time and over frequency of stem and mixture (mid and side), a flag for the mixture.
    stem and mix (B, 64, K, N): the latents; without a mixture `mix` equals `stem`.
    """

    control: np.ndarray
    stem: np.ndarray
    mix: np.ndarray


@dataclass(frozen=True)
class FeatureMaker:
    """Packed left/right spectra (B, 2, F, N) to Features, frame by frame, with one frame of memory."""

    latent: Latent = field(default_factory=Latent)
    stft: StftConfig = field(default_factory=StftConfig)

    def start(self, batch: int) -> FeatureState:
        """State before the first frame."""
        return FeatureState(start_phase((batch, 4, self.latent.layout.bins)))

    def __call__(self, stem: np.ndarray, mix: np.ndarray | None, state: FeatureState) -> tuple[Features, FeatureState]:
        """Features of the frames and the state after them."""
        z_stem = self.latent.encode(stem)
        batch, _, bands, frames = z_stem.shape
        control = np.zeros((batch, FEATURES, bands, frames), np.float32)
        sides = np.zeros((batch, 4, *stem.shape[2:]), np.complex64)
        sides[:, 0:2] = _mid_side(stem)
        control[:, :64] = z_stem
        control[:, 128:160] = log_magnitude(z_stem)
        z_mix = z_stem
        if mix is not None:
            z_mix = self.latent.encode(mix)
            z_rest = self.latent.encode(mix - stem)
            sides[:, 2:4] = _mid_side(mix)
            control[:, 64:128] = z_rest
            control[:, 160:192] = log_magnitude(z_mix)
            control[:, 192:224] = log_magnitude(z_rest)
            control[:, 232] = 1.0
        temporal, spectral, phase = phase_coherence(sides, self.latent.layout, state.phase)
        control[:, 224:228] = temporal
        control[:, 228:232] = spectral
        return Features(control, z_stem, z_mix), FeatureState(phase)


def _mid_side(spectrum: np.ndarray) -> np.ndarray:
    return np.stack([spectrum[:, 0] + spectrum[:, 1], spectrum[:, 0] - spectrum[:, 1]], axis=1) * np.float32(0.5)


def log_magnitude(latent: np.ndarray) -> np.ndarray:
    """Latent (B, 64, K, N) to a quarter of the natural logarithm of its slots' power (B, 32, K, N), floored at -2.3."""
    power = np.square(latent[:, : 2 * SLOTS]) + np.square(latent[:, 2 * SLOTS :])
    return np.float32(0.25) * np.log(power + np.float32(1e-4))

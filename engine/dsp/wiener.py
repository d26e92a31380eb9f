"""A multichannel Wiener filter for stems that were separated by a mask, which ignores the stereo image.

A mask gives each channel's bin of the mix to stem and residual by their loudness, and the mix's phase to both. Where
the two come from different places in the stereo image, they can be told apart better: with their powers v and their
spatial covariances R, the stem's share of the mix's channels m is v1 R1 (v1 R1 + v2 R2)^-1 m (N. Q. K. Duong, E.
Vincent and R. Gribonval, "Under-determined reverberant audio source separation using a full-rank spatial covariance
model", IEEE TASLP 2010). Here v and R are estimated from the stem and its residual as the separator left them. v is the
magnitude to a lower exponent than the power's 2 (A. Liutkus and R. Badeau, "Generalized Wiener filtering with
fractional power spectrograms", ICASSP 2015), which returns more of a bin to the weaker of the two: an estimated mask is
more certain than it is right.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .bands import longest_sums, no_sums
from .latent import BandLayout

MEMORY = 512  # frames of the covariances, six seconds
EXPONENT = 0.6  # of the magnitude (docs/experiments.md)
PRIOR = 10.0  # frames of a diffuse signal that are added, so that the first frames decide little
_SUMS = 4
_FLOOR = np.float32(1e-12)
_LOADING = np.float32(1e-3)

WienerState = tuple[np.ndarray, ...]  # the sums over the last frames


@dataclass(frozen=True)
class WienerFilter:
    """Packed left/right spectra of stem, residual and mix (B, 2, F, N), frame by frame, with MEMORY frames of memory.
    The spatial covariances are real: a level in each channel, and a sign."""

    layout: BandLayout = field(default_factory=BandLayout)

    def start(self, batch: int) -> WienerState:
        """State before the first frame: silence."""
        return no_sums((2 * batch, _SUMS, self.layout.bands), MEMORY)

    def measure(self, stem: np.ndarray, residual: np.ndarray, state: WienerState) -> tuple[np.ndarray, WienerState]:
        """Spatial covariances (2, B, 3, K, N) of stem and residual over the last frames in each band: left, right and
        cross term, with a trace of 1; and the state after these frames. Non-finite values count as silence."""
        batch, _, _, frames = stem.shape
        values = np.stack([self._products(stem), self._products(residual)])
        found, after = longest_sums(values.reshape(2 * batch, _SUMS, self.layout.bands, frames), state)
        left, right, shared, count = np.moveaxis(found.reshape(2, batch, _SUMS, self.layout.bands, frames), 2, 0)
        known = count / (np.float32(PRIOR) + count)
        scale = known / np.maximum(left + right, _FLOOR)
        even = np.float32(0.5) * (1 - known)
        return np.stack([scale * left + even, scale * right + even, scale * shared], axis=2), after

    def correction(self, stem: np.ndarray, mix: np.ndarray, covariances: np.ndarray) -> np.ndarray:
        """The filter's estimate of the stem minus the stem: (B, 2, F, N), finite."""
        weights = [self._weights(audio) for audio in (stem, mix - stem)]
        (a, b, shared), other = (
            (v * np.repeat(r, self.layout.widths, axis=2)).transpose(1, 0, 2, 3)
            for v, r in zip(weights, covariances, strict=True)
        )
        whole_a, whole_b, whole_shared = a + other[0], b + other[1], shared + other[2]
        # A little of a diffuse signal is added, half of it to the stem, so that there is an inverse.
        loading = _LOADING * (whole_a + whole_b)
        a, b, whole_a, whole_b = a + loading / 2, b + loading / 2, whole_a + loading, whole_b + loading
        scale = 1 / (whole_a * whole_b - whole_shared * whole_shared)
        left, right = mix[:, 0] * scale, mix[:, 1] * scale
        out = np.empty_like(stem)
        out[:, 0] = (a * whole_b - shared * whole_shared) * left + (shared * whole_a - a * whole_shared) * right
        out[:, 1] = (shared * whole_b - b * whole_shared) * left + (b * whole_a - shared * whole_shared) * right
        out -= stem
        out[~np.isfinite(out)] = 0.0
        return out

    def _products(self, audio: np.ndarray) -> np.ndarray:
        """(B, 2, F, N) to the powers of left and right, their cross term, and 1 where there is any signal, by bands
        (B, 4, K, N)."""
        power = np.square(audio.real) + np.square(audio.imag)
        shared = audio[:, 0].real * audio[:, 1].real + audio[:, 0].imag * audio[:, 1].imag
        sums = self.layout.sum(np.stack([power[:, 0], power[:, 1], shared], axis=1))
        sums.transpose(0, 2, 3, 1)[~np.isfinite(sums).all(axis=1)] = 0.0
        return np.concatenate([sums, sums[:, :2].sum(axis=1, keepdims=True) > _FLOOR], axis=1, dtype=np.float32)

    def _weights(self, audio: np.ndarray) -> np.ndarray:
        """(B, 2, F, N) to the fractional power of each bin (B, 1, F, N)."""
        power = np.square(audio.real) + np.square(audio.imag)
        found: np.ndarray = (np.float32(0.5) * power.sum(axis=1, keepdims=True) + _FLOOR) ** np.float32(EXPONENT / 2)
        return found

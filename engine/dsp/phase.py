"""Phase measures without unwrapping: products of neighbouring complex values, whose angle is a wrapped difference."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .latent import BandLayout


@dataclass(frozen=True)
class PhaseState:
    """The last frame of the spectrum (..., F, 1)."""

    last: np.ndarray


def start_phase(shape: tuple[int, ...]) -> PhaseState:
    """State before the first frame of a spectrum (..., F, N); `shape` is (..., F)."""
    return PhaseState(np.zeros((*shape, 1), np.complex64))


def _band_mean(values: np.ndarray, layout: BandLayout) -> np.ndarray:
    """Mean over the bins of each band: (..., F, N) to (..., K, N)."""
    parts, start = [], 0
    for count, width in layout.runs:
        run = values[..., start : start + count * width, :]
        parts.append(run.reshape(*run.shape[:-2], count, width, run.shape[-1]).mean(axis=-2))
        start += count * width
    return np.concatenate(parts, axis=-2)


def phase_coherence(
    spectrum: np.ndarray, layout: BandLayout, state: PhaseState
) -> tuple[np.ndarray, np.ndarray, PhaseState]:
    """How well the phase of each band keeps step in time and over frequency.

    spectrum (..., F, N) complex -> (temporal, spectral), each (..., K, N) in 0..1, and the next state. Temporal:
    resultant length of the phase advance over one hop (the instantaneous frequency, which all bins of one partial
    share), 1 where one steady partial fills the band. Spectral: resultant length of the phase step from bin to bin
    (the group delay), 1 for a single impulse. Both weight by magnitude (mean resultant length: Fisher, Statistical
    Analysis of Circular Data, 1993).
    """
    unit = spectrum / np.maximum(np.abs(spectrum), np.float32(1e-12))
    root = np.sqrt(np.abs(spectrum))
    flat = unit * root
    before = np.concatenate([state.last, flat[..., :-1]], axis=-1)
    in_time = flat * before.conj()
    above = np.concatenate([flat[..., 1:, :], flat[..., -1:, :]], axis=-2)
    in_frequency = above * flat.conj()
    floor = np.float32(1e-7)
    temporal = np.abs(_band_mean(in_time, layout)) / (_band_mean(np.abs(in_time), layout) + floor)
    spectral = np.abs(_band_mean(in_frequency, layout)) / (_band_mean(np.abs(in_frequency), layout) + floor)
    return temporal.astype(np.float32), spectral.astype(np.float32), PhaseState(flat[..., -1:])

"""Simulated faults of separated stems: each damages a true stem, with the rest of its mix and a severity as inputs.

Every simulator takes (stem, rest, severity, rng): the stem and the rest of the mix, (2, T) float32 at 44.1 kHz, a
severity from 0 to 1, and the only source of randomness. It returns a new array of the same shape; at severity 0 that is
a copy of the stem.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pedalboard

from ...dsp.stft import Stft, StftConfig, whole_istft, whole_stft
from ..faults.grid import zero_phase
from .sources import SAMPLE_RATE

Simulator = Callable[[np.ndarray, np.ndarray, float, np.random.Generator], np.ndarray]


def musical_noise(stem: np.ndarray, rest: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Residue of spectral subtraction: short islands of the rest, scattered in time and frequency, and holes in the
    stem's quiet bins (Berouti, Schwartz and Makhoul, Enhancement of speech corrupted by acoustic noise, 1979; Cappe,
    Elimination of the musical noise phenomenon with the Ephraim and Malah noise suppressor, 1994)."""
    if severity == 0.0:
        return stem.copy()
    stft = Stft(StftConfig(2048, 512))
    x, r = whole_stft(stft, stem), whole_stft(stft, rest)
    power_x, power_r = (np.mean(np.abs(s) ** 2, axis=0) for s in (x, r))
    # The noise estimate is off by a chi-square variable with few degrees of freedom, as a periodogram is.
    degrees = 2
    error = rng.chisquare(degrees, power_x.shape) / degrees
    mixed = power_x + power_r + 1e-12
    over = 1.0 + 2.0 * severity
    gain = np.sqrt(np.clip(1.0 - over * error * _smooth(power_r) / mixed, 0.0, 1.0)) * np.ones_like(error)
    islands = gain * (rng.random(gain.shape) < 0.08 + 0.10 * severity)
    holes = np.where(gain > 0.05, 1.0, 1.0 - severity)
    level = 10 ** ((-16.0 + 16.0 * severity) / 20)
    return whole_istft(stft, (x * holes + level * r * islands).astype(np.complex64), stem.shape[1])


def bleed(stem: np.ndarray, rest: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """The rest leaks in at -30 to -6 dB, through a smooth random frequency response."""
    if severity == 0.0:
        return stem.copy()
    level = 10 ** ((-30.0 + 24.0 * severity) / 20)
    knots = np.geomspace(60.0, 20000.0, 7)
    shape_db = rng.normal(0.0, 4.0, len(knots))

    def response(frequency_hz: np.ndarray) -> np.ndarray:
        return level * 10 ** (np.interp(np.log(frequency_hz + 1.0), np.log(knots), shape_db) / 20)

    return (stem + zero_phase(rest, response)).astype(np.float32)


def phasiness(stem: np.ndarray, rest: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Loss of phase coherence: each bin's phase follows a random walk over the frames, independent of its neighbours
    and partly of the other channel (vertical phase coherence: Laroche and Dolson, Improved phase vocoder time-scale
    modification of audio, 1999)."""
    if severity == 0.0:
        return stem.copy()
    stft = Stft(StftConfig(2048, 512))
    x = whole_stft(stft, stem)
    common = rng.normal(0.0, 1.0, x.shape[1:])
    separate = rng.normal(0.0, 1.0, x.shape)
    step = severity * (0.8 * common + 0.6 * separate)
    walk = np.zeros(x.shape)
    for n in range(1, x.shape[-1]):  # a leaky walk, so that the phase stays near the true one
        walk[..., n] = 0.8 * walk[..., n - 1] + step[..., n]
    return whole_istft(stft, (x * np.exp(1j * walk)).astype(np.complex64), stem.shape[1])


def smeared_transients(stem: np.ndarray, rest: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Attacks spread over a window of 93 or 186 ms, before and after: the phases of a transform of that length are
    disturbed, as by its coarse quantisation (pre-echo: Painter and Spanias, Perceptual coding of digital audio,
    2000)."""
    if severity == 0.0:
        return stem.copy()
    n_fft = int(rng.choice([4096, 8192]))
    stft = Stft(StftConfig(n_fft, n_fft // 4))
    x = whole_stft(stft, stem)
    rotation = rng.uniform(-np.pi, np.pi, x.shape[1:])
    spread = x * np.exp(1j * rotation) * np.float32(1.5)  # makes up for the loss of incoherent overlap
    amount = 0.25 + 0.55 * severity
    # Steady partials keep their phase; only what changes from frame to frame is spread.
    change = np.abs(np.diff(np.abs(x), axis=-1, prepend=0.0)) / (np.abs(x) + 1e-9)
    weight = amount * np.clip(1.5 * change, 0.0, 1.0)
    return whole_istft(stft, ((1.0 - weight) * x + weight * spread).astype(np.complex64), stem.shape[1])


def dull_highs(stem: np.ndarray, rest: np.ndarray, severity: float, rng: np.random.Generator) -> np.ndarray:
    """Missing highs above 14 to 4 kHz: a brick-wall filter (as in separators), a slope, or a low-rate codec (LAME,
    through pedalboard)."""
    if severity == 0.0:
        return stem.copy()
    kind = rng.choice(["wall", "slope", "codec"])
    if kind == "codec":
        decoded = pedalboard.MP3Compressor(vbr_quality=2.0 + 7.5 * severity)(stem, SAMPLE_RATE, reset=True)
        return np.asarray(decoded, np.float32)
    cutoff_hz = 14000.0 * (4000.0 / 14000.0) ** severity
    width = 0.02 if kind == "wall" else 0.35  # octaves over which the level falls by 60 dB

    def response(frequency_hz: np.ndarray) -> np.ndarray:
        octaves = np.log2((frequency_hz + 1.0) / cutoff_hz)
        return 10 ** (-60.0 * np.clip(octaves / width, 0.0, 1.5) / 20)

    return zero_phase(stem, response)


SIMULATORS: dict[str, Simulator] = {
    "musical-noise": musical_noise,
    "bleed": bleed,
    "phasiness": phasiness,
    "smeared-transients": smeared_transients,
    "dull-highs": dull_highs,
}


def _smooth(power: np.ndarray, frames: int = 20, bins: int = 8) -> np.ndarray:
    """Moving average of (F, N) over frames and bins."""
    for axis, width in ((1, frames), (0, bins)):
        padded = np.pad(power, [(width, width) if a == axis else (0, 0) for a in (0, 1)], mode="edge")
        total = np.cumsum(padded, axis=axis)
        high = np.take(total, np.arange(2 * width, total.shape[axis]), axis=axis)
        low = np.take(total, np.arange(0, total.shape[axis] - 2 * width), axis=axis)
        power = (high - low) / (2 * width)
    return power

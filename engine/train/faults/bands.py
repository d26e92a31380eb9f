"""Lost bands: low-pass filters, resampling, and codecs."""

from __future__ import annotations

import numpy as np
import pedalboard
import soxr

from ...constants import MODEL_RATE
from ...dsp.codec import decode, encode
from .grid import Grid, curve, filtered, smoothed, some_hz
from .registry import mechanism


@mechanism("bands")
def wall(stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Nothing above a frequency."""
    hz = some_hz(rng, 2500.0, 18000.0)
    floor_db = -90.0 if rng.random() < 0.7 else float(rng.uniform(-60.0, -20.0))
    return filtered(stem, np.array([0.0, floor_db]), np.array([hz, hz * (1.0 + rng.uniform(0.005, 0.1))]))


@mechanism("bands")
def slope(stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Falls from a frequency on, or sags in the middle."""
    hz, depth_db = some_hz(rng, 800.0, 14000.0), float(rng.uniform(6.0, 60.0))
    octaves = float(rng.uniform(0.3, 3.0))
    return filtered(stem, np.array([0.0, -depth_db]), np.array([hz, hz * 2.0**octaves]))


@mechanism("bands")
def flicker(stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A wall whose frequency changes from frame to frame."""
    grid = Grid.draw(rng, largest=4096)
    x = grid.forward(stem)
    middle, width = some_hz(rng, 4000.0, 16000.0), float(rng.uniform(0.05, 0.6))
    wander = smoothed(rng.standard_normal((x.shape[-2], 1)), int(2 ** rng.uniform(0, 4)), 1)
    cutoff = middle * 2.0 ** (width * wander / (wander.std() + 1e-9))
    return grid.inverse(x * (grid.hz[None] < cutoff), stem.shape[-1])


@mechanism("bands")
def band_holes(stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Bands that go missing for a while, the quiet ones first."""
    grid = Grid.draw(rng, largest=4096)
    x = grid.forward(stem)
    lowest = some_hz(rng, 1000.0, 10000.0)
    edges = np.unique(np.round(np.geomspace(lowest, 22050.0, int(rng.integers(6, 25))) / grid.hz[1]).astype(int))
    power = np.add.reduceat(np.square(np.abs(x)).mean(axis=0), np.minimum(edges, x.shape[-1] - 1), axis=1)
    power = smoothed(power, int(2 ** rng.uniform(0, 4)), 1)
    limit = np.quantile(power, rng.uniform(0.1, 0.7), axis=0) * 10 ** (0.2 * rng.standard_normal(power.shape))
    kept = np.repeat(power > limit, np.diff(np.append(edges, x.shape[-1])), axis=1)
    gain = np.ones(x.shape[-2:], np.float32)
    gain[:, x.shape[-1] - kept.shape[1] :] = np.maximum(kept, 10 ** rng.uniform(-4, -0.5))
    return grid.inverse(x * gain, stem.shape[-1])


@mechanism("bands")
def resampled(stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """To a lower rate and back."""
    rate = int(rng.choice([11025, 16000, 22050, 24000, 32000]))
    quality = str(rng.choice(["QQ", "LQ", "MQ", "HQ"]))
    low = soxr.resample(stem.T, MODEL_RATE, rate, quality=quality)
    return fit(soxr.resample(low, rate, MODEL_RATE, quality="HQ").T, stem)


@mechanism("bands")
def mp3(stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """LAME at any constant rate, or by quality."""
    if rng.random() < 0.5:
        coded = pedalboard.MP3Compressor(vbr_quality=float(rng.uniform(2.0, 9.9)))
        return fit(coded(np.ascontiguousarray(stem, np.float32), MODEL_RATE, reset=True), stem)
    settings = {"bitrate_mode": "CONSTANT", "compression_level": float(rng.uniform(0.3, 0.95))}
    return _through(stem, "MP3", "MPEG_LAYER_III", MODEL_RATE, **settings)


@mechanism("bands")
def vorbis(stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Ogg Vorbis."""
    return _through(stem, "OGG", "VORBIS", MODEL_RATE, compression_level=float(rng.uniform(0.4, 1.0)))


@mechanism("bands")
def coarse_bands(stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Coefficients rounded with a step for each band, as any transform codec does."""
    grid = Grid.draw(rng, smallest=512, largest=4096)
    x = grid.forward(stem)
    power = smoothed(np.square(np.abs(x)), 1, int(rng.integers(8, 60)))
    ratio_db = curve(rng, x.shape[-1], 6, -10.0, 25.0) + float(rng.uniform(-5.0, 8.0))
    step = np.sqrt(power) * 10 ** (-ratio_db / 20) + 1e-6
    return grid.inverse((np.round(x.real / step) + 1j * np.round(x.imag / step)) * step, stem.shape[-1])


@mechanism("bands", unknown=True)
def opus(stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Opus, which codes at 48 kHz."""
    return _through(stem, "OGG", "OPUS", 48000, compression_level=float(rng.uniform(0.5, 1.0)))


@mechanism("bands", unknown=True)
def narrow_band(stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A telephone's band, or one with a resonance: lows and highs lost at once."""
    low, high = some_hz(rng, 40.0, 400.0), some_hz(rng, 3000.0, 12000.0)
    steep = float(rng.uniform(0.2, 1.5))
    hz = np.array([low * 2.0**-steep, low, high, high * 2.0**steep])
    return filtered(stem, np.array([-50.0, 0.0, float(rng.uniform(-3.0, 3.0)), -60.0]), hz)


@mechanism("bands", unknown=True)
def comb(stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An echo of less than 3 ms that cancels frequencies at equal distances."""
    by, depth = int(some_hz(rng, 4.0, 130.0)), float(rng.choice([-1, 1]) * rng.uniform(0.3, 0.95))
    echo = np.pad(stem, ((0, 0), (by, 0)))[:, : stem.shape[-1]]
    return ((stem + depth * echo) / (1.0 + depth**2)).astype(np.float32)


def fit(audio: np.ndarray, stem: np.ndarray) -> np.ndarray:
    """Cut or padded to the stem's length (C, T)."""
    length = stem.shape[-1]
    padded = np.pad(audio, ((0, 0), (0, max(0, length - audio.shape[-1]))))
    return np.ascontiguousarray(padded[:, :length], np.float32)


def _through(stem: np.ndarray, container: str, subtype: str, rate: int, **settings: object) -> np.ndarray:
    """Through a codec of libsndfile, at the stem's own level."""
    peak = max(1.0, float(np.abs(stem).max()))
    return fit(peak * decode(encode(stem / peak, container, subtype, rate, **settings)), stem)

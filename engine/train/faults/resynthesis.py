"""Sound that was made anew from a description of itself."""

from __future__ import annotations

import numpy as np

from ...constants import MODEL_RATE
from ..corpus.singers import world_vocoder
from .bands import fit
from .grid import Grid, smoothed, some_hz
from .registry import mechanism


@mechanism("resynthesis")
def world(stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The WORLD vocoder (Morise, Yokomori and Ozawa, 2016), on the middle of the stem."""
    pyworld = world_vocoder()
    mono = stem.mean(axis=0).astype(np.float64)
    f0, at = pyworld.dio(mono, MODEL_RATE, frame_period=float(rng.choice([5.0, 8.0])))
    envelope = pyworld.cheaptrick(mono, f0, at, MODEL_RATE)
    rough = pyworld.d4c(mono, f0, at, MODEL_RATE)
    again = pyworld.synthesize(f0, envelope, rough, MODEL_RATE, frame_period=float(1000 * (at[1] - at[0])))
    made = fit(again[None].astype(np.float32), stem[:1])
    share = float(rng.uniform(0.3, 1.0))
    return (stem + share * (made - mono.astype(np.float32))).astype(np.float32)


@mechanism("resynthesis")
def strongest_partials(stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The loudest bins of each frame alone."""
    grid = Grid.draw(rng, smallest=1024)
    x = grid.forward(stem)
    power = np.abs(x)
    limit = np.quantile(power[..., ::3], float(rng.uniform(0.5, 0.97)), axis=-1, keepdims=True)
    return grid.inverse(np.where(power >= limit, x, np.float32(10 ** rng.uniform(-4, -1)) * x), stem.shape[-1])


@mechanism("resynthesis")
def noise_for_detail(stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise of the same power in place of what lies above a frequency, as codecs do at low rates."""
    grid = Grid.draw(rng, largest=4096)
    x = grid.forward(stem)
    power = smoothed(np.square(np.abs(x)), int(rng.integers(1, 6)), int(rng.integers(4, 30)))
    noise = rng.standard_normal(x.shape) + 1j * rng.standard_normal(x.shape)
    made = np.sqrt(power / 2) * noise
    above = grid.hz > some_hz(rng, 2000.0, 12000.0)
    return grid.inverse(np.where(above, made, x).astype(np.complex64), stem.shape[-1])


@mechanism("resynthesis", unknown=True)
def copied_band(stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Highs that are copies of lower bands with the right envelope (spectral band replication)."""
    grid = Grid.draw(rng, smallest=1024, largest=4096)
    x = grid.forward(stem)
    first = int(np.searchsorted(grid.hz, float(rng.uniform(4000.0, 10000.0))))
    places = np.arange(first, x.shape[-1])
    source = first - 1 - (places - first) % max(first // 2, 1)
    power = smoothed(np.square(np.abs(x)), 4, 16) + 1e-12
    y = x.copy()
    y[..., first:] = x[..., source] * np.sqrt(power[..., first:] / power[..., source])
    return grid.inverse(y, stem.shape[-1])

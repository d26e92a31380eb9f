"""What a separator's mask leaves: holes, islands and the mix's phase."""

from __future__ import annotations

import numpy as np

from .grid import Grid, curve, smoothed
from .registry import mechanism


def _estimates(
    stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator
) -> tuple[Grid, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Spectra of stem and rest, and their powers as a separator may estimate them: smeared over time or frequency, and
    off by as many decibels as the draw says, in patches of any size."""
    grid = Grid.draw(rng)
    x, r = grid.forward(stem), grid.forward(rest)
    frames, bins = (int(2 ** rng.uniform(0.0, most)) for most in (4.0, 4.0))
    powers = []
    for spectrum in (x, r):
        power = np.square(np.abs(spectrum))
        power = smoothed(power, frames, bins) if rng.random() < 0.7 else power
        error_db = rng.standard_normal(power.shape).astype(np.float32)
        patch = int(2 ** rng.uniform(0.0, 4.0)), int(2 ** rng.uniform(0.0, 5.0))
        error_db = smoothed(error_db, *patch) * np.sqrt(float(patch[0] * patch[1]))
        powers.append(power * 10 ** (float(rng.uniform(0.0, 8.0)) * error_db / 10) + 1e-10)
    return grid, x, r, powers[0], powers[1]


def _masked(x: np.ndarray, r: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What the mask is applied to: the mix, or the stem's own magnitudes and phases where it was right about them."""
    return x + r if rng.random() < 0.75 else x


@mechanism("masks")
def ratio_mask(stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A soft mask of estimated powers, with any exponent."""
    grid, x, r, p, q = _estimates(stem, rest, rng)
    exponent = float(rng.uniform(0.5, 2.0))
    mask = p**exponent / (p**exponent + q**exponent)
    return grid.inverse(mask * _masked(x, r, rng), stem.shape[-1])


@mechanism("masks")
def binary_mask(stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """All or nothing, with a floor and a threshold."""
    grid, x, r, p, q = _estimates(stem, rest, rng)
    threshold, floor = 10 ** (rng.uniform(-10, 10) / 10), 10 ** (rng.uniform(-60, -6) / 20)
    mask = np.where(p > threshold * q, 1.0, floor).astype(np.float32)
    return grid.inverse(mask * _masked(x, r, rng), stem.shape[-1])


@mechanism("masks")
def over_subtraction(stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Spectral subtraction of too much (Berouti, Schwartz and Makhoul, 1979)."""
    grid, x, r, _, q = _estimates(stem, rest, rng)
    power = np.square(np.abs(x + r)) + 1e-10
    gain = np.clip(1.0 - float(rng.uniform(0.5, 4.0)) * q / power, 10 ** rng.uniform(-6, -1.5), 1.0)
    return grid.inverse(np.sqrt(gain).astype(np.float32) * (x + r), stem.shape[-1])


@mechanism("masks")
def flipped_bins(stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Single bins, or small groups, that go to the wrong side: holes in the stem and islands of the rest."""
    grid = Grid.draw(rng, largest=8192)
    x, r = grid.forward(stem), grid.forward(rest)
    noise = rng.standard_normal(x.shape[-2:]).astype(np.float32)
    size = int(rng.choice([1, 1, 2, 3, 5])), int(rng.choice([1, 1, 2, 4]))
    noise = smoothed(noise, *size)
    holes = noise < np.quantile(noise[::3, ::3], rng.uniform(0.0, 0.3))
    islands = noise > np.quantile(noise[::3, ::3], rng.uniform(0.7, 1.0))
    depth, level = float(rng.uniform(0.3, 1.0)), float(rng.uniform(0.1, 1.0))
    return grid.inverse(x * (1.0 - np.float32(depth) * holes) + np.float32(level) * r * islands, stem.shape[-1])


@mechanism("masks")
def held_mask(stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A right mask that is only renewed now and then, and is the same for neighbouring bins."""
    grid = Grid.draw(rng, largest=4096)
    x, r = grid.forward(stem), grid.forward(rest)
    p, q = np.square(np.abs(x)), np.square(np.abs(r))
    frames, bins = int(rng.integers(1, 12)), int(2 ** rng.uniform(0, 4))
    at_frames = np.arange(p.shape[-2]) // frames * frames
    at_bins = np.arange(p.shape[-1]) // bins * bins
    held = (p / (p + q + 1e-10))[..., at_frames, :][..., at_bins]
    return grid.inverse(held * (x + r), stem.shape[-1])


@mechanism("masks")
def decision_directed(stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A Wiener gain from a noise estimate that follows slowly (Ephraim and Malah, 1984)."""
    grid = Grid.draw(rng, largest=4096)
    x, r = grid.forward(stem), grid.forward(rest)
    power = np.square(np.abs(x + r)) + 1e-10
    noise = smoothed(np.square(np.abs(r)), int(rng.integers(8, 60)), int(rng.integers(1, 12))) + 1e-10
    alpha, over = float(rng.uniform(0.6, 0.98)), float(rng.uniform(0.7, 2.5))
    before = np.zeros_like(power[..., 0, :])
    gain = np.empty_like(power)
    for n in range(power.shape[-2]):
        post = power[..., n, :] / (over * noise[..., n, :])
        prior = alpha * before + (1 - alpha) * np.maximum(post - 1.0, 0.0)
        gain[..., n, :] = prior / (1.0 + prior)
        before = np.square(gain[..., n, :]) * post
    return grid.inverse(np.maximum(gain, 10 ** rng.uniform(-3, -1)) * (x + r), stem.shape[-1])


@mechanism("masks", unknown=True)
def long_window_mask(stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An ideal soft mask on windows so long that attacks smear, its dips filled and its peaks cut."""
    grid = Grid.draw(rng, smallest=8192)
    x, r = grid.forward(stem), grid.forward(rest)
    mask = np.abs(x) / (np.abs(x) + np.abs(r) + 1e-6)
    low, high = float(rng.uniform(0.0, 0.15)), float(rng.uniform(0.7, 1.0))
    return grid.inverse(np.clip(mask, low, high) * (x + r), stem.shape[-1])


@mechanism("masks", unknown=True)
def noise_gate_bands(stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A spectral gate, as a noise reduction plug-in has it: bands of the mix open above a learnt threshold, with attack
    and release."""
    grid = Grid.draw(rng, smallest=1024, largest=4096)
    mix = grid.forward(stem + rest)
    level = 20 * np.log10(np.abs(mix).mean(axis=0) + 1e-6)
    threshold = np.quantile(level, rng.uniform(0.2, 0.7), axis=0) + curve(rng, level.shape[1], 6, -6.0, 6.0)
    opened = 0.5 + 0.5 * np.tanh(0.5 * (level - threshold) / float(rng.uniform(0.5, 4.0)))
    attack, release = float(rng.uniform(0.2, 0.9)), float(rng.uniform(0.02, 0.3))
    gain, state = np.empty_like(opened), opened[0]
    for n in range(len(opened)):
        state = state + np.where(opened[n] > state, attack, release) * (opened[n] - state)
        gain[n] = state
    floor = 10 ** rng.uniform(-3, -0.5)
    return grid.inverse(np.maximum(gain, floor).astype(np.float32) * mix, stem.shape[-1])

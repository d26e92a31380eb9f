"""Faults in time: smeared and soft attacks, gates, clicks and drop-outs, pumping."""

from __future__ import annotations

import numpy as np
import pedalboard

from ...constants import MODEL_RATE
from .grid import Grid, curve, smoothed, some_hz
from .registry import mechanism


@mechanism("times")
def pre_echo(stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Noise of quantisation, which fills long frames and is heard before an attack (Painter and Spanias, 2000)."""
    grid = Grid.draw(rng, smallest=2048)
    x = grid.forward(stem)
    power = smoothed(np.square(np.abs(x)), 1, int(rng.integers(4, 40)))
    step = np.sqrt(power) * 10 ** (float(rng.uniform(-14.0, 6.0)) / 20) + 1e-6
    if rng.random() < 0.5:
        y = (np.round(x.real / step) + 1j * np.round(x.imag / step)) * step
    else:
        y = x + 0.3 * step * (rng.standard_normal(x.shape) + 1j * rng.standard_normal(x.shape))
    return grid.inverse(y.astype(np.complex64), stem.shape[-1])


@mechanism("times")
def spread_attacks(stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """What changes from one long frame to the next loses its phase, so that it spreads over the frame."""
    grid = Grid.draw(rng, smallest=2048)
    x = grid.forward(stem)
    change = np.abs(np.diff(np.abs(x), axis=-2, prepend=0.0)) / (np.abs(x) + 1e-9)
    weight = float(rng.uniform(0.1, 0.9)) * np.clip(1.5 * change, 0.0, 1.0)
    turned = x * np.exp(1j * rng.uniform(-np.pi, np.pi, x.shape[-2:]))
    return grid.inverse(
        ((1.0 - weight) * x + weight * float(rng.uniform(0.7, 1.5)) * turned).astype(np.complex64), stem.shape[-1]
    )


@mechanism("times")
def soft_attacks(stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Magnitudes that rise too slowly."""
    grid = Grid.draw(rng, largest=2048)
    x = grid.forward(stem)
    magnitude, speed = np.abs(x) + 1e-9, float(rng.uniform(0.1, 0.8))
    slow = np.empty_like(magnitude)
    state = magnitude[..., 0, :]
    for n in range(magnitude.shape[-2]):
        now = magnitude[..., n, :]
        state = np.where(now > state, state + speed * (now - state), now)
        slow[..., n, :] = state
    return grid.inverse(x * (slow / magnitude), stem.shape[-1])


@mechanism("times")
def late_gate(stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A gate that opens late and cuts tails."""
    plugin = pedalboard.NoiseGate(
        threshold_db=float(20 * np.log10(np.sqrt(np.mean(stem**2)) + 1e-6) + rng.uniform(-12.0, 3.0)),
        ratio=float(rng.uniform(2.0, 10.0)), attack_ms=float(rng.uniform(2.0, 60.0)),
        release_ms=float(rng.uniform(20.0, 200.0)),
    )  # fmt: skip
    return np.asarray(plugin(np.ascontiguousarray(stem, np.float32), MODEL_RATE), np.float32)


@mechanism("times")
def clicks(stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Steps, spikes and short rings."""
    found, level = stem.copy(), float(np.sqrt(np.mean(stem**2))) + 1e-6
    for _ in range(rng.integers(1, 25)):
        size = int(rng.integers(1, 200))
        at = int(rng.integers(max(1, stem.shape[-1] - size)))
        shape = np.exp(-np.arange(size) / (0.1 * size + 1)) * np.cos(np.arange(size) * rng.uniform(0.0, 2.5))
        found[:, at : at + size] += (rng.choice([-1, 1]) * rng.uniform(0.5, 8.0) * level * shape).astype(np.float32)
    return found


@mechanism("times")
def drop_outs(stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Gaps of up to 60 ms, hard or soft."""
    gain = np.ones(stem.shape[-1], np.float32)
    for _ in range(rng.integers(1, 10)):
        size = int(rng.uniform(0.001, 0.06) * MODEL_RATE)
        at = int(rng.integers(max(1, len(gain) - size)))
        gain[at : at + size] = float(rng.choice([0.0, 0.0, 0.2]))
    return stem * smoothed(gain[:, None], int(rng.choice([1, 30, 300])), 1)[:, 0]


@mechanism("times", unknown=True)
def pumping(stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A limiter on the whole mix, whose gain the stem got as well."""
    mix = stem + rest
    level = np.sqrt(smoothed(np.square(mix).mean(axis=0)[:, None], int(some_hz(rng, 100.0, 8000.0)), 1)[:, 0]) + 1e-9
    limit = np.quantile(level[::64], rng.uniform(0.3, 0.9)) + 1e-6
    gain = np.minimum(1.0, limit / level) ** float(rng.uniform(0.4, 1.0))
    return stem * gain.astype(np.float32)


@mechanism("times", unknown=True)
def repeated_packets(stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Lost packets that were replaced by the ones before them."""
    size, found = int(rng.choice([128, 256, 441, 512, 882, 1024])), stem.copy()
    fade = np.minimum(1.0, np.arange(size, dtype=np.float32) / 32)
    for at in size * np.flatnonzero(rng.random(stem.shape[-1] // size - 1) < rng.uniform(0.005, 0.06)) + size:
        found[:, at : at + size] = fade * stem[:, at - size : at] + (1 - fade) * stem[:, at : at + size]
    return found


@mechanism("times", unknown=True)
def post_echo(stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Magnitudes that fall too slowly: a smear after the sound."""
    grid = Grid.draw(rng, largest=4096)
    x = grid.forward(stem)
    magnitude, keep = np.abs(x) + 1e-9, float(rng.uniform(0.3, 0.9)) ** (grid.hop / 512)
    slow, state = np.empty_like(magnitude), magnitude[..., 0, :]
    for n in range(magnitude.shape[-2]):
        state = np.maximum(magnitude[..., n, :], keep * state)
        slow[..., n, :] = state
    limit = float(rng.uniform(2.0, 20.0)) * (curve(rng, x.shape[-1], 5, 0.2, 1.0))
    return grid.inverse(x * np.minimum(slow / magnitude, limit), stem.shape[-1])

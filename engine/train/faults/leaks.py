"""Bleed: the rest of the song in the stem."""

from __future__ import annotations

import numpy as np
import pedalboard

from ...constants import MODEL_RATE
from .grid import Grid, curve, filtered, smoothed, some_hz
from .registry import mechanism


def _level(stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.float32:
    """A gain that puts the rest 3 to 36 dB below the stem, but never makes it louder than in the song."""
    ratio = np.sqrt((np.mean(stem**2) + 1e-9) / (np.mean(rest**2) + 1e-9))
    return np.float32(min(1.0, ratio * 10 ** (rng.uniform(-36.0, -3.0) / 20)))


def _coloured(rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An equaliser with up to seven random points, and sometimes only what lies above or below a frequency."""
    hz = np.sort([some_hz(rng, 40.0, 18000.0) for _ in range(rng.integers(2, 8))])
    gain_db = rng.normal(0.0, float(rng.uniform(1.0, 8.0)), len(hz))
    if rng.random() < 0.3:
        edge, side = some_hz(rng, 150.0, 6000.0), rng.choice([-1.0, 1.0])
        hz = np.concatenate([hz, edge * 2.0 ** np.linspace(-2, 2, 9)])
        order = np.argsort(hz)
        slope = -12.0 * np.clip(side * np.log2(hz / edge), 0.0, 3.0)
        gain_db = (np.concatenate([gain_db, np.zeros(9)]) + slope)[order]
        hz = hz[order]
    return filtered(rest, gain_db, hz)


@mechanism("leaks")
def plain_bleed(stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Through an equaliser."""
    return stem + _level(stem, rest, rng) * _coloured(rest, rng)


@mechanism("leaks")
def drifting_bleed(stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Level and tone drift."""
    length = rest.shape[-1]
    knots = int(rng.integers(3, 4 + length // (MODEL_RATE // 4)))
    fade = curve(rng, length, knots, 0.0, 1.0)
    leak = fade * _coloured(rest, rng) + (1.0 - fade) * _coloured(rest, rng)
    gain = 10 ** (curve(rng, length, knots, -12.0, 6.0) / 20)
    return stem + _level(stem, rest, rng) * gain * leak


@mechanism("leaks")
def gated_bleed(stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Only where the rest is loud, or where the stem is."""
    width = int(some_hz(rng, 200.0, 6000.0))
    source = (stem if rng.random() < 0.5 else rest).mean(axis=0)
    level = smoothed(np.square(source)[:, None], width, 1)[:, 0]
    threshold = np.quantile(level[::64], rng.uniform(0.2, 0.8)) + 1e-12
    opened = (level / (level + threshold)) ** float(rng.uniform(0.5, 4.0))
    return stem + _level(stem, rest, rng) * opened.astype(np.float32) * _coloured(rest, rng)


@mechanism("leaks")
def reverberant_bleed(stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The room that the rest was in."""
    seconds, length = float(rng.uniform(0.05, 0.8)), rest.shape[-1]
    tail = rng.standard_normal(int(seconds * MODEL_RATE)) * np.exp(-6.9 * np.linspace(0, 1, int(seconds * MODEL_RATE)))
    tail[: int(rng.uniform(0.0, 0.03) * MODEL_RATE)] = 0.0
    size = 1 << int(np.ceil(np.log2(length + len(tail))))
    wet = np.fft.irfft(np.fft.rfft(rest, size) * np.fft.rfft(tail / np.linalg.norm(tail), size), size)[..., :length]
    dry = float(rng.uniform(0.0, 1.0))
    return stem + _level(stem, rest, rng) * _coloured((wet + dry * rest).astype(np.float32), rng)


@mechanism("leaks")
def late_bleed(stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A few samples early or late."""
    by = int(rng.choice([-1, 1])) * int(some_hz(rng, 1.0, 200.0))
    leak = np.roll(_coloured(rest, rng), by, axis=-1)
    leak[..., : max(by, 0)] = 0.0
    leak[..., leak.shape[-1] + min(by, 0) :] = 0.0
    return stem + _level(stem, rest, rng) * leak


@mechanism("leaks", together=True)
def panned_bleed(stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """In mono, in one channel, or with left and right crossed."""
    kind = rng.integers(3)
    leak = _coloured(rest, rng)
    if kind == 0:
        leak = np.repeat(leak.mean(axis=0, keepdims=True), len(leak), axis=0)
    elif kind == 1:
        leak = leak * rng.permutation([1.0] + [float(rng.uniform(0.0, 0.2))] * (len(leak) - 1))[:, None]
    else:
        leak = leak[::-1]
    return (stem + _level(stem, rest, rng) * leak).astype(np.float32)


@mechanism("leaks", unknown=True)
def ducked_bleed(stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Louder in the stem's pauses and between its partials: a mask that lets through what it is not sure about."""
    grid = Grid.draw(rng, largest=8192)
    x, r = grid.forward(stem), grid.forward(rest)
    power = smoothed(np.square(np.abs(x)), int(rng.integers(1, 20)), int(rng.integers(1, 10)))
    gain = (1.0 + power / (np.square(np.abs(r)) + 1e-8)) ** -float(rng.uniform(0.3, 1.5))
    return stem + np.float32(3.0) * _level(stem, rest, rng) * grid.inverse(gain * r, stem.shape[-1])


@mechanism("leaks", unknown=True)
def modulated_bleed(stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Through a chorus or a phaser, so that it is no longer what the mix holds."""
    if rng.random() < 0.5:
        plugin: pedalboard.Plugin = pedalboard.Chorus(
            rate_hz=float(rng.uniform(0.2, 3.0)), depth=float(rng.uniform(0.05, 0.4)), mix=1.0
        )
    else:
        plugin = pedalboard.Phaser(rate_hz=float(rng.uniform(0.2, 3.0)), depth=float(rng.uniform(0.2, 0.8)), mix=0.7)
    leak = plugin(np.ascontiguousarray(rest, np.float32), MODEL_RATE)
    return stem + _level(stem, rest, rng) * _coloured(leak, rng)

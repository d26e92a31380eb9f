"""Phases that do not belong to their magnitudes."""

from __future__ import annotations

import numpy as np
import pedalboard

from ...constants import MODEL_RATE
from .bands import fit
from .grid import Grid, curve, smoothed
from .registry import mechanism


def _turned(x: np.ndarray, angle: np.ndarray) -> np.ndarray:
    return (x * np.exp(1j * angle)).astype(np.complex64)


def _over_bins(rng: np.random.Generator, bins: int) -> np.ndarray:
    """How much each bin is hit (F,): all alike, or more towards one end."""
    return curve(rng, bins, int(rng.integers(2, 8)), 0.0, 1.0) if rng.random() < 0.6 else np.ones(bins, np.float32)


@mechanism("phases")
def mix_phase(stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The stem's magnitudes with the mix's phase, or a part of the way to it."""
    grid = Grid.draw(rng)
    x = grid.forward(stem)
    angle = np.angle((x + grid.forward(rest)) * x.conj())
    share = float(rng.uniform(0.3, 1.0)) if rng.random() < 0.5 else 1.0
    return grid.inverse(_turned(x, share * angle * _over_bins(rng, x.shape[-1])), stem.shape[-1])


@mechanism("phases")
def phase_noise(stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Independent errors, or ones that neighbours share."""
    grid = Grid.draw(rng)
    x = grid.forward(stem)
    noise = rng.standard_normal(x.shape[-2:]).astype(np.float32)
    size = int(2 ** rng.uniform(0, 4)), int(2 ** rng.uniform(0, 4))
    noise = smoothed(noise, *size)
    noise *= float(rng.uniform(0.1, 1.5)) / (noise.std() + 1e-9)
    return grid.inverse(_turned(x, noise * _over_bins(rng, x.shape[-1])), stem.shape[-1])


@mechanism("phases")
def phase_walk(stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each bin's phase drifts from frame to frame, and is pulled back more or less."""
    grid = Grid.draw(rng, largest=8192)
    x = grid.forward(stem)
    step = rng.standard_normal(x.shape[-2:]).astype(np.float32)
    step = smoothed(step, 1, int(2 ** rng.uniform(0, 5)))
    step *= float(rng.uniform(0.05, 0.8)) / (step.std() + 1e-9)
    keep, walk = float(rng.uniform(0.6, 0.995)), np.zeros(x.shape[-1], np.float32)
    angle = np.empty_like(step)
    for n in range(len(step)):
        walk = keep * walk + step[n]
        angle[n] = walk
    return grid.inverse(_turned(x, angle * _over_bins(rng, x.shape[-1])), stem.shape[-1])


@mechanism("phases")
def phase_steps(stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Phases rounded to a few values, as a coarse code has them."""
    grid = Grid.draw(rng)
    x = grid.forward(stem)
    step = 2 * np.pi / float(rng.choice([2, 3, 4, 6, 8, 12]))
    angle = np.angle(x)
    wrong = np.round(angle / step) * step - angle
    return grid.inverse(_turned(x, wrong * _over_bins(rng, x.shape[-1])), stem.shape[-1])


@mechanism("phases")
def all_pass(stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A fixed or slowly moving turn of each band."""
    grid = Grid.draw(rng, largest=8192)
    x = grid.forward(stem)
    bands, amount = int(rng.integers(3, 20)), float(rng.uniform(0.3, 2.0))
    angle = curve(rng, x.shape[-1], bands, -amount, amount)[None]
    if rng.random() < 0.5:
        angle = angle * curve(rng, x.shape[-2], int(rng.integers(2, 8)), -1.0, 1.0)[:, None]
    return grid.inverse(_turned(x, angle), stem.shape[-1])


@mechanism("phases")
def pitch_round_trip(stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Transposed by a phase vocoder and back."""
    semitones = float(rng.choice([-1, 1]) * rng.uniform(0.3, 5.0))
    audio = np.ascontiguousarray(stem, np.float32)
    for by in (semitones, -semitones):
        audio = pedalboard.time_stretch(audio, MODEL_RATE, 1.0, by, high_quality=False)
    return _fitted(audio, stem)


@mechanism("phases", unknown=True)
def stretch_round_trip(stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Stretched by a phase vocoder and back."""
    factor = float(np.exp(rng.choice([-1, 1]) * rng.uniform(0.05, 0.5)))
    audio = pedalboard.time_stretch(np.ascontiguousarray(stem, np.float32), MODEL_RATE, factor, high_quality=False)
    return _fitted(pedalboard.time_stretch(audio, MODEL_RATE, 1.0 / factor, high_quality=False), stem)


@mechanism("phases", unknown=True)
def griffin_lim(stem: np.ndarray, rest: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Magnitudes alone, from which a few rounds of Griffin and Lim (1984) find phases, beginning near the right ones or
    the mix's."""
    grid = Grid.draw(rng, smallest=1024, largest=4096)
    x = grid.forward(stem)
    start = x if rng.random() < 0.5 else x + grid.forward(rest)
    noise = float(rng.uniform(0.5, 3.0)) * rng.standard_normal(x.shape).astype(np.float32)
    guess, magnitude = np.exp(1j * (np.angle(start) + noise)), np.abs(x)
    for _ in range(rng.integers(2, 12)):
        again = grid.forward(grid.inverse((magnitude * guess).astype(np.complex64), stem.shape[-1]))
        guess = again / (np.abs(again) + 1e-9)
    return grid.inverse((magnitude * guess).astype(np.complex64), stem.shape[-1])


def _fitted(audio: np.ndarray, stem: np.ndarray) -> np.ndarray:
    """Cut or padded to the stem's length, and moved by the few samples at which it is most like it."""
    audio, length = fit(audio, stem), stem.shape[-1]
    size = 1 << int(np.ceil(np.log2(2 * length)))
    cross = np.fft.rfft(stem.sum(axis=0), size).conj() * np.fft.rfft(audio.sum(axis=0), size)
    lags = np.fft.irfft(cross, size)
    reach = 2048
    near = np.concatenate([lags[-reach:], lags[: reach + 1]])
    by = int(np.argmax(near)) - reach
    moved = np.roll(audio, -by, axis=-1)
    moved[:, length - max(by, 0) :] = 0.0
    moved[:, : max(-by, 0)] = 0.0
    return moved

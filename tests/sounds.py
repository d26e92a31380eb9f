"""Test signals."""

from __future__ import annotations

import numpy as np


def noise(seconds: float, rate: int, channels: int = 2, seed: int = 0) -> np.ndarray:
    """White noise (C, T)."""
    rng = np.random.default_rng(seed)
    return (0.2 * rng.standard_normal((channels, round(seconds * rate)))).astype(np.float32)


def tones(seconds: float, rate: int) -> np.ndarray:
    """A sine in each channel (2, T): a resampler changes them only by its ripple."""
    time_s = np.arange(round(seconds * rate)) / rate
    return np.stack([0.2 * np.sin(2 * np.pi * f * time_s) for f in (440.0, 1250.0)]).astype(np.float32)

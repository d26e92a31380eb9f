"""One number for a file."""

from __future__ import annotations

import numpy as np


def file_scores(severities: np.ndarray) -> np.ndarray:
    """Severities (5, K, N) to scores (5,) in 0..1: the mean over bands and over the frames in which anything sounds."""
    sounding = severities.any(axis=(0, 1))
    if not sounding.any():
        return np.zeros(len(severities))
    return severities[..., sounding].mean(axis=(1, 2), dtype=np.float64)

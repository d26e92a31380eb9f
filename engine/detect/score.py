"""One number for a file and type."""

from __future__ import annotations

import numpy as np

#: Power of the severities that a score is the mean of, in the order of bank.TYPES. Musical noise, bleed and phasiness
#: are spread over the bands. Lost highs and soft attacks may be few cells that are sure, which the cube tells from many
#: that are doubtful, as a naturally dark or soft instrument has.
POWERS = np.array([1.0, 1.0, 1.0, 3.0, 3.0])


def raised(severities: np.ndarray) -> np.ndarray:
    """Severities (5, ...), each to the power of its type."""
    return severities ** POWERS.reshape(-1, *[1] * (severities.ndim - 1))


def file_scores(severities: np.ndarray) -> np.ndarray:
    """Severities (5, K, N) to scores (5,) in 0..1: the mean of `raised` over bands and over the frames in which
    anything sounds."""
    sounding = severities.any(axis=(0, 1))
    if not sounding.any():
        return np.zeros(len(severities))
    return raised(severities[..., sounding]).mean(axis=(1, 2), dtype=np.float64)

"""A file's score for each type of artefact."""

from __future__ import annotations

import numpy as np

#: Exponent of the severities before they are averaged, in the order of TYPES. Musical noise, bleed and phasiness
#: spread over many bands. Dull highs and smeared transients may show in a few cells only: cubing makes a few certain
#: cells count more than many doubtful ones, which a naturally dark or soft instrument also has.
POWERS = np.array([1.0, 1.0, 1.0, 3.0, 3.0])


def apply_powers(severities: np.ndarray) -> np.ndarray:
    """Severities (5, ...), each raised to the power of its type."""
    return severities ** POWERS.reshape(-1, *[1] * (severities.ndim - 1))


def file_scores(severities: np.ndarray) -> np.ndarray:
    """Severities (5, K, N) to scores (5,) in 0..1: the mean of `apply_powers` over bands and non-silent frames."""
    sounding = severities.any(axis=(0, 1))
    if not sounding.any():
        return np.zeros(len(severities))
    return apply_powers(severities[..., sounding]).mean(axis=(1, 2), dtype=np.float64)

"""More than two channels that belong together: one correction for all, so that their image stays."""

from __future__ import annotations

import numpy as np

_NEW = 4.0  # times the power that was there: above it, the signal is new rather than corrected
_FLOOR = np.float32(1e-20)


def link(before: np.ndarray, correction: np.ndarray, doubled: bool) -> np.ndarray:
    """Spectra of pairs before their repair and each pair's own correction, both (P, 2, F, N), to corrections (P, 2, F,
    N) that keep the phases and levels of all channels relative to each other.

    In each bin one complex factor for all channels, the one closest to the pairs' own corrections (least squares, so a
    channel counts by its power). Where the pairs restore much more than was there, as above a cutoff, a factor would be
    arbitrary, and each pair keeps its own. doubled: the last pair is one channel twice, and counts once.
    """
    weights = np.ones((len(before), 2, 1, 1), np.float32)
    if doubled:
        weights[-1] = 0.5
    power, wanted = (np.sum(weights * _power(spectrum), axis=(0, 1)) for spectrum in (before, correction))
    factor = np.sum(weights * before.conj() * correction, axis=(0, 1)) / np.maximum(power, _FLOOR)
    return np.where(wanted > _NEW * power, correction, factor * before).astype(np.complex64)


def _power(spectrum: np.ndarray) -> np.ndarray:
    return np.square(spectrum.real) + np.square(spectrum.imag)

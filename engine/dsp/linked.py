"""More than two channels that belong together: one change for all of them, so that what is between them stays."""

from __future__ import annotations

import numpy as np

_NEW = 4.0  # times the power that was there: what is brought back where next to nothing was
_FLOOR = np.float32(1e-20)


def link(before: np.ndarray, change: np.ndarray, doubled: bool) -> np.ndarray:
    """Spectra of pairs before their repair and the changes of each pair by itself, (P, 2, F, N) both, to changes that
    leave the phases and levels of all channels against each other as they were: (P, 2, F, N).

    In each bin one complex factor for all channels, the one that comes closest to the pairs' own changes (least
    squares, so that a channel counts by its power). Where the pairs bring back much more than was there, as above a
    cut, a factor would be a matter of chance, and each pair keeps its own. doubled: the last pair is one channel
    twice, and counts once.
    """
    weights = np.ones((len(before), 2, 1, 1), np.float32)
    if doubled:
        weights[-1] = 0.5
    power, wanted = (np.sum(weights * _power(spectrum), axis=(0, 1)) for spectrum in (before, change))
    factor = np.sum(weights * before.conj() * change, axis=(0, 1)) / np.maximum(power, _FLOOR)
    return np.where(wanted > _NEW * power, change, factor * before).astype(np.complex64)


def _power(spectrum: np.ndarray) -> np.ndarray:
    return np.square(spectrum.real) + np.square(spectrum.imag)

"""Aligns a mix with a stem: finds its time offset, polarity and gain, and whether the mix contains the stem at all.

A mix that is one sample or one decibel off spoils a repair, and both are common: encoders add a delay, plug-ins add
latency, and stems get turned up or down.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ..dsp.fifo import Fifo
from .levels import estimate_gain
from .statistics import MIN_SWAP_RATIO
from .timing import Stretch, TimeMap, path_through, stretches_of

MAX_OFFSET_S = 0.5
WINDOW_S, WINDOWS = 1.5, 12
MIN_POWER = 1e-8  # mean square of a window that is loud enough to be compared
#: Exponent of the whitening of the cross-spectrum. 1 is the phase transform, which lets the noise between the partials
#: of repetitive music dominate; 0 is no whitening.
WHITENING = 0.75
#: How much higher the correlation has to be at its peak than at offset 0. A peak more than PEAK_WIDTH_S away needs
#: MIN_PEAK_RATIO: validation stems with all kinds of faults have 1.07 and more between a peak at 0 and its neighbours,
#: and 43 and more where the mix is 16 or 25 ms off. A nearer peak needs MIN_NEAR_RATIO, also against the values
#: SHARP_SAMPLES beside it: the peak of a bass drum is too broad to be placed exactly.
MIN_PEAK_RATIO, MIN_NEAR_RATIO, PEAK_WIDTH_S, SHARP_SAMPLES = 2.0, 1.05, 0.0004, 3
#: How much higher the peak has to be than the median of the correlation; less is enough for a peak at exactly 0.
#: Validation stems have 105 and more, or 8 and more at offset 0 if they are 30 dB below their mix. Stems of other songs
#: have at most 21, at any offset.
MIN_PEAK_TO_MEDIAN, MIN_IN_STEP_TO_MEDIAN = 25.0, 7.0
#: Offsets are followed through the windows in steps of POOL samples. A window's score is the height of its correlation
#: over the median, at most MAX_SCORE; going over to another offset costs JUMP_COST. Chance gives a mean of about 7.
POOL, MAX_SCORE, JUMP_COST, MIN_MEAN_SCORE = 8, 60.0, 20.0, 10.0
#: Exact loops give several peaks of nearly the same height. Of all above this part of the highest, the nearest counts.
SAME_HEIGHT = 0.8


class SampleSource(Protocol):
    """An endless source of samples."""

    def take(self, samples: int) -> np.ndarray:
        """The next samples (C, samples)."""
        ...


@dataclass(frozen=True)
class Alignment:
    """How a stem lies in its mix.

    offset_samples: sample n of the stem belongs to sample n + offset_samples of the mix.
    found: whether the mix contains the stem; also True where the stem is too quiet to decide.
    gain: of the stem in the mix, relative to the stem's file; negative where the polarity is inverted.
    """

    offset_samples: int
    found: bool
    gain: float = 1.0

    @property
    def level_difference_db(self) -> float:
        """How much louder the stem is in the mix than in its file."""
        return 20 * float(np.log10(abs(self.gain)))


def estimate_alignment(stem: Iterable[np.ndarray], mix: SampleSource, sample_rate: int) -> Alignment:
    """`locate` without the time map."""
    return locate(stem, mix, sample_rate, with_gain=True)[0]


def locate(
    stem: Iterable[np.ndarray], mix: SampleSource, sample_rate: int, *, with_gain: bool = False
) -> tuple[Alignment, TimeMap]:
    """How a stem lies in its mix as a whole, and window by window where the offset changes.

    Find the offset within MAX_OFFSET_S at which stem and mix correlate best, and the gain there (levels.py).

    The offset is 0 where no peak stands out, for example in bass that is less than a millisecond off.

    stem: blocks (C, n). mix: the same channels, from MAX_OFFSET_S (rounded to samples) before the stem's first sample
    (as offline.proof does). The cross-correlation is generalised (Knapp and Carter, The generalized correlation
    method for estimation of time delay, 1976), with a partial phase transform (PHAT-beta; Donohue et al., Performance
    of phase transform for detecting sound sources with microphone arrays, 2007), and summed over the channels and the
    WINDOWS loudest windows of the stem.
    """
    size, reach = round(WINDOW_S * sample_rate), max_offset_samples(sample_rate)
    loudest: list[tuple[float, int, np.ndarray, np.ndarray]] = []
    track = _Track(size, reach)
    for number, (part, around) in enumerate(_windows(stem, mix, size, reach)):
        power = float(np.mean(part.astype(np.float64) ** 2))
        if power > MIN_POWER:
            track.add(number * size, part, around)
            heapq.heappush(loudest, (power, number, part, around))
            if len(loudest) > WINDOWS:
                heapq.heappop(loudest)
    if not loudest:
        return Alignment(0, True), TimeMap()
    found = _estimate(loudest, size, reach, sample_rate, with_gain)
    return found, track.time_map(found)


def _estimate(
    loudest: list[tuple[float, int, np.ndarray, np.ndarray]], size: int, reach: int, sample_rate: int, with_gain: bool
) -> Alignment:
    """The offset at which the loudest windows correlate best."""
    signed, *crossed = _correlations(loudest, size, reach)
    for other in crossed:
        if np.abs(other).max() > MIN_SWAP_RATIO * np.abs(signed).max():
            signed = other
            loudest = [(power, number, part, around[::-1]) for power, number, part, around in loudest]
    correlation = np.abs(signed)
    peak = float(correlation.max())
    in_step = correlation[reach] == peak and signed[reach] > 0
    if not peak > (MIN_IN_STEP_TO_MEDIAN if in_step else MIN_PEAK_TO_MEDIAN) * float(np.median(correlation)):
        return Alignment(0, False)
    high = np.flatnonzero(correlation >= SAME_HEIGHT * peak) - reach
    place, width = reach + int(high[np.argmin(np.abs(high))]), max(SHARP_SAMPLES, round(PEAK_WIDTH_S * sample_rate))
    while True:  # climb from the nearest high value to its peak
        first = max(0, place - width)
        higher = first + int(np.argmax(correlation[first : place + width + 1]))
        if higher == place:
            break
        place = higher
    rivals, min_ratio = [reach], MIN_PEAK_RATIO
    if abs(place - reach) <= width:
        rivals, min_ratio = [reach, place - SHARP_SAMPLES, place + SHARP_SAMPLES], MIN_NEAR_RATIO
    offset = place - reach if correlation[place] > min_ratio * correlation[rivals].max() else 0
    if not with_gain:
        return Alignment(offset, True)
    sign, aligned = -1.0 if signed[reach + offset] < 0 else 1.0, slice(reach + offset, reach + offset + size)
    excerpts = ((part, np.float32(sign) * around[:, aligned]) for _, _, part, around in loudest)
    return Alignment(offset, True, sign * estimate_gain(excerpts, sample_rate))


def _correlations(loudest: list[tuple[float, int, np.ndarray, np.ndarray]], size: int, reach: int) -> list[np.ndarray]:
    """The whitened correlation at every offset (2 reach + 1,), summed over windows and channels; of stereo also with
    left and right of the mix swapped."""
    points = size + 2 * reach
    # Without a taper, the edges of the windows correlate between the partials of repetitive music.
    part_taper, around_taper = np.hanning(size), np.hanning(points)
    orders = (slice(None), slice(None, None, -1))[: 2 if len(loudest[0][2]) == 2 else 1]
    totals = np.zeros((len(orders), points // 2 + 1), np.complex128)
    for power, _, part, around in loudest:
        stem, mix = np.fft.rfft(part_taper * part, points).conj(), np.fft.rfft(around_taper * around, points)
        for total, order in zip(totals, orders, strict=True):
            cross = stem * mix[order]
            magnitude = np.abs(cross)
            cross /= (magnitude + 1e-9 * magnitude.max() + 1e-30) ** WHITENING
            total += power ** (WHITENING - 0.5) * cross.sum(axis=0)  # weights a window by its amplitude, not its power
    return [np.fft.irfft(total, points)[: 2 * reach + 1] for total in totals]


class _Track:
    """The offsets of the windows of a stem, one after another."""

    def __init__(self, size: int, reach: int) -> None:
        self._size, self._reach = size, reach
        self._places = (2 * reach + 1) // POOL
        points = size + 2 * reach
        self._tapers = np.hanning(size).astype(np.float32), np.hanning(points).astype(np.float32)
        self._starts: list[int] = []
        self._scores: list[np.ndarray] = []
        self._lags: list[np.ndarray] = []

    def add(self, start: int, part: np.ndarray, around: np.ndarray) -> None:
        """A window of the stem that begins at sample `start`, and the mix around it."""
        points = 1 << int(np.ceil(np.log2(around.shape[1])))
        cross = np.fft.rfft(self._tapers[0] * part, points).conj()
        spectra = np.fft.rfft(self._tapers[1] * around, points)
        best = self._likeness(cross * spectra, points)
        if len(part) == 2 and best.max() < MAX_SCORE:  # left and right may be swapped
            best = np.maximum(best, self._likeness(cross * spectra[::-1], points))
        pooled = best[: self._places * POOL].reshape(-1, POOL)
        self._starts.append(start)
        self._scores.append(np.minimum(pooled.max(axis=1), MAX_SCORE))
        self._lags.append((np.arange(self._places) * POOL + pooled.argmax(axis=1) - self._reach).astype(np.int32))

    def _likeness(self, white: np.ndarray, points: int) -> np.ndarray:
        """Whitened correlation (2 reach + 1,) of a cross-spectrum (C, F), which is overwritten, over its median."""
        magnitude = np.abs(white)
        white /= (magnitude + np.float32(1e-6) * magnitude.max() + np.float32(1e-30)) ** np.float32(WHITENING)
        lags = np.abs(np.fft.irfft(white, points))[:, : 2 * self._reach + 1].sum(axis=0)
        # Where most of the mix is silent, the median is next to nothing.
        usual = max(float(np.median(lags[:: POOL // 2])), 0.8 * float(lags.mean()))
        found: np.ndarray = lags / np.float32(usual + 1e-30)
        return found

    def time_map(self, found: Alignment) -> TimeMap:
        """Stretches of nearly equal offsets. The offset of the whole is preferred to all others, and next to it none
        at all; if it was not found, the windows have to agree by themselves."""
        scores, lags = np.stack(self._scores), np.stack(self._lags)
        usual = scores.copy()
        for lag, factor in ((found.offset_samples, MIN_PEAK_RATIO), (0, 1.1)):
            place = (lag + self._reach) // POOL
            near = slice(max(0, place - 1), place + 2)
            usual[:, near] = np.maximum(usual[:, near], factor * scores[:, near])
        places = path_through(usual, JUMP_COST)
        rows = np.arange(len(places))
        heights = scores[rows, places]
        if not found.found and float(np.mean(heights)) < MIN_MEAN_SCORE:
            return TimeMap.constant(found.offset_samples)
        path = lags[rows, places]
        stretches: list[Stretch] = []
        for first, last in stretches_of(self._starts, path, 4 * POOL):
            x, y = np.array(self._starts[first : last + 1]) + self._size / 2, path[first : last + 1]
            near_whole = np.abs(y - found.offset_samples) <= POOL
            offset = float(y[np.argmax(heights[first : last + 1])])
            if found.found and near_whole.mean() >= 0.5:
                offset = float(found.offset_samples)
            start, drift = 0 if not stretches else int(self._starts[first]), 0.0
            if len(x) >= 4 and near_whole.mean() < 0.5:
                slope, level = (float(value) for value in np.polyfit(x, y, 1))
                if abs(slope) * (x[-1] - x[0]) > POOL / 2:
                    drift, offset = slope, level + slope * start
            stretches.append(Stretch(start, offset if drift else round(offset), drift))
        return TimeMap(tuple(stretches))


def max_offset_samples(sample_rate: int) -> int:
    """MAX_OFFSET_S in samples."""
    return round(MAX_OFFSET_S * sample_rate)


def _windows(
    stem: Iterable[np.ndarray], mix: SampleSource, size: int, reach: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Windows of the stem (C, size), the last one padded with silence, each with the mix around it
    (C, size + 2 reach)."""
    waiting, around = Fifo(), mix.take(2 * reach)
    for block in stem:
        waiting.push(block)
        while len(waiting) >= size:
            around = np.concatenate([around[:, -2 * reach :], mix.take(size)], axis=1)
            yield waiting.pop(size), around
    if rest := len(waiting):
        around = np.concatenate([around[:, -2 * reach :], mix.take(size)], axis=1)
        yield np.pad(waiting.pop(rest), ((0, 0), (0, size - rest))), around

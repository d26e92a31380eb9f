"""What stem and mix have in common, measured in small places of time and frequency."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ..dsp.fifo import Fifo

WINDOW_S = 0.0464
FRAMES_PER_PATCH = 4  # half a window apart
PATCHES_PER_UNIT = 3
#: Edges of the bands in Hz.
EDGES_HZ = (60, 120, 200, 300, 450, 650, 900, 1250, 1750, 2500, 3500, 5000, 7000, 9500, 12500, 16000, 20000)
MAX_DELAY = 256  # samples by which a unit's delay may differ from the alignment
WHITENING = 0.75
#: A delay counts where the correlation at its peak is that much higher than BESIDE samples away.
SHARP, BESIDE = 1.1, 3
#: How much higher the correlation has to be with left and right of the mix swapped: two microphones apart give a stem
#: whose left channel is in its right one, some samples off.
MIN_SWAP_RATIO = 1.1
AUDIBLE = 1e-3  # power of a patch relative to the loudest of its band
MIN_POWER = 1e-8  # mean square of what is loud enough to be compared
PAIRS = {1: ((0, 0),), 2: ((0, 0), (1, 1), (0, 1), (1, 0))}


@dataclass(frozen=True)
class Statistics:
    """Sums over patches of about 0.1 s (P of them) in B bands, and over units of PATCHES_PER_UNIT patches.

    cross (P, C, D, B) complex: of each stem channel C and each mix channel D, conj(stem) * mix; with more than two
    channels only those of equal number are measured. stem, mix (P, C, B): power. sides (P, 2, B) complex: conj(left) *
    right of stem and mix, for stereo. delays (U,): samples by which the mix comes later than the alignment says, NaN
    where that is not clear. spectra (2, F): power of stem and mix at frequencies up to half the sample rate, of the
    whole. unit_s, unit_samples: length of a unit. edges_hz (B + 1,).
    """

    cross: np.ndarray
    stem: np.ndarray
    mix: np.ndarray
    sides: np.ndarray
    delays: np.ndarray
    spectra: np.ndarray
    unit_s: float
    unit_samples: int
    edges_hz: np.ndarray

    @property
    def units(self) -> int:
        """Number of units."""
        return -(-len(self.stem) // PATCHES_PER_UNIT)

    def by_unit(self, patches: np.ndarray) -> np.ndarray:
        """Sums over the patches of each unit: (P, ...) to (U, ...)."""
        starts = np.arange(0, len(patches), PATCHES_PER_UNIT)
        return np.add.reduceat(patches, starts, axis=0) if len(patches) else patches


class PairStatistics:
    """Blocks of stem and mix (C, n), aligned to within MAX_DELAY samples, to Statistics. The result does not depend on
    how the audio is cut into blocks."""

    def __init__(self, sample_rate: int, channels: int) -> None:
        self.sample_rate, self.channels = sample_rate, channels
        self.size = 1 << round(np.log2(WINDOW_S * sample_rate))
        self.hop = self.size // 2
        edges = np.array([e for e in EDGES_HZ if e < 0.45 * sample_rate], float)
        self.edges_hz = edges
        self._bins = np.round(edges / sample_rate * self.size).astype(int)
        self._window = np.hanning(self.size + 1)[:-1].astype(np.float32)
        self._pairs = PAIRS.get(channels) or tuple((c, c) for c in range(channels))
        self._waiting = Fifo()
        self._patches: list[tuple[np.ndarray, ...]] = []
        self._unit = np.zeros((len(self._pairs), self.hop + 1), np.complex64)
        self._unit_power = 0.0
        self._spectra = np.zeros((2, self.hop + 1))
        self._delays: list[float] = []

    @property
    def unit_samples(self) -> int:
        """Samples of a unit."""
        return PATCHES_PER_UNIT * FRAMES_PER_PATCH * self.hop

    def push(self, stem: np.ndarray, mix: np.ndarray) -> None:
        """The next samples, of which no state is kept outside."""
        self._waiting.push(np.concatenate([stem, mix]).astype(np.float32))
        patch = FRAMES_PER_PATCH * self.hop
        while len(self._waiting) >= patch + self.hop:
            block = self._waiting.pop(patch + self.hop)
            self._measure(block)
            self._waiting.push_front(block[:, patch:])

    def finish(self) -> Statistics:
        """All statistics; the last patch is padded with silence."""
        if rest := len(self._waiting):
            block = self._waiting.pop(rest)
            self._measure(np.pad(block, ((0, 0), (0, FRAMES_PER_PATCH * self.hop + self.hop - rest))))
        if len(self._patches) % PATCHES_PER_UNIT:
            self._end_unit()
        return self.recent(0)

    def recent(self, patches: int) -> Statistics:
        """Statistics of the last `patches` patches, in whole units; of all of them for 0."""
        count = len(self._patches)
        start = max(0, count - patches) // PATCHES_PER_UNIT * PATCHES_PER_UNIT if patches else 0
        bands, channels = len(self._bins) - 1, self.channels
        empty = (
            np.zeros((0, channels, channels, bands), np.complex64), np.zeros((0, channels, bands), np.float32),
            np.zeros((0, channels, bands), np.float32), np.zeros((0, 2, bands), np.complex64),
        )  # fmt: skip
        kept = self._patches[start:]
        cross, stem, mix, sides = (np.stack(column) for column in zip(*kept, strict=True)) if kept else empty
        delays = np.array(self._delays[start // PATCHES_PER_UNIT :], float)
        unit_s = self.unit_samples / self.sample_rate
        return Statistics(cross, stem, mix, sides, delays, self._spectra, unit_s, self.unit_samples, self.edges_hz)

    def forget(self, patches: int) -> None:
        """Keep only about the last `patches` patches."""
        extra = max(0, len(self._patches) - patches) // PATCHES_PER_UNIT
        del self._patches[: extra * PATCHES_PER_UNIT], self._delays[:extra]

    def _measure(self, block: np.ndarray) -> None:
        frames = np.lib.stride_tricks.sliding_window_view(block, self.size, axis=1)[:, :: self.hop]
        spectra = np.fft.rfft(frames * self._window, axis=-1).astype(np.complex64, copy=False)
        stem, mix = spectra[: self.channels], spectra[self.channels :]
        bands = self._bins
        cross = np.zeros((self.channels, self.channels, len(bands) - 1), np.complex64)
        for number, (c, d) in enumerate(self._pairs):
            shared = np.einsum("nf,nf->f", stem[c].conj(), mix[d])
            cross[c, d] = np.add.reduceat(shared[: bands[-1]], bands[:-1])
            self._unit[number] += shared
        power = [(np.square(x.real) + np.square(x.imag)).sum(axis=1) for x in (stem, mix)]
        self._spectra += np.stack([x.sum(axis=0) for x in power])
        powers = [np.add.reduceat(x[:, : bands[-1]], bands[:-1], axis=1) for x in power]
        sides = np.zeros((2, len(bands) - 1), np.complex64)
        if self.channels == 2:
            for row, x in enumerate((stem, mix)):
                shared = np.einsum("nf,nf->f", x[0].conj(), x[1])
                sides[row] = np.add.reduceat(shared[: bands[-1]], bands[:-1])
        self._patches.append((cross, *(p.astype(np.float32) for p in powers), sides))
        self._unit_power += float(np.mean(block[: self.channels] ** 2)) / PATCHES_PER_UNIT
        if len(self._patches) % PATCHES_PER_UNIT == 0:
            self._end_unit()

    def _end_unit(self) -> None:
        self._delays.append(_delay(self._unit, self.channels) if self._unit_power > MIN_POWER else np.nan)
        self._unit = np.zeros_like(self._unit)
        self._unit_power = 0.0


def _delay(cross: np.ndarray, channels: int) -> float:
    """The delay in samples of the cross-spectra of all PAIRS (pairs, F), to a fraction; NaN where no peak stands out.

    The peak of the whitened correlation (Knapp and Carter 1976), summed over the channels regardless of their sign,
    with a parabola through its neighbours on a grid of a quarter of a sample. Left and right may be swapped.
    """
    size, fine = 2 * (cross.shape[1] - 1), 4
    magnitude = np.abs(cross)
    if not magnitude.any():
        return float("nan")
    white = cross / (magnitude + 1e-6 * magnitude.max() + 1e-30) ** WHITENING
    white[:, 0] = 0.0
    each = np.abs(np.fft.irfft(white, fine * size, axis=1))
    reach = fine * MAX_DELAY
    lags, *swapped = each.reshape(-1, channels, fine * size).sum(axis=1)
    for other in swapped:
        if _highest(other, reach) > MIN_SWAP_RATIO * _highest(lags, reach):
            lags = other
    near = np.concatenate([lags[-reach:], lags[: reach + 1]])
    peak = int(np.argmax(near))
    beside = [near[i] for i in (peak - fine * BESIDE, peak + fine * BESIDE) if 0 <= i < len(near)]
    if not 0 < peak < len(near) - 1 or near[peak] < SHARP * max(beside) or near[peak] < 4.0 * np.median(lags):
        return float("nan")
    low, mid, high = near[peak - 1 : peak + 2]
    return float(peak - reach + 0.5 * (low - high) / (low - 2 * mid + high - 1e-30)) / fine


def _highest(lags: np.ndarray, reach: int) -> float:
    return max(float(lags[-reach:].max()), float(lags[: reach + 1].max()))


def weighted_quantiles(values: np.ndarray, weights: np.ndarray, shares: Sequence[float]) -> list[float]:
    """The values (N,) up to which there are these shares of all weights (N,)."""
    order = np.argsort(values)
    sums = np.cumsum(weights[order], dtype=np.float64)
    return [float(values[order][np.searchsorted(sums, share * sums[-1])]) for share in shares]

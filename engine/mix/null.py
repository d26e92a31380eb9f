"""How much of a mix its stems leave, where that lies, and which gains of the stems leave least."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from .statistics import weighted_quantiles

FRAME, FRAMES_PER_CELL = 2048, 4
EDGES_HZ = (0, 150, 300, 600, 1200, 2400, 5000, 10000)
HIGHEST_HZ = 10000.0  # separators often leave out what is above, so it decides nothing
MOSTLY = 0.8  # share of the energy in the places that are named
THROUGHOUT = 0.7  # of all frequency bands, or of the time: no place worth naming
#: Gains are used if the stems leave at least that much less of the mix with them.
CLEAR_DB = 3.0
MIN_GAIN, MAX_GAIN = 0.1, 10.0
SMALL_GAIN = 0.001
#: What the stems leave may be correlated with a stem by chance. A gain that this explains is 1.
CHANCE = 0.1
#: Bleed of one stem in the others lowers its gain by as much (by a part of it, if several have bleed).
BLEED_FACTOR = 2.0
SILENT = 1e-7  # power of a stem relative to the mix, below which its gain is 1
#: Which version of a stem is in the mix is clear if it leaves less, by this part of the difference between the two.
CLEAR_PART = 0.1


class NullMeter:
    """Products of signals with each other, over cells of time and frequency. `add` takes blocks, which are padded to
    whole frames."""

    def __init__(self, sample_rate: int) -> None:
        edges = [edge for edge in EDGES_HZ if edge < sample_rate / 2]
        self._bins = np.round(np.array(edges) / sample_rate * FRAME).astype(int)
        self._edges_hz = (*edges, sample_rate // 2)
        self._rate, self._window = sample_rate, np.hanning(FRAME).astype(np.float32)
        self._cells: list[np.ndarray] = []
        self._samples = 0

    def add(self, signals: np.ndarray) -> None:
        """The next samples of all signals (K, C, n); the last signal is the mix."""
        samples = signals.shape[-1]
        self._samples += samples
        padded = np.pad(signals, ((0, 0), (0, 0), (0, -samples % FRAME)))
        frames = padded.reshape(*signals.shape[:2], -1, FRAME) * self._window
        spectra = np.fft.rfft(frames.astype(np.float64), axis=-1)
        for start in range(0, spectra.shape[2], FRAMES_PER_CELL):
            rows = []
            for part in np.split(spectra[:, :, start : start + FRAMES_PER_CELL], self._bins[1:], axis=-1):
                flat = part.reshape(len(signals), -1)
                rows.append((flat @ flat.conj().T).real)
            self._cells.append(np.array(rows))

    def finish(self) -> Cells:
        """All products."""
        cell_s = self._samples / self._rate / max(len(self._cells), 1)
        return Cells(np.array(self._cells), self._edges_hz, cell_s)


@dataclass(frozen=True)
class Null:
    """What stems leave of their mix. db: energy relative to the mix. is_missing: the stems lack it; else they have too
    much. hz, seconds: where most of it lies; None if throughout."""

    db: float
    is_missing: bool
    hz: tuple[int, int] | None
    seconds: tuple[float, float] | None


@dataclass(frozen=True)
class Cells:
    """products (N, B, K, K): of K signals with each other, the mix last, in N stretches of `cell_s` and B bands between
    edges_hz (B + 1)."""

    products: np.ndarray
    edges_hz: tuple[int, ...]
    cell_s: float

    def pick(self, signals: list[int]) -> Cells:
        """The cells of these signals alone; the mix is added."""
        order = [*signals, self.products.shape[-1] - 1]
        return Cells(self.products[:, :, order][:, :, :, order], self.edges_hz, self.cell_s)

    @property
    def gram(self) -> np.ndarray:
        """The sum of all cells up to HIGHEST_HZ (K, K)."""
        total: np.ndarray = self.products[:, self._low].sum(axis=(0, 1))
        return total

    @property
    def _low(self) -> list[bool]:
        """Which bands count (B,)."""
        return [high <= HIGHEST_HZ or low == 0 for low, high in pairwise(self.edges_hz)]

    def null(self, gains: np.ndarray) -> Null:
        """What the stems with these gains leave, over all frequencies."""
        weights = np.append(-gains, 1.0)
        left = np.einsum("k,nbkl,l->nb", weights, self.products, weights).clip(0.0)
        stems = np.einsum("k,nbkl,l->", gains, self.products[:, :, :-1, :-1], gains)
        mix = float(self.products[:, :, -1, -1].sum())
        bands, times = _shortest(left.sum(axis=0)), _shortest(left.sum(axis=1))
        return Null(
            _db(float(left.sum()), mix),
            bool(mix > stems),
            None if bands is None else (self.edges_hz[bands[0]], self.edges_hz[bands[1]]),
            None if times is None else (times[0] * self.cell_s, times[1] * self.cell_s),
        )

    def low_db(self, gains: np.ndarray) -> float:
        """What the stems with these gains leave up to HIGHEST_HZ, relative to the mix."""
        gram = self.gram
        return _db(left_over(gram, gains), float(gram[-1, -1]))

    def absent(self, gains: np.ndarray) -> float:
        """Which part of what the stems leave is most of the mix in its place: much if a stem is missing, little if all
        are there but inexact."""
        products = self.products[:, self._low]
        weights = np.append(-gains, 1.0)
        left = np.einsum("k,nbkl,l->nb", weights, products, weights).clip(0.0)
        return float(left[left > products[:, :, -1, -1] / 2].sum() / (left.sum() + 1e-20))

    def bleed(self, gains: np.ndarray) -> np.ndarray:
        """How much of each stem is in all others together (S,), at these gains: the median over all cells, since notes
        that sound together are correlated by chance, here with one sign and there with the other."""
        count = self.products.shape[-1] - 1
        cells = self.products[:, :, :-1, :-1].reshape(-1, count, count) * np.outer(gains, gains)
        found = np.zeros(cells.shape[-1])
        total = np.trace(cells, axis1=1, axis2=2)
        for n in range(len(found)):
            own = cells[:, n, n]
            loud = own > 1e-4 * own.max(initial=0.0)
            if loud.any():
                share = (cells[loud, n].sum(axis=-1) - own[loud]) / own[loud]
                found[n] = weighted_quantiles(share, own[loud] / total[loud], (0.5,))[0]
        return found

    def clear_gains(self) -> np.ndarray:
        """The gains (S,) with which the stems leave least of the mix (least squares). A gain that chance or bleed may
        explain as well is exactly 1, and all are if they make no clear difference."""
        gram = self.gram
        ones = np.ones(len(gram) - 1)
        power = gram.diagonal()[:-1]
        free = [n for n in range(len(power)) if power[n] > SILENT * gram[-1, -1]]
        gains = ones
        while free:
            gains = least_squares(gram, free)
            left, bleed = left_over(gram, gains), self.bleed(gains.clip(MIN_GAIN, MAX_GAIN))
            doubts = SMALL_GAIN + CHANCE * np.sqrt(left / power[free]) + BLEED_FACTOR * np.abs(bleed[free])
            certainty = np.abs(gains[free] - 1.0) / doubts
            certainty[(gains[free] < MIN_GAIN) | (gains[free] > MAX_GAIN)] = 0.0
            if certainty.min() > 1.0:
                break
            free.pop(int(certainty.argmin()))
        if not free or left_over(gram, gains) > 10 ** (-CLEAR_DB / 10) * left_over(gram, ones):
            return ones
        return gains

    def is_better(self, signals: list[int], place: int, other: int) -> bool:
        """Whether the signal `other` is clearly in the mix rather than signals[place]."""
        swapped = [*signals[:place], other, *signals[place + 1 :]]
        left = []
        for chosen in (signals, swapped):
            gram = self.pick(chosen).gram
            gains = least_squares(gram, list(range(len(chosen))))
            left.append(left_over(gram, gains.clip(0.0)))
        one, two, gram = signals[place], other, self.gram
        apart = gram[one, one] + gram[two, two] - 2 * gram[one, two]
        return bool(left[1] + CLEAR_PART * apart < left[0])


def least_squares(gram: np.ndarray, free: list[int]) -> np.ndarray:
    """Gains (S,) that leave least of the mix; only those of the stems `free` differ from 1."""
    gains = np.ones(len(gram) - 1)
    fixed = [n for n in range(len(gains)) if n not in free]
    wanted = gram[free, -1] - gram[np.ix_(free, fixed)].sum(axis=1)
    gains[free] = np.linalg.lstsq(gram[np.ix_(free, free)], wanted, rcond=1e-9)[0]
    return gains


def left_over(gram: np.ndarray, gains: np.ndarray) -> float:
    """Energy of the mix less the stems with these gains."""
    weights = np.append(-gains, 1.0)
    return max(float(weights @ gram @ weights), 0.0)


def _db(energy: float, reference: float) -> float:
    return 10 * float(np.log10((energy + 1e-20) / (reference + 1e-20)))


def _shortest(energies: np.ndarray) -> tuple[int, int] | None:
    """The shortest stretch [first, last) with most of the energy; None if that is nearly everything."""
    total = np.concatenate([[0.0], np.cumsum(energies)])
    for size in range(1, len(energies) + 1):
        inside = total[size:] - total[:-size]
        first = int(np.argmax(inside))
        if inside[first] >= MOSTLY * total[-1]:
            return None if size > THROUGHOUT * len(energies) else (first, first + size)
    return None

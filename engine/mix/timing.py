"""Where each sample of a stem lies in its mix: offsets, clocks that drift, and slips."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

#: A delay that was measured this close to a whole number of samples is one.
WHOLE = 0.08
#: A drift counts if it moves the mix by that many samples from one end of a stretch to the other.
MIN_DRIFT_SAMPLES = 0.4
#: Of fewer measurements than twice MIN_SIDE, at least MIN_LINE have to lie on a line that moves the mix by this much.
MIN_LINE, FEW_DRIFT_SAMPLES = 4, 0.8
#: A jump counts from this many samples on, with so many measurements on either side.
MIN_JUMP, MIN_SIDE = 0.6, 5


@dataclass(frozen=True)
class Stretch:
    """From stem sample `start` on, sample n of the stem belongs to sample n + offset + drift * (n - start) of the
    mix."""

    start: int
    offset: float
    drift: float = 0.0

    def at(self, sample: float | np.ndarray) -> float | np.ndarray:
        """The offset of a sample of the stem."""
        return self.offset + self.drift * (sample - self.start)

    @property
    def is_whole(self) -> bool:
        """Whether samples of stem and mix coincide."""
        return self.drift == 0.0 and self.offset == round(self.offset)


@dataclass(frozen=True)
class TimeMap:
    """Stretches in order; the first one starts at or before sample 0."""

    stretches: tuple[Stretch, ...] = (Stretch(0, 0),)

    @classmethod
    def constant(cls, offset: float) -> TimeMap:
        """The same offset everywhere."""
        return cls((Stretch(0, offset),))

    @property
    def first_offset(self) -> float:
        """The offset of the stem's first sample."""
        return self.stretches[0].offset

    def offsets(self, samples: np.ndarray) -> np.ndarray:
        """The offsets of samples of the stem."""
        starts = np.array([s.start for s in self.stretches])
        index = np.clip(np.searchsorted(starts, samples, side="right") - 1, 0, None)
        offset, drift = (np.array([getattr(s, name) for s in self.stretches]) for name in ("offset", "drift"))
        found: np.ndarray = offset[index] + drift[index] * (samples - starts[index])
        return found


def path_through(scores: np.ndarray, jump_cost: float, step: int = 2, step_cost: float = 0.3) -> np.ndarray:
    """The path (N,) through scores (N, L) with the highest sum: from one row to the next it may move by up to `step`
    places at `step_cost` each, or anywhere at `jump_cost` (Viterbi 1967)."""
    total = scores[0].copy()
    came_from = np.zeros(scores.shape, np.int32)
    places = np.arange(scores.shape[1], dtype=np.int32)
    for n in range(1, len(scores)):
        best, origin = total.copy(), places.copy()
        for by in range(-step, step + 1):
            moved = np.full_like(total, -np.inf)
            if by > 0:
                moved[by:] = total[:-by]
            elif by < 0:
                moved[:by] = total[-by:]
            moved -= step_cost * abs(by)
            better = moved > best
            best[better], origin[better] = moved[better], (places - by)[better]
        highest = int(np.argmax(total))
        jumps = total[highest] - jump_cost > best
        best[jumps], origin[jumps] = total[highest] - jump_cost, highest
        total, came_from[n] = best + scores[n], origin
    path = np.zeros(len(scores), int)
    path[-1] = int(np.argmax(total))
    for n in range(len(scores) - 1, 0, -1):
        path[n - 1] = came_from[n, path[n]]
    return path


def fit_time_map(positions: np.ndarray, offsets: np.ndarray) -> TimeMap:
    """Stretches for offsets (N,) that were measured around the stem samples `positions` (N,), which rise.

    Lines are fitted by least squares, and split in two where that lowers the error by a clear jump (binary
    segmentation; Scott and Knott, 1974). Measurements that fit no line are left out.
    """
    if not len(positions):
        return TimeMap()
    parts = _split(positions.astype(float), offsets.astype(float))
    stretches: list[Stretch] = []
    for number, (x, y) in enumerate(parts):
        slope, level = _line(x, y)
        spread = float(np.median(np.abs(y - slope * x - level)))
        least = max(MIN_DRIFT_SAMPLES, 8.0 * spread)
        if len(x) < 2 * MIN_SIDE:  # of a short stem, or one that is mostly silent
            least = max(least, 16.0 * spread, FEW_DRIFT_SAMPLES) if len(x) >= MIN_LINE else np.inf
        if abs(slope) * (x[-1] - x[0]) < least:
            slope, level = 0.0, float(np.median(y))
        start = 0 if number == 0 else round((parts[number - 1][0][-1] + x[0]) / 2)
        offset = level + slope * start if slope else level
        if not slope and abs(offset - round(offset)) < max(WHOLE, 1.5 * spread):
            offset = float(round(offset))
        stretches.append(Stretch(start, offset, slope))
    return TimeMap(tuple(stretches))


def _line(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """Slope and level at 0 of a line that a third of outliers does not move: least squares of what is near."""
    if len(x) < 3:
        return 0.0, float(np.median(y))
    half = len(x) // 2
    slope = float(np.median((y[half:][:half] - y[:half]) / (x[half:][:half] - x[:half])))
    for _ in range(3):
        level = float(np.median(y - slope * x))
        error = np.abs(y - slope * x - level)
        near = error <= max(3.0 * float(np.median(error)), 0.02)
        if near.sum() < 3:
            break
        slope = float(np.polyfit(x[near] - x.mean(), y[near], 1)[0])
    return slope, float(np.median(y - slope * x))


def _misfit(x: np.ndarray, y: np.ndarray) -> float:
    slope, level = _line(x, y)
    return float(np.minimum(np.abs(y - slope * x - level), 2.0).sum())


def _split(x: np.ndarray, y: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    whole = _misfit(x, y)
    if len(x) < 2 * MIN_SIDE or whole < MIN_JUMP * MIN_SIDE / 2:
        return [(x, y)]
    places = range(MIN_SIDE, len(x) - MIN_SIDE + 1)
    if len(x) > 200:  # find the region first
        places = range(MIN_SIDE, len(x) - MIN_SIDE + 1, len(x) // 100)
    costs = {n: _misfit(x[:n], y[:n]) + _misfit(x[n:], y[n:]) for n in places}
    near = min(costs, key=lambda n: costs[n])
    if len(x) > 200:
        for n in range(max(MIN_SIDE, near - len(x) // 100), min(len(x) - MIN_SIDE, near + len(x) // 100) + 1):
            costs.setdefault(n, _misfit(x[:n], y[:n]) + _misfit(x[n:], y[n:]))
        near = min(costs, key=lambda n: costs[n])
    left, right = _line(x[:near], y[:near]), _line(x[near:], y[near:])
    middle = (x[near - 1] + x[near]) / 2
    jump = abs(left[0] * middle + left[1] - right[0] * middle - right[1])
    if jump < MIN_JUMP or costs[near] > 0.6 * whole:
        return [(x, y)]
    return _split(x[:near], y[:near]) + _split(x[near:], y[near:])


def stretches_of(positions: Sequence[int], lags: np.ndarray, tolerance: int) -> list[tuple[int, int]]:
    """Runs [first, last] of neighbouring lags that differ by at most `tolerance`."""
    runs, start = [], 0
    for n in range(1, len(positions) + 1):
        if n == len(positions) or abs(int(lags[n]) - int(lags[n - 1])) > tolerance:
            runs.append((start, n - 1))
            start = n
    return runs

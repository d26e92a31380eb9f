"""The one mixer, for files, streams and the bridge: delays the dry signal, adds the correction, fades. Digital silence
stays digital silence: `SilenceMask` keeps the correction out of it."""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

import numpy as np

from .dsp.fifo import Fifo

SETTING_FADE_S = 0.02
SILENCE_S = 64 / 44100  # zeros for at least this long are digital silence


def add_correction(dry: np.ndarray, correction: np.ndarray) -> np.ndarray:
    """dry + correction; where the correction is zero, the dry sample itself, bit for bit (a negative zero too)."""
    return np.where(correction == 0.0, dry, dry + correction)


class SilenceMask:
    """A gain for the correction, for each channel: 0 in every stretch of zeros of at least 1.5 ms, 1 elsewhere, with a
    linear ramp of 1.5 ms on either side of a stretch, so that the correction neither rings into a pause nor breaks off.

    `push` takes the signal, `apply` masks its correction, sample for sample in the same order. The gains of the last
    `delay_samples` samples are undecided until more signal or `end` comes. The result does not depend on block sizes.
    """

    def __init__(self, sample_rate: int, channels: int) -> None:
        self._stretch = max(1, round(SILENCE_S * sample_rate))
        self._ramp = (np.arange(self._stretch, dtype=np.float32) + 1) / np.float32(self._stretch + 1)
        self._recent = np.zeros((channels, 0), np.float32)
        self._decided = 0  # of the recent samples
        self._gains = Fifo()

    @property
    def delay_samples(self) -> int:
        """Samples after a position that its gain depends on: a ramp and a stretch."""
        return 2 * self._stretch

    def push(self, block: np.ndarray) -> None:
        """The next samples (C, n)."""
        self._decide(np.concatenate([self._recent, block], axis=1), last=False)

    def end(self) -> None:
        """No more samples follow: all gains are decided."""
        self._decide(self._recent, last=True)

    def apply(self, correction: np.ndarray) -> np.ndarray:
        """The correction (C, n) of the next n samples, masked. Their gains must be decided."""
        return correction * self._gains.pop(correction.shape[1]) if correction.shape[1] else correction

    def _decide(self, signal: np.ndarray, *, last: bool) -> None:
        end = signal.shape[1] if last else max(self._decided, signal.shape[1] - self.delay_samples)
        gains = np.ones(signal.shape, np.float32)
        silent = signal == 0.0
        if silent.any():
            for gain, zeros in zip(gains, silent, strict=True):
                self._close(gain, zeros)
        self._gains.push(gains[:, self._decided : end])
        keep = max(0, end - self.delay_samples)
        self._recent, self._decided = signal[:, keep:], end - keep

    def _close(self, gain: np.ndarray, zeros: np.ndarray) -> None:
        edges = np.flatnonzero(np.diff(np.concatenate([[False], zeros, [False]])))
        starts, stops = edges[::2], edges[1::2]
        long = stops - starts >= self._stretch
        for start, stop in zip(starts[long], stops[long], strict=True):
            gain[start:stop] = 0.0
            before = gain[max(0, start - len(self._ramp)) : start]
            np.minimum(before, self._ramp[::-1][len(self._ramp) - len(before) :], out=before)
            after = gain[stop : stop + len(self._ramp)]
            np.minimum(after, self._ramp[: len(after)], out=after)


class _Ramp:
    """A gain that moves to its target on a straight line; 0 to 1 takes `samples`."""

    def __init__(self, samples: int, value: float) -> None:
        self.samples, self.value, self.target = samples, value, value

    def take(self, count: int) -> np.ndarray | float:
        """The next `count` gains (n,), or a single one if they are all equal."""
        if self.value == self.target:
            return self.value
        way = self.target - self.value
        steps = np.arange(1, count + 1, dtype=np.float32) / np.float32(self.samples)
        gains = self.value + np.sign(way) * np.minimum(steps, abs(way))
        if count:
            self.value = float(gains[-1]) if steps[-1] < abs(way) else self.target
        return gains.astype(np.float32)


class Mixed(NamedTuple):
    """Samples (C, n) that leave the mixer. late: some of their correction was not there in time. repaired: a model made
    all of the correction."""

    audio: np.ndarray
    late: bool
    repaired: bool


class Mixer:
    """The dry signal (C, n) goes in by `push`, its correction by `push_correction`, in order; their sum comes out by
    `pull`, `latency_samples` after the dry signal.

    A correction that is missing when its dry samples leave is skipped: what is there is faded out over
    `reserve_samples` before it ends (so that much must always be there in advance), and faded in again once it is in
    time. With a reserve of 0 the caller promises that every correction is in time. `set` scales the correction by `wet`
    (0 to 1) and `bypass`, smoothed over 20 ms. Where the correction is zero, the output is the dry signal bit for bit.
    """

    def __init__(
        self, channels: int, sample_rate: int, *, latency_samples: int = 0, reserve_samples: int = 0, wet: float = 1.0
    ) -> None:
        self.channels, self.reserve_samples = channels, reserve_samples
        self._dry, self._correction = Fifo(), Fifo()
        self._lead = latency_samples  # silence that leaves before the first sample
        self._owed = 0  # samples whose correction came too late: it is dropped when it comes
        self._runs: deque[list[int]] = deque()  # [samples, 1 if a model made them] of those in _correction
        self._started = self._ended = False
        self._in_time = _Ramp(reserve_samples, 1.0)
        self._setting = _Ramp(max(1, round(SETTING_FADE_S * sample_rate)), wet)
        self._wet, self._bypass = wet, False

    def push(self, block: np.ndarray) -> None:
        """The next dry samples (C, n), which must not change afterwards."""
        self._dry.push(block)

    def push_correction(self, correction: np.ndarray, *, repaired: bool = True) -> None:
        """The next correction (C, n); `repaired`: a model made it, rather than there being none."""
        drop = min(self._owed, correction.shape[1])
        self._owed -= drop
        correction = correction[:, drop:]
        if count := correction.shape[1]:
            self._correction.push(correction)
            self._runs.append([count, int(repaired)])

    def end(self) -> None:
        """No dry signal follows: what is inside can be pulled."""
        self._ended = True

    def set(self, *, wet: float | None = None, bypass: bool | None = None, at_once: bool = False) -> None:
        """How much of the correction is added from now on."""
        self._wet = self._wet if wet is None else wet
        self._bypass = self._bypass if bypass is None else bypass
        self._setting.target = 0.0 if self._bypass else self._wet
        if at_once:
            self._setting.value = self._setting.target

    @property
    def mute(self) -> bool:
        """Whether none of the correction is audible, now or later."""
        return self._setting.value == self._setting.target == 0.0

    def missing(self, count: int) -> int:
        """Samples of correction that must come before the next `count` samples can leave whole."""
        wanted = max(0, count - self._lead)
        if wanted == 0:
            return 0
        return max(0, wanted + (0 if self._ended else self.reserve_samples) + self._owed - len(self._correction))

    def pull(self, count: int) -> Mixed:
        """The next `count` samples, which must have been pushed. Not to be written to."""
        lead = min(count, self._lead)
        wanted = count - lead
        in_time = self.missing(count) == 0
        assert in_time or self.reserve_samples, "without a reserve every correction is in time"
        self._lead -= lead
        if wanted == 0:
            return Mixed(np.zeros((self.channels, count), np.float32), False, True)
        out = self._dry.pop(wanted)
        if lead:
            out = np.concatenate([np.zeros((self.channels, lead), np.float32), out], axis=1)
        if not self._started or self._setting.value == 0.0:
            self._in_time.value = float(in_time)  # nothing is audible that would have to fade
        self._started = True
        self._in_time.target = float(in_time)
        there = min(wanted, len(self._correction))
        mute, repaired = self.mute, True
        timely = self._in_time.take(wanted)
        late = isinstance(timely, np.ndarray) or timely < 1.0
        gains = timely * self._setting.take(wanted)
        if there:
            correction = self._correction.pop(there)
            repaired = self._made_by_model(there)
            if isinstance(gains, np.ndarray):
                correction = correction * gains[:there]
            elif gains != 1.0:
                correction = correction * np.float32(gains)
            part = slice(lead, lead + there)
            corrected = add_correction(out[:, part], correction)
            if there == count:
                out = corrected
            else:
                out = out.copy(order="K")
                out[:, part] = corrected
        self._owed += wanted - there
        return Mixed(out, late and not mute, repaired)

    def skip(self, count: int) -> None:
        """As `pull`, for samples that nobody waits for."""
        wanted = max(0, count - self._lead)
        in_time = self.missing(count) == 0
        assert in_time or self.reserve_samples, "without a reserve every correction is in time"
        self._lead -= count - wanted
        if wanted == 0:
            return
        there = min(wanted, len(self._correction))
        self._dry.drop(wanted)
        self._correction.drop(there)
        self._made_by_model(there)
        self._owed += wanted - there
        self._started = True
        self._in_time.value = self._in_time.target = float(in_time)  # the signal is interrupted here anyway

    def _made_by_model(self, count: int) -> bool:
        repaired = True
        while count:
            run = self._runs[0]
            taken = min(count, run[0])
            repaired &= bool(run[1])
            run[0] -= taken
            count -= taken
            if run[0] == 0:
                self._runs.popleft()
        return repaired

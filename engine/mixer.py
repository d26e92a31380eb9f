"""What a live stream gives back: its sound, delayed, and the change that repairs it wherever that has come in time."""

from __future__ import annotations

from collections import deque

import numpy as np

from ..bridge.osc import Status
from .dsp.fifo import Fifo
from .latency import reserve_samples

SETTING_FADE_S = 0.02


class _Ramp:
    """A gain that moves to its target in a straight line, `samples` from 0 to 1."""

    def __init__(self, samples: int, value: float) -> None:
        self.samples, self.value, self.target = samples, value, value

    def take(self, count: int) -> np.ndarray | float:
        """The next `count` gains (n,), or the one that they all are."""
        if self.value == self.target:
            return self.value
        way = self.target - self.value
        steps = np.arange(1, count + 1, dtype=np.float32) / np.float32(self.samples)
        gains = self.value + np.sign(way) * np.minimum(steps, abs(way))
        if count:
            self.value = float(gains[-1]) if steps[-1] < abs(way) else self.target
        return gains.astype(np.float32)


class Output:
    """Sound (C, n) goes in by `push`, its change by `push_change`, in order, and the sum comes out by `pull`,
    `latency_samples` after the sound, whenever it is asked for.

    Change that has not come when its sound goes out is left out: what is there is faded out over 5 ms before it ends
    (so that much of it must always be there beforehand: `reserve_samples`), and faded in again once it is in time.
    `wet` (0..1) and `bypass` scale the change, smoothed over 20 ms. Where the change is zero, the sound is the same
    bit for bit.
    """

    def __init__(self, sample_rate: int, channels: int, latency_samples: int) -> None:
        self.channels, self.latency_samples = channels, latency_samples
        self.reserve_samples = reserve_samples(sample_rate)
        self._dry, self._change = Fifo(), Fifo()
        self._lead = latency_samples  # silence that goes out before the first sound
        self._ready = 0  # samples in _change
        self._owed = 0  # samples whose change was not there in time: it is dropped when it comes
        self._runs: deque[list[int]] = deque()  # [samples, 1 where a model spoke], of those in _change
        self._heard = False
        self._ended = False
        self._share = _Ramp(self.reserve_samples, 1.0)
        self._setting = _Ramp(max(1, round(SETTING_FADE_S * sample_rate)), 1.0)
        self._wet, self._bypass = 1.0, False

    def push(self, block: np.ndarray) -> None:
        """The next sound (C, n), which must not change afterwards."""
        self._dry.push(block)

    def push_change(self, change: np.ndarray, spoken: bool) -> None:
        """The next change (C, n); spoken: a model made it, and not the lack of one."""
        drop = min(self._owed, change.shape[1])
        self._owed -= drop
        change = change[:, drop:]
        if count := change.shape[1]:
            self._change.push(change)
            self._ready += count
            self._runs.append([count, int(spoken)])

    def end(self) -> None:
        """No sound follows: what is still inside can be pulled."""
        self._ended = True

    def set(self, *, wet: float | None = None, bypass: bool | None = None, at_once: bool = False) -> None:
        """How much of the change is added from now on."""
        self._wet = self._wet if wet is None else wet
        self._bypass = self._bypass if bypass is None else bypass
        self._setting.target = 0.0 if self._bypass else self._wet
        if at_once:
            self._setting.value = self._setting.target

    @property
    def mute(self) -> bool:
        """Whether none of the change is heard, and none will be."""
        return self._setting.value == self._setting.target == 0.0

    def missing(self, count: int) -> int:
        """Samples of change that have to come before the next `count` samples can go out whole."""
        wanted = max(0, count - self._lead)
        if wanted == 0:
            return 0
        return max(0, wanted + (0 if self._ended else self.reserve_samples) + self._owed - self._ready)

    def pull(self, count: int) -> tuple[np.ndarray, Status]:
        """The next `count` samples (C, n), which must have been pushed, and what they are. Not to be written to."""
        lead = min(count, self._lead)
        wanted = count - lead
        in_time = self.missing(count) == 0
        self._lead -= lead
        if wanted == 0:
            return np.zeros((self.channels, count), np.float32), Status.WET
        out = self._dry.pop(wanted)
        if lead:
            out = np.concatenate([np.zeros((self.channels, lead), np.float32), out], axis=1)
        if not self._heard or self._setting.value == 0.0:
            self._share.value = float(in_time)  # nothing is heard that would have to fade
        self._heard = True
        self._share.target = float(in_time)
        there = min(wanted, self._ready)
        mute, spoken = self.mute, True
        share = self._share.take(wanted)
        late = isinstance(share, np.ndarray) or share < 1.0
        gains = share * self._setting.take(wanted)
        if there:
            change = self._change.pop(there)
            spoken = self._spoken(there)
            self._ready -= there
            if isinstance(gains, np.ndarray):
                change = change * gains[:there]
            elif gains != 1.0:
                change = change * np.float32(gains)
            part = slice(lead, lead + there)
            repaired = add_change(out[:, part], change, 1.0)
            if there == count:
                out = repaired
            else:
                out = out.copy(order="K")
                out[:, part] = repaired
        self._owed += wanted - there
        if late and not mute:
            return out, Status.LATE
        return out, Status.WET if spoken else Status.WARMING_UP

    def skip(self, count: int) -> None:
        """As `pull`, for samples that nobody waits for."""
        wanted = max(0, count - self._lead)
        in_time = self.missing(count) == 0
        self._lead -= count - wanted
        if wanted == 0:
            return
        there = min(wanted, self._ready)
        self._dry.drop(wanted)
        self._change.drop(there)
        self._spoken(there)
        self._ready -= there
        self._owed += wanted - there
        self._heard = True
        self._share.value = self._share.target = float(in_time)  # what follows is torn from what was before anyway

    def _spoken(self, count: int) -> bool:
        spoken = True
        while count:
            run = self._runs[0]
            taken = min(count, run[0])
            spoken &= bool(run[1])
            run[0] -= taken
            count -= taken
            if run[0] == 0:
                self._runs.popleft()
        return spoken


def add_change(dry: np.ndarray, change: np.ndarray, wet: float) -> np.ndarray:
    """dry + wet * change; where the change is zero the dry sample itself, bit for bit (a negative zero too)."""
    added = change if wet == 1.0 else np.float32(wet) * change
    return np.where(change == 0.0, dry, dry + added)

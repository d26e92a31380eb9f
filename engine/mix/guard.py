"""Watches the mix beside a live stem: uses it once it is proved, and leaves it out when it stops fitting."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np

from ..dsp.fifo import Fifo
from .fit import MAX_DELAY, Routing, find_routing, judge
from .locate import MAX_OFFSET_S, locate, max_offset_samples
from .statistics import PATCHES_PER_UNIT, PairStatistics
from .timing import TimeMap

FADE_S = 0.02
RECENT_UNITS = 6  # that are judged together, of about 0.3 s each
#: Judgements in a row that prove a mix, and where its delay cannot be told, as for a bass: more, and more of the stem.
PROOFS, PROOFS_WITHOUT_DELAY, PROJECTION_WITHOUT_DELAY = 4, 10, 0.8
LOSSES = 2  # and that lose it
SEARCH_S, SEARCH_EVERY_S = 3.0, 4.0  # of sound in which an offset is looked for, and how often

_SEARCHES = ThreadPoolExecutor(1, thread_name_prefix="stemprover-mix")


class MixState(IntEnum):
    """What is known of the mix beside a stem."""

    UNPROVED = 0
    USED = 1
    DOES_NOT_FIT = 2
    LATE = 3


@dataclass(frozen=True)
class MixReport:
    """The state, and by how many samples the mix comes later than the stem (below 0: earlier)."""

    state: MixState = MixState.UNPROVED
    late_samples: int = 0

    def __str__(self) -> str:
        """In words, for users."""
        early = f", {-self.late_samples} samples early: corrected" if self.late_samples < 0 else ""
        late = f"{self.late_samples} samples late, so it is left out; delay the track by as much"
        text = {
            MixState.UNPROVED: "listening",
            MixState.USED: f"in use{early}",
            MixState.DOES_NOT_FIT: "not this song, so it is left out",
            MixState.LATE: late,
        }[self.state]
        return f"side-chain: {text}"


class MixGuard:
    """`process` takes the next samples of stem and mix (C, n) and returns the mix as the stem needs it: in step, with
    its channels and polarity; the stem itself as long as the mix does not count. `uses_mix`: whether it counts.

    A mix that comes early is delayed, by up to MAX_OFFSET_S. The search for an offset has a thread of its own.
    """

    def __init__(self, sample_rate: int, channels: int) -> None:
        self.sample_rate, self.channels = sample_rate, channels
        self.report = MixReport()
        self._fade = max(1, round(FADE_S * sample_rate))
        self._delay = 0
        self._delayed = Fifo()
        self._routing = Routing(tuple(range(channels)), (1,) * channels)
        self._search: Future[tuple[int, bool]] | None = None
        self._amount = 0.0  # of the mix in what `process` returns
        self._heard: list[np.ndarray] = []  # the last seconds of stem and mix
        self._heard_samples = self._since_search = 0
        self._restart()

    @property
    def uses_mix(self) -> bool:
        """Whether the mix is proved."""
        return self.report.state is MixState.USED

    def _restart(self) -> None:
        self._statistics = PairStatistics(self.sample_rate, self.channels)
        self._good = self._bad = 0
        self._left = self._statistics.unit_samples

    def process(self, stem: np.ndarray, mix: np.ndarray) -> np.ndarray:
        """The mix as the stem needs it (C, n)."""
        self._hear(stem, mix)
        beside = self._in_step(mix)
        self._statistics.push(stem, beside)
        self._left -= stem.shape[1]
        if self._left <= 0:
            self._left += self._statistics.unit_samples
            self._judge()
            self._statistics.forget(4 * RECENT_UNITS * PATCHES_PER_UNIT)
        return self._faded(stem, beside)

    def _faded(self, stem: np.ndarray, beside: np.ndarray) -> np.ndarray:
        wanted = 1.0 if self.uses_mix else 0.0
        if self._amount == wanted:
            return self._routing.apply(stem, beside, (1.0,) * self.channels) if wanted else stem
        steps = np.arange(1, stem.shape[1] + 1) / self._fade
        amount = np.clip(self._amount + (steps if wanted else -steps), 0.0, 1.0).astype(np.float32)
        self._amount = float(amount[-1]) if len(amount) else self._amount
        found: np.ndarray = stem + amount * (self._routing.apply(stem, beside, (1.0,) * self.channels) - stem)
        return found

    def _in_step(self, mix: np.ndarray) -> np.ndarray:
        if not self._delay:
            return mix
        self._delayed.push(mix)
        return self._delayed.pop(mix.shape[1])

    def _judge(self) -> None:
        found = self._statistics.recent(RECENT_UNITS * PATCHES_PER_UNIT)
        if np.isnan(found.delays[-1:]).all() and not found.stem[-PATCHES_PER_UNIT:].any():
            return  # a silent stem proves nothing
        routing = self._routing if self.uses_mix else find_routing(found)
        fit = judge(found, TimeMap(), routing, (1.0,) * self.channels, located=False)
        fits = fit.found or fit.reason == "coded"  # which so short a part cannot tell
        if fits and fit.holds[-2:].any(axis=1).all():
            self._good, self._bad = self._good + 1, 0
        else:
            self._good, self._bad = 0, self._bad + 1
        in_step = int((np.abs(found.delays) < MAX_DELAY).sum())
        clear = in_step >= RECENT_UNITS // 2
        needed = PROOFS if clear else PROOFS_WITHOUT_DELAY
        if not self.uses_mix and not clear and fit.projection < PROJECTION_WITHOUT_DELAY:
            self._good, self._bad = 0, self._bad + 1
        if not self.uses_mix and self._good >= needed:
            self._routing = replace(routing, in_stem=False)  # the stem is not touched here
            self.report = MixReport(MixState.USED, -self._delay)
        elif self.uses_mix and self._bad >= LOSSES:
            self.report = MixReport(MixState.DOES_NOT_FIT)
            self._since_search = 0
        elif not self.uses_mix and self._bad:
            self._look_elsewhere()

    def _hear(self, stem: np.ndarray, mix: np.ndarray) -> None:
        """Keep what a search needs, as long as there may be one."""
        self._since_search += stem.shape[1]
        if self.uses_mix:
            self._heard, self._heard_samples = [], 0
            return
        self._heard.append(np.concatenate([stem, mix]))
        self._heard_samples += stem.shape[1]
        while self._heard_samples - self._heard[0].shape[1] > SEARCH_S * self.sample_rate:
            self._heard_samples -= self._heard.pop(0).shape[1]

    def _look_elsewhere(self) -> None:
        if self._search is not None:
            if self._search.done():
                offset, found = self._search.result()
                self._search = None
                self._found(offset, found)
            return
        waited = self._since_search >= SEARCH_EVERY_S * self.sample_rate or self.report.state is MixState.UNPROVED
        if self._heard_samples >= SEARCH_S * self.sample_rate and waited:
            self._since_search = 0
            both = np.concatenate(self._heard, axis=1)
            self._search = _SEARCHES.submit(_offset, both[: self.channels], both[self.channels :], self.sample_rate)

    def _found(self, offset: int, found: bool) -> None:
        if found and offset > 0:
            self.report = MixReport(MixState.LATE, offset)
        elif found and offset < 0 and -offset != self._delay:
            self._delay, self._delayed = -offset, Fifo()
            self._delayed.push(np.zeros((self.channels, self._delay), np.float32))
            self._restart()
            self.report = MixReport()
        else:
            self.report = MixReport(MixState.DOES_NOT_FIT)


class _Whole:
    """A mix in memory, with silence before and after it (locate.SampleSource)."""

    def __init__(self, mix: np.ndarray, before: int) -> None:
        self._mix = np.pad(mix, ((0, 0), (before, 0)))

    def take(self, samples: int) -> np.ndarray:
        """The next samples (C, samples)."""
        taken, self._mix = self._mix[:, :samples], self._mix[:, samples:]
        return np.pad(taken, ((0, 0), (0, samples - taken.shape[1])))


def _offset(stem: np.ndarray, mix: np.ndarray, sample_rate: int) -> tuple[int, bool]:
    """By how many samples the mix comes later, up to MAX_OFFSET_S, and whether the stem was found in it."""
    whole, _ = locate([stem], _Whole(mix, max_offset_samples(sample_rate)), sample_rate)
    return whole.offset_samples, whole.found and abs(whole.offset_samples) < MAX_OFFSET_S * sample_rate

"""Brings the stems of a set, and their mix, to the time that most of them have in common."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from ..engine.mix.fit import MixFit, Routing
from ..engine.mix.timing import Stretch, TimeMap
from .audiofile import BLOCK_SAMPLES, AudioInfo
from .mix_reader import MixReader, match_channels

SAME_TIME = 0.2  # samples by which fits that say the same may differ
WHOLE = 0.05  # samples


@dataclass(frozen=True)
class Placement:
    """How a stem gets to its set's common time. time: where each sample of the common time lies in the stem. sources:
    the stem's channel for each channel of the set. factors: what each channel is multiplied by."""

    time: TimeMap
    sources: tuple[int, ...]
    factors: tuple[float, ...]

    @classmethod
    def as_it_is(cls, channels: int) -> Placement:
        """The stem is not changed."""
        return cls(TimeMap(), tuple(range(channels)), (1.0,) * channels)

    @classmethod
    def between(cls, fit: MixFit, common: MixFit, samples: int) -> Placement:
        """For a stem that fits its mix in one way, in a set that fits it in another."""
        own, other = fit.routing, common.routing
        channels = len(own.signs)
        sources, signs = tuple(range(channels)), [a * b for a, b in zip(own.signs, other.signs, strict=True)]
        if own.sources is not None and other.sources is not None:
            sources = tuple(own.sources.index(source) for source in other.sources)
            signs = [own.signs[source] * other.signs[c] for c, source in enumerate(sources)]
        mean = float(np.mean(fit.gains))
        factors = tuple(sign * fit.gains[source] / mean for source, sign in zip(sources, signs, strict=True))
        return cls(_time_between(fit.time, common.time, samples), sources, factors)

    @property
    def is_plain(self) -> bool:
        """Whether the stem is not changed."""
        return self == self.as_it_is(len(self.factors))

    def scaled(self, gain: float) -> Placement:
        """The same placement at another level."""
        return Placement(self.time, self.sources, tuple(gain * factor for factor in self.factors))

    def read(self, stem: AudioInfo, samples: int) -> Iterator[np.ndarray]:
        """Blocks (C, n) of the stem in the common time."""
        reader, factors = MixReader(stem, self.time), np.array(self.factors, np.float32)[:, None]
        for start in range(0, samples, BLOCK_SAMPLES):
            audio = reader.take(min(BLOCK_SAMPLES, samples - start))
            if self.sources != tuple(range(len(audio))):
                audio = audio[list(self.sources)]
            yield audio if (factors == 1.0).all() else factors * audio

    def describe(self) -> list[str]:
        """What was wrong with the stem, in words."""
        found, by = [], self.time.stretches[0].offset
        if len(self.time.stretches) > 1 or self.time.stretches[0].drift:
            found.append("runs out of step")
        elif by:
            count = f"{abs(by):.10g}" if by == round(by) else f"{abs(by):.2f}"
            found.append(f"is {count} sample{'s' * (abs(by) != 1)} {'late' if by > 0 else 'early'}")
        if all(factor < 0 for factor in self.factors):
            found.append("has inverted polarity")
        elif any(factor < 0 for factor in self.factors):
            found.append("has inverted polarity in some channels")
        if list(self.sources) != sorted(self.sources):
            found.append("has its channels swapped")
        if len({abs(factor) for factor in self.factors}) > 1:
            found.append("has another balance")
        return found


def common_fit(fits: Sequence[MixFit], samples: int) -> MixFit:
    """The fit that most stems have in time and routing; of several, the one whose offset is least."""
    at = np.linspace(0, samples, 16)
    offsets = [fit.time.offsets(at) for fit in fits]

    def agreeing(number: int) -> tuple[int, float]:
        same = sum(
            float(np.abs(other - offsets[number]).max()) < SAME_TIME and fit.routing == fits[number].routing
            for other, fit in zip(offsets, fits, strict=True)
        )
        wrong = sum(sign < 0 for sign in fits[number].routing.signs)
        return same, -float(np.abs(offsets[number]).max()) - wrong

    return fits[max(range(len(fits)), key=agreeing)]


def read_beside(mix: AudioInfo, common: MixFit, totals: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """The mix (C, n) beside blocks of the sum of the stems (C, n), which takes its place where the mix has no
    samples."""
    reader, position = MixReader(mix, common.time), 0
    for total in totals:
        count = total.shape[1]
        audio = match_channels(reader.take(count), len(total))
        covered = reader.covers(position, count)
        position += count
        yield np.where(covered, _routed(audio, common.routing, total), total)


def _routed(mix: np.ndarray, routing: Routing, total: np.ndarray) -> np.ndarray:
    if routing.sources is None:  # only the mean of the channels is known
        return total + (np.float32(routing.signs[0]) * mix.mean(axis=0) - total.mean(axis=0))
    found: np.ndarray = np.array(routing.signs, np.float32)[:, None] * mix[list(routing.sources)]
    return found


def _time_between(own: TimeMap, common: TimeMap, samples: int) -> TimeMap:
    """Where sample n of the common time lies in a stem, if both lie in the same mix as these maps say."""

    def offsets(at: np.ndarray) -> np.ndarray:
        found = common.offsets(at)
        moved = found - own.offsets(at)
        for _ in range(2):
            moved = found - own.offsets(at + moved)
        result: np.ndarray = moved
        return result

    def start_of(stretch: Stretch) -> int:
        at = stretch.start + stretch.offset
        return round(at - float(common.offsets(np.array([at]))[0]))

    starts = {0, *(s.start for s in common.stretches[1:]), *(start_of(s) for s in own.stretches[1:])}
    edges = [*sorted(start for start in starts if 0 <= start < samples), samples]
    stretches = []
    for start, end in pairwise(edges):
        inside = np.array([0.75 * start + 0.25 * end, 0.25 * start + 0.75 * end])  # apart from the slips at the ends
        one, two = (float(value) for value in offsets(inside))
        drift = float((two - one) / (inside[1] - inside[0])) if 2 * abs(two - one) > WHOLE else 0.0
        first = float(one - drift * (inside[0] - start))
        whole = not drift and abs(first - round(first)) < WHOLE
        stretches.append(Stretch(start, float(round(first)) if whole else first, drift))
    return TimeMap(tuple(stretches))

"""Judges from the statistics of stem and mix whether the mix contains the stem, where, and in which channels."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np

from .condition import ALONE, MixCondition, measure_condition
from .statistics import AUDIBLE, Statistics, weighted_quantiles
from .timing import TimeMap

#: The projection <stem, mix> / <stem, stem> is near 1 in the right mix, whatever is wrong with the stem (0.65 for
#: stems with scrambled phases), and 0 to 0.3 in the rest of the song.
MIN_PROJECTION = 0.25
#: A stem is missing from a patch of the mix that has less than half of its power, and hardly its sound. In the rest of
#: the song that holds for about half of the stem's energy and more; in the right mix for at most a hundredth. Where a
#: mix at its right level has less than half of the stem's power for longer, it is not the stem's.
HALF, MAX_LACK = 0.5, 0.3
#: Less than this share of the stem's energy proved, and the whole mix is left out.
MIN_PROVED = 0.4
#: A unit and its neighbours count as so many independent measurements. What is less certain than MAX_UNSURE decides
#: nothing.
INDEPENDENT, MAX_UNSURE = 200.0, 0.4
ALWAYS = 0.9  # of a channel's energy
FAINT = 1e-4  # power of a unit relative to the loudest, below which it decides nothing
MAX_DELAY = 0.75  # samples by which a unit may be off
EXACT = 0.1  # samples within which a unit is exactly in step
#: (share of the stem, the lower quantile of its gain there, how many decibels that is at most from the median, from how
#: many decibels below 0 on it is not 1). A mix that is a little louder may be a separator's mask, a much louder one
#: bleed.
STEADY = ((0.3, 0.1, 1.0, 0.5), (0.1, 0.2, 0.2, 0.2))
MIN_LOUDER_DB = 0.5
SAME_GAIN = 1.02
LEAST_STEADY_DB, MAX_STEADY_DB = -24.0, 6.0
DUAL_MONO = 1e-4  # power of the side relative to the whole, in a mix with two equal channels
MOST_STEREO = 0.2  # of the energy of a mix with equal channels, from where it has ended
MIN_SIDE_SHARE = 1e-3  # of the stem's power, so that left and right can be told apart
MIN_LEVEL_SHARE = 1e-5  # power of a channel relative to the loudest one's, below which it is dead


@dataclass(frozen=True)
class Routing:
    """Which channel of the mix belongs to each channel of the stem. sources: their numbers; None: only the mean of the
    mix's channels is known, and it is compared with the mean of the stem's. signs: -1 for inverted polarity. in_stem:
    whether it is the stem whose channels have different polarities, not the mix."""

    sources: tuple[int, ...] | None
    signs: tuple[int, ...]
    in_stem: bool = False

    @property
    def is_plain(self) -> bool:
        """Whether channels and polarities are the same."""
        return self.sources == tuple(range(len(self.signs))) and all(sign > 0 for sign in self.signs)

    def apply(self, stem: np.ndarray, mix: np.ndarray, gains: Sequence[float]) -> np.ndarray:
        """The mix (C, n) with the channels, polarities and levels of the stem (C, n)."""
        signs = (1,) * len(self.signs) if self.in_stem else self.signs
        factors = [sign / gain for sign, gain in zip(signs, gains, strict=True)]
        if self.sources is None:
            mean = np.float32(factors[0]) * mix.mean(axis=0, keepdims=True)
            return stem + (mean - stem.mean(axis=0, keepdims=True))
        ordered = mix if self.sources == tuple(range(len(mix))) else mix[list(self.sources)]
        if all(factor == 1.0 for factor in factors):
            return ordered
        found: np.ndarray = np.array(factors, np.float32)[:, None] * ordered
        return found


@dataclass(frozen=True)
class MixFit:
    """How a mix is brought to its stem, and where it holds.

    time: the time map. routing: the channels. gains: of the stem in the mix relative to its file, for each channel of
    the stem, all above 0. holds (U, C): where the mix is proved to contain the stem, in units of `unit_samples`.
    condition: what else happened to the mix. proved: share of the stem's energy in units that hold. projection, lack:
    of the whole. reason: why the mix is left out; empty if it is used.
    """

    time: TimeMap
    routing: Routing
    gains: tuple[float, ...]
    holds: np.ndarray
    unit_samples: int
    condition: MixCondition | None = None
    proved: float = 1.0
    projection: float = 1.0
    lack: float = 0.0
    reason: str = ""
    dead: tuple[int, ...] = field(default=())

    @classmethod
    def shifted(cls, channels: int, offset: float, gain: float = 1.0) -> MixFit:
        """For a mix that only differs in time, and in polarity where `gain` is negative."""
        routing = Routing(tuple(range(channels)), (-1 if gain < 0 else 1,) * channels)
        return cls(TimeMap.constant(offset), routing, (abs(gain),) * channels, np.ones((1, channels), bool), 1 << 30)

    @property
    def copied(self) -> tuple[int, int] | None:
        """The dead channel of a stereo stem, and the live one that takes its place for the repair: beside silence, a
        repair that hears both channels would take half of the sound for a fault."""
        return (self.dead[0], 1 - self.dead[0]) if len(self.gains) == 2 and len(self.dead) == 1 else None

    def prepare(self, audio: np.ndarray) -> np.ndarray:
        """Audio (C, n) of the stem as it is repaired: with the same polarity and life in all channels."""
        made = self._with_signs(audio)
        if self.found and self.copied is not None:
            made = made.copy()
            made[self.copied[0]] = made[self.copied[1]]
        return made

    def restore(self, repaired: np.ndarray, original: np.ndarray) -> np.ndarray:
        """The inverse of `prepare`, for repaired samples; a dead channel stays as it was."""
        made = self._with_signs(repaired)
        if self.found and self.copied is not None:
            made = made.copy()
            made[self.copied[0]] = original[self.copied[0]]
        return made

    def _with_signs(self, audio: np.ndarray) -> np.ndarray:
        if not self.found or not self.routing.in_stem:
            return audio
        made: np.ndarray = np.array(self.routing.signs, audio.dtype)[:, None] * audio
        return made

    @property
    def found(self) -> bool:
        """Whether the mix is used at all."""
        return not self.reason


@dataclass(frozen=True)
class Lanes:
    """Statistics of the channels that are compared: cross (P, C, B), stem and mix (P, C, B)."""

    cross: np.ndarray
    stem: np.ndarray
    mix: np.ndarray


def find_routing(found: Statistics) -> Routing:
    """Which channels belong together, and their polarities."""
    channels = found.stem.shape[1]
    cross = found.cross.real.sum(axis=(0, 3), dtype=np.float64)
    stem = found.stem.sum(axis=(0, 2), dtype=np.float64)
    sources: tuple[int, ...] | None = tuple(range(channels))
    if channels == 2:
        stem_side = stem.sum() - 2 * float(found.sides[:, 0].real.sum())
        if stem_side > MIN_SIDE_SHARE * stem.sum():
            straight, crossed = np.abs(cross[[0, 1], [0, 1]]).sum(), np.abs(cross[[0, 1], [1, 0]]).sum()
            if _is_dual_mono(found):
                sources = None
            elif crossed - straight > 0.3 * min(stem_side, 2 * stem.sum() - stem_side):
                sources = (1, 0)
    if sources is None:
        sign = -1 if cross.sum() < 0 else 1
        return Routing(None, (sign,) * channels)
    signs = tuple(-1 if cross[c, d] < 0 else 1 for c, d in enumerate(sources))
    # The middle of a mix is louder than its sides, unless one of its channels is inverted.
    in_stem = channels == 2 and signs[0] != signs[1] and float(found.sides[:, 1].real.sum()) > 0
    return Routing(sources, signs, in_stem)


def _is_dual_mono(found: Statistics) -> bool:
    """Whether both channels of the mix are equal, but for a few places: where the mix has ended there is the stem in
    its place."""
    power = found.mix.sum(axis=(1, 2))
    side = power - 2 * found.sides[:, 1].real.sum(axis=-1)
    return bool(power[side > DUAL_MONO * power].sum() < MOST_STEREO * power.sum())


def lanes_of(found: Statistics, routing: Routing, gains: Sequence[float]) -> Lanes:
    """The statistics as they are once the mix is routed, and divided by the gains."""
    if routing.sources is None:
        cross = found.cross.sum(axis=(1, 2))[:, None] / 4
        stem = (found.stem.sum(axis=1) + 2 * found.sides[:, 0].real)[:, None] / 4
        mix = (found.mix.sum(axis=1) + 2 * found.sides[:, 1].real)[:, None] / 4
        factor = np.array([routing.signs[0] / gains[0]], np.float32)[:, None]
    else:
        order = list(routing.sources)
        cross = found.cross[:, range(len(order)), order]
        stem, mix = found.stem, found.mix[:, order]
        factor = np.array([sign / gain for sign, gain in zip(routing.signs, gains, strict=True)], np.float32)[:, None]
    return Lanes(cross * factor, stem, mix * factor**2)


def steady_gains(found: Statistics, routing: Routing) -> tuple[float | None, ...]:
    """The gain of each channel of the stem in the mix from all places where it is alone; None where they do not agree.

    A separator's mask raises the gain of some places, and a limiter spreads it, so the lower half counts, by energy:
    there validation stems have -0.4 to +0.4 dB, with all kinds of faults."""
    channels = len(routing.signs)
    lanes, gains = lanes_of(found, routing, (1.0,) * channels), list[float | None]()
    for c in range(lanes.stem.shape[1]):
        cross, stem, mix = lanes.cross[:, c], lanes.stem[:, c], lanes.mix[:, c]
        audible = stem > AUDIBLE * stem.max(axis=0, initial=0.0)
        alone = audible & (cross.real > 0) & (np.abs(cross) ** 2 > (1.0 - ALONE) * stem * mix)
        db = 20 * np.log10(cross[alone].real / stem[alone])
        share = float(stem[alone].sum() / max(float(stem.sum()), 1e-30))
        gains.append(None)
        if share < min(STEADY)[0]:
            continue
        for least, first, spread_db, off_db in STEADY:
            low, middle, high = weighted_quantiles(db, stem[alone], (first, 0.35, 0.5))
            if share >= least and high - low <= spread_db and LEAST_STEADY_DB < middle < MAX_STEADY_DB:
                gains[c] = 1.0 if -off_db <= middle <= MIN_LOUDER_DB else 10 ** (middle / 20)
    known = [gain for gain in gains if gain is not None]
    if known and max(known) < SAME_GAIN * min(known):
        gains = [None if gain is None else float(np.mean(known)) for gain in gains]
    return tuple(gains) if len(gains) == channels else tuple(gains) * channels


def completed_gains(gains: Sequence[float | None], found: Statistics, routing: Routing) -> tuple[float, ...]:
    """An unknown gain is another channel's, if the mix contains as much of both, else 1."""
    lanes = lanes_of(found, routing, (1.0,) * len(gains))
    known = [(c, gain) for c, gain in enumerate(gains) if gain is not None]
    contained = lanes.cross.real.sum(axis=(0, 2)) / np.maximum(lanes.stem.sum(axis=(0, 2)), 1e-30)
    made = [1.0 if gain is None else gain for gain in gains]
    for c in range(len(gains) if len(contained) == len(gains) else 0):
        for other, gain in known:
            if gains[c] is None and 0.84 < contained[c] / max(float(contained[other]), 1e-9) < 1.19:
                made[c] = gain
    return tuple(made)


def judge(
    found: Statistics, time: TimeMap, routing: Routing, gains: tuple[float, ...], *, located: bool = True
) -> MixFit:
    """Where the mix holds, from statistics that were measured with this time map. located: whether a search for the
    stem in the mix has found it; otherwise the statistics have to prove it by themselves."""
    lanes, unit_samples = lanes_of(found, routing, gains), found.unit_samples
    channels = len(gains)
    spectra = found.spectra / [[1.0], [np.mean(gains) ** 2]]
    rate = unit_samples / found.unit_s
    condition = measure_condition(lanes.cross, lanes.stem, lanes.mix, found.edges_hz, spectra, rate)
    if condition is not None:
        lanes = Lanes(lanes.cross / condition.tone, lanes.stem, lanes.mix / condition.tone**2)
    power = lanes.stem.sum(axis=-1)  # (P, C)
    absent = (lanes.mix < HALF * lanes.stem) & (lanes.cross.real < MIN_PROJECTION * lanes.stem)
    missing = np.where(absent, lanes.stem, 0.0).sum(axis=-1)
    shared = lanes.cross.real.sum(axis=-1)
    sums = (power, missing, shared, lanes.mix.sum(axis=-1))
    stem, lack, cross, mix = (_three(found.by_unit(x.astype(np.float64))) for x in sums)
    with np.errstate(divide="ignore", invalid="ignore"):
        unsure = np.sqrt(mix / stem / INDEPENDENT)  # of the projection, beside a mix that is much louder
        contained = cross / stem
        usual = contained[(stem > FAINT * stem.max(initial=0.0)) & (unsure < MAX_UNSURE)]
        # Elsewhere in the song there may be something alike.
        least = max(MIN_PROJECTION, 0.5 * float(np.median(usual)) if len(usual) else 0.0)
        lacks = (lack / stem >= MAX_LACK) | (mix < HALF * stem)
        good = (contained > least) & ~lacks
        bad = (contained + 2 * unsure < least) | lacks
    delays = np.full(len(stem), np.nan)  # of a unit that has not ended there is none
    delays[: len(found.delays)] = found.delays[: len(stem)]
    off = _are_off(delays)
    off |= _is_out_of_step(delays, time, unit_samples)
    good &= ~off[:, None]
    bad |= off[:, None]
    loud = stem > FAINT * stem.max(initial=0.0)
    # A mix is elsewhere in all channels at once, but for one of them that it never holds.
    wrong = bad & loud & (np.where(loud & bad, stem, 0.0).sum(axis=0) < ALWAYS * stem.sum(axis=0))
    wrong = np.broadcast_to(wrong.any(axis=1, keepdims=True), bad.shape)
    good, bad = good & ~wrong, bad | wrong
    decided = loud & (bad | (good & (unsure < MAX_UNSURE)))
    for first, last in pairwise([*(s.start // unit_samples for s in time.stretches), len(stem)]):
        part = slice(first, last)  # an offset that was found by chance holds here and there
        if len(time.stretches) > 1 and stem[part][bad[part]].sum() > stem[part][(good & decided)[part]].sum():
            good[part], decided[part] = False, True
    holds = _with_margin(_fill(good, decided))
    total = power.sum(axis=0, dtype=np.float64)
    dead = tuple(c for c in range(power.shape[1]) if total[c] <= MIN_LEVEL_SHARE * total.max(initial=0.0))
    holds[:, list(dead)] = False
    own, own_missing = (found.by_unit(x.astype(np.float64)) for x in (power, missing))
    audible = float(own.sum())
    proved = float((own * holds).sum()) / audible if audible else 1.0
    evidence = float((own * (good & decided)).sum()) / audible if audible else 1.0
    projection = float(shared.sum()) / audible if audible else 1.0
    lacking = float(missing.sum()) / audible if audible else 0.0
    if holds.shape[1] < channels:
        holds = np.repeat(holds, channels, axis=1)
    fit = MixFit(time, routing, gains, holds, unit_samples, condition, proved, projection, lacking, dead=dead)
    if condition is not None and condition.is_coded and proved >= MIN_PROVED:
        # What could be gained with such a mix is less than what its noise does to the stem.
        return replace(fit, reason="coded")
    held_lack = float((own_missing * holds).sum()) / max(float((own * holds).sum()), 1e-30)
    if min(proved, 1.0 if located else evidence) < MIN_PROVED or held_lack > MAX_LACK:
        return MixFit(
            time, routing, gains, holds, unit_samples, None, proved, projection, lacking,
            reason="rest" if lacking > MAX_LACK / 2 or projection < 0.5 else "unproved", dead=dead,
        )  # fmt: skip
    return fit


def _three(values: np.ndarray) -> np.ndarray:
    """Sums of each unit and its neighbours."""
    padded = np.pad(values, ((1, 1), (0, 0)))
    return padded[:-2] + padded[1:-1] + padded[2:]


def _are_off(delays: np.ndarray) -> np.ndarray:
    """Where the mix comes early or late: in most of five neighbouring units by nearly the same number of samples, since
    a single measurement may be wrong."""
    if not len(delays):
        return np.zeros(0, bool)
    near = np.lib.stride_tricks.sliding_window_view(np.pad(np.nan_to_num(delays), 2), 5)
    middle = np.median(near, axis=-1)
    agree = (np.abs(near - middle[:, None]) < MAX_DELAY).sum(axis=-1)
    found: np.ndarray = (np.abs(middle) > MAX_DELAY) & (agree >= 4)
    return found


def _is_out_of_step(delays: np.ndarray, time: TimeMap, unit_samples: int) -> np.ndarray:
    """Units (U,) of stretches in which far fewer units are exactly in step than in others: what looks like the stem
    there is another sound like it, such as the next round of a loop."""
    found = np.zeros(len(delays), bool)
    starts = [0, *(min(len(delays), round(s.start / unit_samples)) for s in time.stretches[1:]), len(delays)]
    spans = [slice(a, b) for a, b in pairwise(starts)]
    shares = [float(np.mean(np.abs(delays[span]) < EXACT)) if span.stop > span.start else 1.0 for span in spans]
    for span, share in zip(spans, shares, strict=True):
        found[span] = share < 0.6 * max(shares) and max(shares) > 0.4
    return found


def _with_margin(holds: np.ndarray) -> np.ndarray:
    """Holds (U, C) without the units next to one that does not hold: an edit may be anywhere in them."""
    padded = np.pad(holds, ((1, 1), (0, 0)), constant_values=True)
    found: np.ndarray = padded[:-2] & padded[1:-1] & padded[2:]
    return found


def _fill(good: np.ndarray, loud: np.ndarray) -> np.ndarray:
    """Quiet units hold if the loud ones before and after them do."""
    holds = np.ones_like(good)
    for c in range(good.shape[1]):
        places = np.flatnonzero(loud[:, c])
        if not len(places):
            continue
        before = np.searchsorted(places, np.arange(len(good)), side="right") - 1
        after = np.searchsorted(places, np.arange(len(good)), side="left")
        known = good[places, c]
        holds[:, c] = known[np.clip(before, 0, None)] & known[np.clip(after, None, len(places) - 1)]
    return holds

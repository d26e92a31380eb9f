"""Proves a mix: aligns it with its stem, and finds out where it contains the stem."""

from __future__ import annotations

import heapq
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise

import numpy as np

from ..engine.mix.fit import MixFit, Routing, completed_gains, find_routing, judge, steady_gains
from ..engine.mix.levels import GainEvidence, estimate_gain
from ..engine.mix.locate import WINDOW_S, WINDOWS, locate, max_offset_samples
from ..engine.mix.statistics import MIN_POWER, PairStatistics, Statistics
from ..engine.mix.timing import TimeMap, fit_time_map
from .audiofile import AudioInfo, AudioReader, clock
from .mix_reader import MixReader, SampleReader, match_channels

SAME_OFFSET = 0.015  # samples
MOST_PASSES = 3  # in which an offset with a fraction, or a drift, is measured
MIN_DELAYS = 4  # measurements that a finer time map needs
SAME_LENGTH_S = 0.01  # of a stem and the rest of its song
JUMP_REACH_S, JUMP_STEP = 2.0, 441  # how far around a jump, and in what steps in samples, its place is looked for
SMOOTHED = 8  # samples
SEPARATE_DB = 0.3  # channels whose levels differ by more have levels of their own

Excerpts = list[tuple[np.ndarray, np.ndarray]]


def prove(stem: AudioInfo, mix: AudioInfo) -> MixFit:
    """How the mix fits the stem; both have the same sample rate. Raises AudioFileError."""
    with AudioReader(stem) as reader:
        blocks = (reader.codec.decode(block) for block in reader.blocks())
        early = _open_early(mix)
        whole, time = locate(blocks, _Matching(early, stem.channels), stem.sample_rate)
    time = _place_jumps(stem, mix, time)
    found, excerpts = _measure(stem, mix, time)
    for _ in range(MOST_PASSES):
        if (finer := _finer(time, found, mix.samples)) is None:
            break
        time = _place_jumps(stem, mix, finer)
        found, excerpts = _measure(stem, mix, time)
    routing = find_routing(found)
    known = steady_gains(found, routing)
    if None in known:
        frequent = _gains(excerpts, routing, stem.sample_rate)
        known = tuple(one or (two if two != 1.0 else None) for one, two in zip(known, frequent, strict=True))
    gains = completed_gains(known, found, routing)
    fit = judge(found, time, routing, gains, located=whole.found)
    if not fit.found and fit.reason == "rest" and abs(stem.samples - mix.samples) > SAME_LENGTH_S * stem.sample_rate:
        return replace(fit, reason="other")
    return fit


def _open_early(mix: AudioInfo) -> MixReader:
    """Read a mix as `locate` needs it: from MAX_OFFSET_S before its start."""
    return MixReader(mix, TimeMap.constant(-max_offset_samples(mix.sample_rate)))


class _Matching:
    """A mix with as many channels as the stem."""

    def __init__(self, mix: MixReader, channels: int) -> None:
        self._mix, self._channels = mix, channels

    def take(self, samples: int) -> np.ndarray:
        """The next samples (C, samples)."""
        return match_channels(self._mix.take(samples), self._channels)


def _measure(stem: AudioInfo, mix: AudioInfo, time: TimeMap) -> tuple[Statistics, Excerpts]:
    """Statistics of the pair with this time map, and the loudest excerpts of both (C, n)."""
    statistics = PairStatistics(stem.sample_rate, stem.channels)
    mixes = MixReader(mix, time)
    loudest: list[tuple[float, int, np.ndarray, np.ndarray]] = []
    size, position = round(WINDOW_S * stem.sample_rate), 0
    for number, audio in enumerate(_windows(stem, size)):
        covered = mixes.covers(position, audio.shape[1])
        beside = np.where(covered, match_channels(mixes.take(audio.shape[1]), stem.channels), audio)
        position += audio.shape[1]
        statistics.push(audio, beside)
        power = float(np.mean(audio.astype(np.float64) ** 2)) * audio.shape[1] / size
        if power > MIN_POWER:
            heapq.heappush(loudest, (power, number, audio, beside))
            if len(loudest) > WINDOWS:
                heapq.heappop(loudest)
    return statistics.finish(), [(audio, beside) for _, _, audio, beside in loudest]


def _windows(info: AudioInfo, size: int) -> Iterator[np.ndarray]:
    with AudioReader(info) as reader:
        for native in reader.blocks(size):
            yield reader.codec.decode(native)


def _finer(time: TimeMap, found: Statistics, mix_samples: int) -> TimeMap | None:
    """A time map that follows the measured delays; None if this one does."""
    edges = found.unit_samples * np.arange(len(found.delays) + 1)
    at = edges + time.offsets(edges)
    known = np.flatnonzero(~np.isnan(found.delays) & (at[:-1] >= 0) & (at[1:] <= mix_samples))
    if len(known) < MIN_DELAYS:
        return None
    positions = (known + 0.5) * found.unit_samples
    before = time.offsets(positions)
    finer = fit_time_map(positions, before + found.delays[known])
    return finer if np.abs(finer.offsets(positions) - before).max() > SAME_OFFSET else None


def _place_jumps(stem: AudioInfo, mix: AudioInfo, time: TimeMap) -> TimeMap:
    """Every stretch after the first begins where the correlation with its own offset takes over from the one before."""
    stems, mixes = SampleReader(stem), SampleReader(mix)
    stretches = list(time.stretches)
    for number in range(1, len(stretches)):
        before, after = stretches[number - 1], stretches[number]
        reach = round(JUMP_REACH_S * stem.sample_rate)
        first = max(0, before.start, after.start - reach)
        last = min([stem.samples, after.start + reach] + [s.start for s in stretches[number + 1 : number + 2]])
        count = (last - first) // JUMP_STEP
        if count < 2:
            continue
        length = count * JUMP_STEP + 2 * SMOOTHED - 1
        part = _middle_band(stems.read(first, first + length))
        likeness = []
        for stretch in (before, after):
            at = first + round(float(stretch.at(first + count * JUMP_STEP / 2)))
            shared = part * _middle_band(match_channels(mixes.read(at, at + length), stem.channels))
            likeness.append(shared.reshape(len(shared), count, JUMP_STEP).sum(axis=(0, 2)))
        gain = np.concatenate([[0.0], np.cumsum(likeness[0] - likeness[1])])
        start = first + int(np.argmax(gain)) * JUMP_STEP
        stretches[number] = replace(after, start=start, offset=float(after.at(start)) if after.drift else after.offset)
    return TimeMap(tuple(stretches))


def _middle_band(audio: np.ndarray) -> np.ndarray:
    """Audio (C, T) around 2 kHz, (C, T - 2 SMOOTHED + 1). In the highs an offset of a sample or two, as a drift leaves
    it, hides what is in step."""
    sums = np.cumsum(np.pad(audio.astype(np.float64), ((0, 0), (1, 0))), axis=1)
    smooth = sums[:, SMOOTHED:] - sums[:, :-SMOOTHED]
    found: np.ndarray = smooth[:, SMOOTHED:] - smooth[:, :-SMOOTHED]
    return found


def _gains(excerpts: Excerpts, routing: Routing, sample_rate: int) -> tuple[float, ...]:
    """The gain of each channel of the stem in the mix; one for all, unless they clearly differ."""
    channels = len(routing.signs)
    if routing.sources is None:
        routed = [
            (s.mean(axis=0, keepdims=True), np.float32(routing.signs[0]) * m.mean(axis=0, keepdims=True))
            for s, m in excerpts
        ]
        return (estimate_gain(routed, sample_rate),) * channels
    found = [GainEvidence.none()] * channels
    for s, m in excerpts:
        for c, (source, sign) in enumerate(zip(routing.sources, routing.signs, strict=True)):
            found[c] += GainEvidence.of(s[c], np.float32(sign) * m[source], sample_rate)
    common, own = sum(found, GainEvidence.none()).gain, [one.gain for one in found]
    if max(abs(20 * np.log10(gain / common)) for gain in own) > SEPARATE_DB and len(set(own)) > 1:
        return tuple(own)
    return (common,) * channels


def mix_notes(fit: MixFit, stem: AudioInfo, mix: AudioInfo) -> list[str]:
    """What users should know about how the mix fits: what was corrected, and where it was left out."""
    rate = stem.sample_rate
    if not fit.found:
        return [_left_out_note(fit, mix)]
    notes = [_corrections(fit, rate)]
    if stretches := _left_out(fit, stem):
        notes.append(f"mix does not fit at {stretches}: left out there")
    if fit.condition is not None and fit.condition.ceiling_hz < np.inf:
        notes.append(f"mix has nothing above {fit.condition.ceiling_hz / 1000:.1f} kHz: the stem stays as it is there")
    notes += _coverage(fit, stem, mix)
    return [note for note in notes if note]


def _left_out_note(fit: MixFit, mix: AudioInfo) -> str:
    if fit.reason == "rest":
        return (
            f"this looks like the rest of the song, not the mix, so it was left out; if {mix.path.name} is all of the "
            "song but this stem, pass it with --rest"
        )
    if fit.reason == "other":
        return (
            "stem not found in the mix, so the mix was left out: is it the right song, and do both start within 0.5 s? "
            f"If {mix.path.name} is the rest of the song without this stem, pass it with --rest"
        )
    if fit.reason == "coded":
        return (
            "the mix was coded (MP3, Opus or the like) after the stem was made, so it was left out: its noise would "
            "get into the stem; use the mix as it was before"
        )
    share = f"{100 * fit.proved:.0f}%"
    return f"the mix fits only {share} of the stem, so it was left out: is it the same version of the song?"


def _corrections(fit: MixFit, rate: int) -> str:
    mix_parts, stem_parts, stretches = list[str](), list[str](), fit.time.stretches
    if len(stretches) > 1:
        jumps = [
            f"{later.offset - float(earlier.at(later.start)):+.3g} samples at {clock(later.start / rate)}"
            for earlier, later in pairwise(stretches)
        ]
        mix_parts.append(f"slips by {_list(jumps)}")
    if abs(stretches[0].offset) > 0.1:
        count = abs(stretches[0].offset)
        when = "before" if stretches[0].offset > 0 else "after"
        mix_parts.append(f"starts {1000 * count / rate:.3g} ms ({_samples(count)}) {when} the stem")
    if drift := max((s.drift for s in stretches), key=abs):
        mix_parts.append(f"runs {abs(drift) * 1e6:.3g} ppm {'slower' if drift > 0 else 'faster'} than the stem")
    routing = fit.routing
    names = ("left", "right") if len(routing.signs) == 2 else tuple(str(n + 1) for n in range(len(routing.signs)))
    if routing.sources is None:
        mix_parts.append("is the same in both channels")
    elif routing.sources != tuple(range(len(routing.sources))):
        mix_parts.append("has left and right swapped")
    if all(sign < 0 for sign in routing.signs):
        mix_parts.append("has inverted polarity")
    elif any(sign < 0 for sign in routing.signs):
        wrong = [names[c] for c, sign in enumerate(routing.signs) if sign < 0]
        places = f"inverted polarity in the {_list(wrong)} channel{'s' * (len(wrong) > 1)}"
        (stem_parts if routing.in_stem else mix_parts).append(f"has {places}")
    if fit.condition is not None and (fit.condition.tone != 1.0).any():
        low, high = 20 * np.log10(fit.condition.tone.min()), 20 * np.log10(fit.condition.tone.max())
        mix_parts.append(f"has another tone ({low:+.1f} to {high:+.1f} dB)")
    parts = [f"{what} {_list(said)}" for what, said in (("mix", mix_parts), ("stem", stem_parts)) if said]
    levels = [20 * float(np.log10(gain)) for gain in fit.gains]
    if len(set(fit.gains)) == 1 and levels[0]:
        parts.append(f"stem is {_level(levels[0])} than in the mix")
    elif any(levels):
        parts.append(
            _list([f"{name} is {_level(db)}" for name, db in zip(names, levels, strict=True) if db])
            + " than in the mix"
        )
    return f"{', '.join(parts)}: corrected" if parts else ""


def level_db(fit: MixFit) -> float:
    """How much louder the stem is in the mix than in its file, as a mean over the channels."""
    return float(np.mean(20 * np.log10(fit.gains))) if fit.found else 0.0


def _level(db: float) -> str:
    return f"{abs(db):.1f} dB {'quieter' if db > 0 else 'louder'}"


def _left_out(fit: MixFit, stem: AudioInfo) -> str:
    """Where the mix does not hold; channels that are dead or silent do not count."""
    live = [c for c in range(fit.holds.shape[1]) if c not in fit.dead]
    bad = ~fit.holds[:, live].all(axis=1)
    edges = np.flatnonzero(np.diff(np.concatenate([[False], bad, [False]]).astype(int)))
    spans = []
    for first, last in zip(edges[::2], edges[1::2], strict=True):
        ends = [min(n * fit.unit_samples, stem.samples) / stem.sample_rate for n in (first, last)]
        spans.append(f"{clock(ends[0])} to {clock(ends[1])}")
    shown = spans[:4]
    more = f" and {len(spans) - 4} more places" if len(spans) > 4 else ""
    return ", ".join(shown) + more


IGNORED_GAP_S = 0.01  # an offset leaves a gap in the mix at one end of the stem; a shorter one is not reported


def _coverage(fit: MixFit, stem: AudioInfo, mix: AudioInfo) -> list[str]:
    first, last = (float(x) for x in fit.time.offsets(np.array([0, stem.samples])))
    missing = {"start": max(round(-first), 0), "end": max(0, round(stem.samples + last - mix.samples))}
    total = sum(missing.values())
    if total > IGNORED_GAP_S * stem.sample_rate or (total and not first and not last):
        places = " and ".join(f"{_samples(count)} at the {end}" for end, count in missing.items() if count)
        return [f"the mix does not cover {places} of the stem: repaired as if nothing else played there"]
    if not first and not last and mix.samples > stem.samples:
        return [f"mix is {mix.samples - stem.samples} samples longer than the stem: its end is ignored"]
    return []


def _samples(count: float) -> str:
    return "1 sample" if count == 1 else f"{count:.10g} samples" if count == round(count) else f"{count:.2f} samples"


def _list(parts: list[str]) -> str:
    return parts[0] if len(parts) == 1 else f"{', '.join(parts[:-1])} and {parts[-1]}"

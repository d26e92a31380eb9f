"""Aligns a mix with a stem: finds its time offset, polarity and gain, and whether the mix contains the stem at all.

A mix that is one sample or one decibel off spoils a repair, and both are common: encoders add a delay, plug-ins add
latency, and stems get turned up or down.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from ..engine.chain import PluginSettings
from ..engine.dsp.fifo import Fifo
from .audiofile import AudioInfo, AudioReader
from .levels import estimate_gain
from .mix_reader import MixReader

MAX_OFFSET_S = 0.5
IGNORED_GAP_S = 0.01  # an offset leaves a gap in the mix at one end of the stem; a shorter one is not reported
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
    def at_own_level(self) -> Alignment:
        """The same alignment without the level difference."""
        return replace(self, gain=-1.0 if self.gain < 0 else 1.0)

    @property
    def level_difference_db(self) -> float:
        """How much louder the stem is in the mix than in its file."""
        return 20 * float(np.log10(abs(self.gain)))

    def open(self, mix: AudioInfo, plugins: Sequence[PluginSettings] = ()) -> MixReader:
        """Read the mix through `plugins`, aligned with the stem: same start, polarity and level."""
        return MixReader(mix, plugins, self.offset_samples, 1 / self.gain)

    def note(self, sample_rate: int) -> str:
        """What was corrected, for users; empty where nothing was."""
        if not self.found:
            return (
                "stem not found in the mix, so the mix was left out: is it the right song, and do both start within "
                f"{MAX_OFFSET_S:g} s?"
            )
        mix_parts = []
        if self.offset_samples:
            count = abs(self.offset_samples)
            when = "before" if self.offset_samples > 0 else "after"
            mix_parts.append(f"starts {1000 * count / sample_rate:.3g} ms ({_samples(count)}) {when} the stem")
        if self.gain < 0:
            mix_parts.append("has inverted polarity")
        parts = [f"mix {' and '.join(mix_parts)}"] if mix_parts else []
        if abs(self.gain) != 1:
            how = "quieter" if abs(self.gain) > 1 else "louder"
            parts.append(f"stem is {abs(self.level_difference_db):.1f} dB {how} than in the mix")
        return f"{', '.join(parts)}: corrected" if parts else ""


def align_files(stem: AudioInfo, mix: AudioInfo) -> Alignment:
    """`estimate_alignment` of two files with the same sample rate and number of channels. Raises AudioFileError."""
    with AudioReader(stem) as reader:
        blocks = (reader.codec.decode(block) for block in reader.blocks())
        return estimate_alignment(blocks, open_early(mix), stem.sample_rate)


def alignment_notes(alignment: Alignment, stem: AudioInfo, mix: AudioInfo) -> list[str]:
    """What users should know about how the mix fits the stem: corrections, and parts that the mix does not cover."""
    offset, notes = alignment.offset_samples, [alignment.note(stem.sample_rate)]
    if not alignment.found:
        return notes
    missing = {"start": max(-offset, 0), "end": max(0, stem.samples - (mix.samples - offset))}
    total = sum(missing.values())
    if total > IGNORED_GAP_S * stem.sample_rate or (total and not offset):
        places = " and ".join(f"{_samples(count)} at the {end}" for end, count in missing.items() if count)
        notes.append(f"the mix does not cover {places} of the stem: repaired as if nothing else played there")
    elif not offset and mix.samples > stem.samples:
        notes.append(f"mix is {mix.samples - stem.samples} samples longer than the stem: its end is ignored")
    return [note for note in notes if note]


def _samples(count: int) -> str:
    return "1 sample" if count == 1 else f"{count} samples"


def open_early(mix: AudioInfo) -> MixReader:
    """Read a mix as `estimate_alignment` needs it: from MAX_OFFSET_S before its start."""
    return MixReader(mix, offset_samples=-_max_offset_samples(mix.sample_rate))


def estimate_alignment(stem: Iterable[np.ndarray], mix: SampleSource, sample_rate: int) -> Alignment:
    """Find the offset within MAX_OFFSET_S at which stem and mix correlate best, and the gain there (levels.py).

    The offset is 0 where no peak stands out, for example in bass that is less than a millisecond off.

    stem: blocks (C, n). mix: the same channels, from MAX_OFFSET_S (rounded to samples) before the stem's first sample
    (`open_early`). The cross-correlation is generalised (Knapp and Carter, The generalized correlation method for
    estimation of time delay, 1976), with a partial phase transform (PHAT-beta; Donohue et al., Performance of phase
    transform for detecting sound sources with microphone arrays, 2007), and summed over the channels and the WINDOWS
    loudest windows of the stem.
    """
    size, reach = round(WINDOW_S * sample_rate), _max_offset_samples(sample_rate)
    loudest: list[tuple[float, int, np.ndarray, np.ndarray]] = []
    for number, (part, around) in enumerate(_windows(stem, mix, size, reach)):
        power = float(np.mean(part.astype(np.float64) ** 2))
        if power > MIN_POWER:
            heapq.heappush(loudest, (power, number, part, around))
            if len(loudest) > WINDOWS:
                heapq.heappop(loudest)
    if not loudest:
        return Alignment(0, True)
    points = size + 2 * reach
    # Without a taper, the edges of the windows correlate between the partials of repetitive music.
    part_taper, around_taper = np.hanning(size), np.hanning(points)
    total = np.zeros(points // 2 + 1, np.complex128)
    for power, _, part, around in loudest:
        cross = np.fft.rfft(part_taper * part, points).conj() * np.fft.rfft(around_taper * around, points)
        magnitude = np.abs(cross)
        cross /= (magnitude + 1e-9 * magnitude.max() + 1e-30) ** WHITENING
        total += power ** (WHITENING - 0.5) * cross.sum(axis=0)  # weights a window by its amplitude, not its power
    signed = np.fft.irfft(total, points)[: 2 * reach + 1]
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
    sign, aligned = -1.0 if signed[reach + offset] < 0 else 1.0, slice(reach + offset, reach + offset + size)
    excerpts = ((part, np.float32(sign) * around[:, aligned]) for _, _, part, around in loudest)
    return Alignment(offset, True, sign * estimate_gain(excerpts, sample_rate))


def _max_offset_samples(sample_rate: int) -> int:
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

"""The time offset, the polarity and the gain between a song and a stem of it, and whether it is in that song at all: an
encoder's delay, a plug-in's latency or a fader is found and allowed for, since a song that is a sample or a decibel off
harms a repair."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from ..engine.chain import ChainLink
from ..engine.dsp.fifo import Fifo
from .audiofile import AudioInfo, AudioReader
from .levels import estimate_gain
from .mix_reader import MixSource

MAX_OFFSET_S = 0.5
TRIFLE_S = 0.01  # of a song that is missing with an offset, which nobody need know
WINDOW_S, WINDOWS = 1.5, 12
QUIETEST = 1e-8  # mean square of a window that says anything
#: How far the cross-spectrum is whitened: 1 is all, the phase transform, which makes too much of the noise between the
#: partials of music that repeats itself; 0 is none.
WHITENING = 0.75
#: The correlation's peak has to be so many times as high as at the present place: farther away than PEAK_S, and nearer.
#: Where the song is in step, stems of validation with every fault have it at 0, 1.07 times its neighbours and more;
#: where it is 16 or 25 ms off, 43 times the present place and more.
#: A nearer one has to stand out as much from what is SHARP samples beside it: a bass drum's peak is too broad to tell.
MIN_PEAK_RATIO, MIN_NEAR_RATIO, PEAK_S, SHARP = 2.0, 1.05, 0.0004, 3
#: And so many times the median of all places, or fewer at the very sample where the song should be. These stems have
#: 105 and more, 30 dB under their song 8 and more, at that sample; with other songs 21 at most, anywhere.
MIN_PEAK_TO_MEDIAN, MIN_IN_STEP_TO_MEDIAN = 25.0, 7.0
#: Music that repeats itself to the sample has peaks of about the same height; the nearest counts.
SAME_HEIGHT = 0.8


class Source(Protocol):
    """What gives a song's samples (C, n), n at a time, without end."""

    def take(self, samples: int) -> np.ndarray: ...


@dataclass(frozen=True)
class Alignment:
    """offset_samples: sample n + offset_samples of the song is heard at sample n of the stem. heard: whether the stem
    is in the song at all, or too quiet to tell. gain: with which it stands in the song, below 0 where one of the two is
    the other way up."""

    offset_samples: int
    heard: bool
    gain: float = 1.0

    @property
    def at_own_level(self) -> Alignment:
        """The same, but for the song's level."""
        return replace(self, gain=-1.0 if self.gain < 0 else 1.0)

    @property
    def difference_db(self) -> float:
        """How much louder the stem is in the song than by itself."""
        return 20 * float(np.log10(abs(self.gain)))

    def open(self, song: AudioInfo, links: Sequence[ChainLink] = ()) -> MixSource:
        """The song's samples from where the stem begins, the stem's way up and at its level, through a chain."""
        return MixSource(song, links, self.offset_samples, 1 / self.gain)

    def note(self, sample_rate: int) -> str:
        """What people should know of it, in words; empty where nothing is unusual."""
        if not self.heard:
            return (
                "the stem cannot be heard in the song, which was left out: is it this song, and does it start within "
                f"{MAX_OFFSET_S:g} s of the stem?"
            )
        parts = []
        if self.offset_samples:
            count = abs(self.offset_samples)
            when = "before" if self.offset_samples > 0 else "after"
            samples = "1 sample" if count == 1 else f"{count} samples"
            parts.append(f"starts {1000 * count / sample_rate:.3g} ms ({samples}) {when} the stem")
        if self.gain < 0:
            parts.append("has the other polarity")
        if abs(self.gain) != 1:
            how = "louder" if abs(self.gain) > 1 else "softer"
            parts.append(f"has the stem {abs(self.difference_db):.1f} dB {how}")
        return f"the song {', '.join([*parts[:-2], ' and '.join(parts[-2:])])}: allowed for" if parts else ""


def align_files(stem: AudioInfo, song: AudioInfo) -> Alignment:
    """`estimate_alignment` of two files of one sample rate and as many channels. Raises AudioFileError."""
    with AudioReader(stem) as reader:
        blocks = (reader.codec.decode(block) for block in reader.blocks())
        return estimate_alignment(blocks, early_source(song), stem.sample_rate)


def alignment_notes(alignment: Alignment, stem: AudioInfo, mix: AudioInfo) -> list[str]:
    """What people should know of where the mixture lies beside the stem, and of what is missing of it."""
    offset, notes = alignment.offset_samples, [alignment.note(stem.sample_rate)]
    if not alignment.heard:
        return notes
    missing = max(-offset, 0) + max(0, stem.samples - (mix.samples - offset))
    if missing > TRIFLE_S * stem.sample_rate or (missing and not offset):
        notes.append(f"the mix is {missing} samples shorter, and the stem is all that there is beside it")
    elif not offset and mix.samples > stem.samples:
        notes.append(f"the mix is {mix.samples - stem.samples} samples longer, its end is left out")
    return [note for note in notes if note]


def early_source(song: AudioInfo) -> MixSource:
    """A song as `estimate_alignment` takes it."""
    return MixSource(song, offset_samples=-_reach(song.sample_rate))


def estimate_alignment(stem: Iterable[np.ndarray], song: Source, sample_rate: int) -> Alignment:
    """The offset by the highest cross-correlation within MAX_OFFSET_S; 0 where that does not stand out, as of low
    sounds that are off by less than a millisecond. The gain by level.py.

    stem: blocks (C, n). song: the same channels, begun MAX_OFFSET_S (rounded to samples) before the stem's first sample
    (`early_source`). The cross-correlation is generalised (Knapp and Carter, The generalized correlation method for
    estimation of time delay, 1976), with a part of the phase transform (PHAT-beta; Donohue et al., Performance of phase
    transform for detecting sound sources with microphone arrays, 2007), and summed over the channels and the WINDOWS
    windows in which the stem is loudest.
    """
    size, reach = round(WINDOW_S * sample_rate), _reach(sample_rate)
    loudest: list[tuple[float, int, np.ndarray, np.ndarray]] = []
    for number, (part, around) in enumerate(_windows(stem, song, size, reach)):
        power = float(np.mean(part.astype(np.float64) ** 2))
        if power > QUIETEST:
            heapq.heappush(loudest, (power, number, part, around))
            if len(loudest) > WINDOWS:
                heapq.heappop(loudest)
    if not loudest:
        return Alignment(0, True)
    points = size + 2 * reach
    # Tapered, or music that repeats itself shows the windows' own edges between its partials.
    part_taper, around_taper = np.hanning(size), np.hanning(points)
    total = np.zeros(points // 2 + 1, np.complex128)
    for power, _, part, around in loudest:
        cross = np.fft.rfft(part_taper * part, points).conj() * np.fft.rfft(around_taper * around, points)
        magnitude = np.abs(cross)
        cross /= (magnitude + 1e-9 * magnitude.max() + 1e-30) ** WHITENING
        total += power ** (WHITENING - 0.5) * cross.sum(axis=0)  # so that a window counts by its level, not its power
    signed = np.fft.irfft(total, points)[: 2 * reach + 1]
    correlation = np.abs(signed)
    peak = float(correlation.max())
    least = MIN_IN_STEP_TO_MEDIAN if correlation[reach] == peak and signed[reach] > 0 else MIN_PEAK_TO_MEDIAN
    if not peak > least * float(np.median(correlation)):
        return Alignment(0, False)
    high = np.flatnonzero(correlation >= SAME_HEIGHT * peak) - reach
    place, width = reach + int(high[np.argmin(np.abs(high))]), max(SHARP, round(PEAK_S * sample_rate))
    while True:  # up the flank of that peak
        first = max(0, place - width)
        higher = first + int(np.argmax(correlation[first : place + width + 1]))
        if higher == place:
            break
        place = higher
    rivals, ratio = [reach], MIN_PEAK_RATIO
    if abs(place - reach) <= width:
        rivals, ratio = [reach, place - SHARP, place + SHARP], MIN_NEAR_RATIO
    offset = place - reach if correlation[place] > ratio * correlation[rivals].max() else 0
    sign, in_step = -1.0 if signed[reach + offset] < 0 else 1.0, slice(reach + offset, reach + offset + size)
    places = ((part, np.float32(sign) * around[:, in_step]) for _, _, part, around in loudest)
    return Alignment(offset, True, sign * estimate_gain(places, sample_rate))


def _reach(sample_rate: int) -> int:
    return round(MAX_OFFSET_S * sample_rate)


def _windows(
    stem: Iterable[np.ndarray], song: Source, size: int, reach: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Stretches of the stem (C, size), the last one filled with silence, and around each of the song
    (C, size + 2 reach)."""
    waiting, ready, around = Fifo(), 0, song.take(2 * reach)
    for block in stem:
        waiting.push(block)
        ready += block.shape[1]
        while ready >= size:
            around = np.concatenate([around[:, -2 * reach :], song.take(size)], axis=1)
            yield waiting.pop(size), around
            ready -= size
    if ready:
        around = np.concatenate([around[:, -2 * reach :], song.take(size)], axis=1)
        yield np.pad(waiting.pop(ready), ((0, 0), (0, size - ready))), around

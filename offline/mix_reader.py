"""Reads the mix in step with its stem; the mix may be the sum of several files."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from ..engine.dsp.fifo import Fifo
from ..engine.mix.condition import ConditionFilter
from ..engine.mix.fit import MixFit
from ..engine.mix.timing import Stretch, TimeMap
from .audiofile import BLOCK_SAMPLES, AudioInfo, AudioReader

Pair = tuple[np.ndarray, np.ndarray]
FADE_S = 0.02  # between the mix and what stands in for it
#: Where clocks drift or the offset is no whole number, blocks of so many samples are shifted by their Fourier
#: transforms, with a margin on both sides, and cross-faded.
BLOCK, MARGIN = 1024, 128


@dataclass(frozen=True)
class SummedAudio(AudioInfo):
    """Several files that start together. What they have in common is the first one's, apart from the channels and the
    length, which are the most that any of them has."""

    files: tuple[AudioInfo, ...] = ()

    @classmethod
    def of(cls, parts: Sequence[AudioInfo]) -> SummedAudio:
        """The sum of files with the same sample rate, mono or all with as many channels."""
        first, channels, samples = parts[0], max(p.channels for p in parts), max(p.samples for p in parts)
        return cls(
            first.path,
            first.container,
            first.subtype,
            first.endian,
            first.sample_rate,
            channels,
            samples,
            files=tuple(parts),
        )


def files_of(info: AudioInfo) -> tuple[AudioInfo, ...]:
    """The files to read for a mix."""
    return info.files if isinstance(info, SummedAudio) else (info,)


def read_blocks(info: AudioInfo) -> Iterator[np.ndarray]:
    """The samples of a file or of a sum of files, in blocks (C, n) of float32."""
    if not isinstance(info, SummedAudio):
        with AudioReader(info) as reader:
            for native in reader.blocks():
                yield reader.codec.decode(native)
        return
    parts = [read_blocks(part) for part in info.files]
    for start in range(0, info.samples, BLOCK_SAMPLES):
        total = np.zeros((info.channels, min(BLOCK_SAMPLES, info.samples - start)), np.float32)
        for part in parts:
            if (block := next(part, None)) is not None:
                total[:, : block.shape[1]] += block  # a mono file is in all channels
        yield total


class MixReader:
    """An endless stream of a file's samples as float32, in step with a stem, with silence before the start and after
    the end. time: where each sample of the stem lies in the file."""

    def __init__(self, info: AudioInfo, time: TimeMap | None = None) -> None:
        self._time = time or TimeMap()
        self._position = 0
        self._source = SampleReader(info)

    def take(self, samples: int) -> np.ndarray:
        """The next samples (C, samples), in step with the stem."""
        parts, end = [], self._position + samples
        while self._position < end:
            stretch, stop = self._stretch(self._position)
            count = min(end, stop) - self._position
            if stretch.is_whole:
                start = self._position + int(stretch.offset)
                parts.append(self._source.read(start, start + count))
            else:
                parts.append(self._shifted(stretch, count))
            self._position += count
        return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)

    def covers(self, start: int, count: int) -> np.ndarray:
        """Whether the file has the samples [start, start + count) of the stem: (count,) boolean."""
        places = np.arange(start, start + count)
        at = np.floor(places + self._time.offsets(places))
        found: np.ndarray = (at >= 0) & (at < self._source.samples)
        return found

    def _stretch(self, sample: int) -> tuple[Stretch, int]:
        """The stretch of a sample of the stem, and where it ends."""
        stretches = self._time.stretches
        number = max(n for n, s in enumerate(stretches) if n == 0 or s.start <= sample)
        return stretches[number], stretches[number + 1].start if number + 1 < len(stretches) else 1 << 62

    def _shifted(self, stretch: Stretch, count: int) -> np.ndarray:
        """The next samples of a stretch with a fraction or a drift: overlapping blocks on a fixed grid."""
        hop = BLOCK // 2
        out = np.zeros((self._source.channels, count), np.float32)
        first = (self._position - stretch.start) // hop - 1
        last = (self._position + count - 1 - stretch.start) // hop
        window = np.hanning(BLOCK + 1)[:-1].astype(np.float32)
        for number in range(first, last + 1):
            begin = stretch.start + number * hop
            low, high = max(begin, self._position), min(begin + BLOCK, self._position + count)
            if low >= high:
                continue
            block = self._block(stretch, begin)
            out[:, low - self._position : high - self._position] += (block * window)[:, low - begin : high - begin]
        return out

    def _block(self, stretch: Stretch, begin: int) -> np.ndarray:
        """BLOCK samples from stem sample `begin` on, at the offset of their middle."""
        offset = float(stretch.at(begin + BLOCK / 2))
        whole = int(np.floor(offset))
        audio = self._source.read(begin + whole - MARGIN, begin + whole + BLOCK + MARGIN)
        size = audio.shape[1]
        turn = np.exp(2j * np.pi * np.arange(size // 2 + 1) / size * (offset - whole)).astype(np.complex64)
        shifted = np.fft.irfft(np.fft.rfft(audio) * turn, size).astype(np.float32)
        return shifted[:, MARGIN : MARGIN + BLOCK]


class FittedMix:
    """The mix as its stem needs it: in step, with the stem's channels, polarity and level, and without the noise of a
    codec.

    If it is the stem some of whose channels have inverted polarity, the mix stays as it is, and the stem is to be
    inverted for its repair (MixFit.prepare). Where the mix has no samples, or does not hold, the stem itself stands in
    for it, as if nothing else played there: next to silence, all of the stem would look wrong.
    """

    def __init__(self, stem: AudioInfo, mix: AudioInfo, fit: MixFit) -> None:
        self._fit, self._rate = fit, stem.sample_rate
        self._waiting = Fifo()
        self._blocks = self._read(stem, MixReader(mix, fit.time))

    def take(self, samples: int) -> np.ndarray:
        """The next samples (C, samples)."""
        while len(self._waiting) < samples:
            self._waiting.push(next(self._blocks))
        return self._waiting.pop(samples)

    def _read(self, info: AudioInfo, mix: MixReader) -> Iterator[np.ndarray]:
        clean = self._condition(info.channels)
        position = 0
        with AudioReader(info) as reader:
            for native in reader.blocks():
                for stem, beside in clean(self._fit.prepare(reader.codec.decode(native)), mix):
                    yield self._copied(self._filled(position, stem, beside, mix))
                    position += stem.shape[1]
        for stem, beside in clean(None, mix):
            yield self._copied(self._filled(position, stem, beside, mix))
            position += stem.shape[1]
        while True:
            yield np.zeros((info.channels, BLOCK_SAMPLES), np.float32)

    def _condition(self, channels: int) -> Callable[[np.ndarray | None, MixReader], Iterator[Pair]]:
        """Blocks of the stem, or None after the last, to pairs of stem and mix whose condition is mended."""
        condition = self._fit.condition
        if condition is None:
            return lambda stem, mix: iter(()) if stem is None else iter([(stem, self._routed(stem, mix))])
        made, stems = ConditionFilter(condition, self._rate, channels), Fifo()
        left_out = made.delay_samples

        def mended(stem: np.ndarray | None, mix: MixReader) -> Iterator[Pair]:
            nonlocal left_out
            if stem is None:
                silence = np.zeros((channels, 2 * made.delay_samples), np.float32)
                found = made.process(silence, silence)
            else:
                stems.push(stem)
                found = made.process(stem, self._routed(stem, mix))
            skipped = min(left_out, found.shape[1])
            left_out -= skipped
            found = found[:, skipped:][:, : len(stems)]
            if found.shape[1]:
                yield stems.pop(found.shape[1]), found

        return mended

    def _routed(self, stem: np.ndarray, reader: MixReader) -> np.ndarray:
        """The next samples of the mix with the stem's channels, polarities and levels."""
        mix = match_channels(reader.take(stem.shape[1]), len(stem))
        return self._fit.routing.apply(stem, mix, self._fit.gains)

    def _filled(self, start: int, stem: np.ndarray, mix: np.ndarray, reader: MixReader) -> np.ndarray:
        covered, holds = reader.covers(start, stem.shape[1]), self._fit.holds
        if holds.all():
            return mix if covered.all() else np.where(covered, mix, stem)
        amount = self._amount(start, stem.shape[1]) * covered
        filled: np.ndarray = np.where(amount == 1.0, mix, stem + amount * (mix - stem))
        return np.where(amount == 0.0, stem, filled)

    def _copied(self, mix: np.ndarray) -> np.ndarray:
        """With the live channel in place of the stem's dead one."""
        if self._fit.copied is None:
            return mix
        mix = mix.copy()
        mix[self._fit.copied[0]] = mix[self._fit.copied[1]]
        return mix

    def _amount(self, start: int, count: int) -> np.ndarray:
        """How far the mix counts (C, n), 0 to 1. A fade begins and ends where the mix holds."""
        fit, fade = self._fit, max(1, round(FADE_S * self._rate))
        wide = np.arange(start - fade, start + count + fade)
        unit = np.clip(wide // fit.unit_samples, 0, len(fit.holds) - 1)
        out = np.pad(np.cumsum(~fit.holds[unit].T, axis=1), ((0, 0), (1, 0)))
        share = (out[:, 2 * fade :][:, :count] - out[:, :count]) / fade
        return np.clip(1.0 - share, 0.0, 1.0).astype(np.float32)


def match_channels(mix: np.ndarray, channels: int) -> np.ndarray:
    """A mono mix (M, n) for a stereo stem, or a stereo mix for a mono stem: its mean in all channels (C, n)."""
    if len(mix) == channels:
        return mix
    return np.repeat(mix.mean(axis=0, keepdims=True), channels, axis=0)


class SampleReader:
    """Samples of a file by position, read once from start to end; the last seconds stay within reach."""

    KEPT_S = 6.0

    def __init__(self, info: AudioInfo) -> None:
        self.samples, self.channels = info.samples, info.channels
        self._kept = round(self.KEPT_S * info.sample_rate)
        self._blocks = chain(read_blocks(info), self._silence(info.channels))
        self._buffer, self._start = np.zeros((info.channels, 0), np.float32), 0

    def read(self, start: int, stop: int) -> np.ndarray:
        """Samples [start, stop), silent where the file has none."""
        if start < 0:
            before = np.zeros((self.channels, min(stop, 0) - start), np.float32)
            return before if stop <= 0 else np.concatenate([before, self.read(0, stop)], axis=1)
        parts, have = [self._buffer], self._start + self._buffer.shape[1]
        while have < stop:
            parts.append(next(self._blocks))
            have += parts[-1].shape[1]
        if len(parts) > 1:
            self._buffer = np.concatenate(parts, axis=1)
        assert start >= self._start, f"sample {start} is gone: {self._start} is the first"
        found = self._buffer[:, start - self._start : stop - self._start]
        if (drop := start - self._kept - self._start) > BLOCK_SAMPLES:
            self._buffer, self._start = self._buffer[:, drop:], self._start + drop
        return found

    @staticmethod
    def _silence(channels: int) -> Iterator[np.ndarray]:
        while True:
            yield np.zeros((channels, BLOCK_SAMPLES), np.float32)

"""A mix that is given as the files it is the sum of."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from .audiofile import BLOCK_SAMPLES, AudioInfo, AudioReader


@dataclass(frozen=True)
class SummedAudio(AudioInfo):
    """Several files that start together. What they have in common is the first one's, apart from the channels and the
    length, which are the most that any of them has."""

    parts: tuple[AudioInfo, ...] = ()

    @classmethod
    def of(cls, parts: Sequence[AudioInfo]) -> SummedAudio:
        """The sum of files with the same sample rate, mono or all with as many channels."""
        first, channels, samples = parts[0], max(p.channels for p in parts), max(p.samples for p in parts)
        return cls(
            first.path, first.container, first.subtype, first.endian, first.sample_rate, channels, samples, tuple(parts)
        )


def files_of(info: AudioInfo) -> tuple[AudioInfo, ...]:
    """The files to read for a mix."""
    return info.parts if isinstance(info, SummedAudio) else (info,)


def read_blocks(info: AudioInfo) -> Iterator[np.ndarray]:
    """The samples of a file or of a sum of files, in blocks (C, n) of float32."""
    if not isinstance(info, SummedAudio):
        with AudioReader(info) as reader:
            for native in reader.blocks():
                yield reader.codec.decode(native)
        return
    parts = [read_blocks(part) for part in info.parts]
    for start in range(0, info.samples, BLOCK_SAMPLES):
        total = np.zeros((info.channels, min(BLOCK_SAMPLES, info.samples - start)), np.float32)
        for part in parts:
            if (block := next(part, None)) is not None:
                total[:, : block.shape[1]] += block  # a mono file is in all channels
        yield total

"""Runs the detectors on a file."""

from __future__ import annotations

from collections.abc import Callable

from ..engine.detect.analysis import Analyser, Analysis
from .audiofile import AudioReader
from .pair import StemAndMix


def analyse_pair(pair: StemAndMix, *, progress: Callable[[float, float], None] | None = None) -> Analysis:
    """Detect what is wrong with a stem, with the help of its mix if there is one. Raises AudioFileError.

    progress: called with the seconds done and the seconds in total.
    """
    info, mix = pair.stem, pair.open_mix()
    analyser = Analyser(info.sample_rate, info.channels, mix is not None)
    done = 0
    with AudioReader(info) as reader:
        for native in reader.blocks():
            audio = pair.prepare(reader.codec.decode(native))
            analyser.process(audio, None if mix is None else mix.take(audio.shape[1]))
            done += audio.shape[1]
            if progress is not None:
                progress(done / info.sample_rate, info.duration_s)
    return analyser.finish()

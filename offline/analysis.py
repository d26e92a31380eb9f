"""A file through the detectors, with its mix beside it."""

from __future__ import annotations

from pathlib import Path

from ..engine.detect.analysis import Analyser, Analysis
from .alignment import Alignment, align_files, alignment_notes
from .audiofile import AudioReader, check_finite, probe
from .render import Progress, check_mix


def analyse_file(
    path: Path, mix: Path | None = None, *, alignment: Alignment | None = None, progress: Progress | None = None
) -> Analysis:
    """Detect what is wrong with a stem; `mix` is the song that it was separated from, and is left out where the stem
    cannot be heard in it.

    alignment: what `align_song` said of the two, if it was asked before.
    progress: called with the seconds of sound done and the seconds in all. Raises AudioFileError, MixMismatchError.
    """
    info, song = probe(path), None
    if mix is None:
        check_finite(info)
    else:
        alignment = alignment or align_song(path, mix)[0]
        song = alignment.open(probe(mix)) if alignment.heard else None
    analyser = Analyser(info.sample_rate, info.channels, song is not None)
    done = 0
    with AudioReader(info) as reader:
        for native in reader.blocks():
            audio = reader.codec.decode(native)
            analyser.process(audio, None if song is None else song.beside(audio))
            done += audio.shape[1]
            if progress is not None:
                progress(done / info.sample_rate, info.duration_s)
    return analyser.finish()


def align_song(path: Path, mix: Path) -> tuple[Alignment, list[str]]:
    """Where the song lies beside a stem, and what people should know of it; checks that the two belong together. Raises
    as `analyse_file`."""
    info, mix_info = probe(path), probe(mix)
    check_mix(info, mix_info)
    for checked in (info, mix_info):
        check_finite(checked)
    alignment = align_files(info, mix_info)
    return alignment, alignment_notes(alignment, info, mix_info)

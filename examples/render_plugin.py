"""Repairs a stem with the VST3, as a DAW's bounce would: the bridge has to run (`stemprover serve`).

    python examples/render_plugin.py StemProver.vst3 separated.wav song.wav repaired.wav [PRESET]

pedalboard gives plug-ins no side-chain; so the song goes in as channels three and four. The latency is taken out by
pedalboard. The same without a plug-in and a bridge, in two lines, is `Repairer(...).process(stem, rate, mix=song)`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pedalboard
from pedalboard.io import AudioFile


def render(plugin: Path, stem: Path, song: Path, output: Path, preset: str = "general") -> None:
    """The stem's first two channels, repaired, as a 32-bit float WAV."""
    repair = pedalboard.load_plugin(str(plugin))
    repair.preset = preset
    repair.offline_failure = "silence"  # rather a hole that is heard at once than a stem that only seems repaired
    with AudioFile(str(stem)) as stem_in, AudioFile(str(song)) as song_in:
        rate = int(stem_in.samplerate)
        parts = [np.atleast_2d(file.read(file.frames)) for file in (stem_in, song_in)]
    length = min(part.shape[1] for part in parts)
    four = np.concatenate([np.broadcast_to(part, (2, part.shape[1]))[:, :length] for part in parts])
    repaired = repair.process(np.ascontiguousarray(four), rate)[:2]
    with AudioFile(str(output), "w", rate, 2, bit_depth=32) as out:
        out.write(repaired)


if __name__ == "__main__":
    if len(sys.argv) not in (5, 6):
        sys.exit("usage: python render_plugin.py StemProver.vst3 STEM SONG OUTPUT [PRESET]")
    render(*(Path(word) for word in sys.argv[1:5]), *sys.argv[5:])

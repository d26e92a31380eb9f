"""Repairs a stem in the middle of a pedalboard chain, block by block, with the delay taken out.

    python examples/pedalboard_chain.py separated.wav song.wav repaired.wav

The stream gives back as many samples as it gets, `latency_samples` late. So the first `latency_samples` that come out
are dropped, and `flush` gives the last ones: the result is as long as the input and sits at the same place.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from pedalboard import Compressor, HighpassFilter, Pedalboard
from pedalboard.io import AudioFile
from stemprover import Repairer, load_preset

BLOCK_SAMPLES = 8192


def repair_in_chain(stem: Path, song: Path, output: Path, repairer: Repairer) -> None:
    """High-pass, repair, compressor. The song, as the repair's reference, goes through the same high-pass."""
    with AudioFile(str(stem)) as stem_in, AudioFile(str(song)) as song_in:
        rate, channels = int(stem_in.samplerate), stem_in.num_channels
        stem_board, song_board = Pedalboard([HighpassFilter(60)]), Pedalboard([HighpassFilter(60)])
        after = Pedalboard([Compressor(threshold_db=-18, ratio=2)])
        stream = repairer.stream(rate, channels, has_mix=True)
        to_drop = stream.latency_samples
        with AudioFile(str(output), "w", rate, channels, bit_depth=24) as out:
            while stem_in.tell() < stem_in.frames:
                block = stem_board(stem_in.read(BLOCK_SAMPLES), rate, reset=False)
                mix = song_board(song_in.read(BLOCK_SAMPLES), rate, reset=False)
                repaired = after(stream.process(block, mix), rate, reset=False)
                out.write(repaired[:, to_drop:])
                to_drop = max(0, to_drop - repaired.shape[1])
            rest = stream.flush()
            out.write(after(np.ascontiguousarray(rest), rate, reset=False)[:, to_drop:])


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: python pedalboard_chain.py STEM SONG OUTPUT")
    repair_in_chain(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), Repairer(load_preset("general")))

"""Repair a stem in the middle of a pedalboard chain, block by block, with the latency compensated.

    python examples/pedalboard_chain.py separated.wav mix.wav repaired.wav

The stream returns as many samples as it is given, `latency_samples` late. So the first `latency_samples` are dropped,
and `flush` returns the last ones: the output is as long as the input and aligned with it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from pedalboard import Compressor, HighpassFilter, Pedalboard
from pedalboard.io import AudioFile
from stemprover import Repairer

BLOCK_SAMPLES = 8192


def repair_in_chain(stem: Path, mix: Path, output: Path, repairer: Repairer) -> None:
    """High-pass, repair, compressor. The mix passes through the same high-pass as the stem."""
    with AudioFile(str(stem)) as stem_in, AudioFile(str(mix)) as mix_in:
        rate, channels = int(stem_in.samplerate), stem_in.num_channels
        stem_board, mix_board = Pedalboard([HighpassFilter(60)]), Pedalboard([HighpassFilter(60)])
        after = Pedalboard([Compressor(threshold_db=-18, ratio=2)])
        stream = repairer.stream(rate, channels, has_mix=True)
        to_drop = stream.latency_samples
        with AudioFile(str(output), "w", rate, channels, bit_depth=24) as out:
            while stem_in.tell() < stem_in.frames:
                block = stem_board(stem_in.read(BLOCK_SAMPLES), rate, reset=False)
                mix_block = mix_board(mix_in.read(BLOCK_SAMPLES), rate, reset=False)
                repaired = after(stream.process(block, mix_block), rate, reset=False)
                out.write(repaired[:, to_drop:])
                to_drop = max(0, to_drop - repaired.shape[1])
            rest = stream.flush()
            out.write(after(np.ascontiguousarray(rest), rate, reset=False)[:, to_drop:])


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit("usage: python pedalboard_chain.py STEM MIX OUTPUT")
    repair_in_chain(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), Repairer("general"))

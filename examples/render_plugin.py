"""Repairs a stem with the VST3, as a DAW's bounce would.

    make plugin && stemprover plugin install
    stemprover serve &
    python examples/render_plugin.py ~/.vst3/StemProver.vst3 separated.wav song.wav repaired.wav --preset bleed

pedalboard gives plug-ins no side-chain; so the song goes in as channels three and four. The latency is taken out by
pedalboard. The same without a plug-in and a bridge, in two lines, is `Repairer(...).process(stem, rate, mix=song)`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pedalboard
from pedalboard.io import AudioFile


def render(plugin: Path, stem: Path, song: Path, output: Path, preset: str = "general") -> None:
    """The stem, mono or stereo, repaired, as a stereo WAV of 32-bit floats, as long as the stem.

    Raises ValueError where stem and song do not fit or the output is there already, RuntimeError where the bridge does
    not answer. Then nothing is written.
    """
    if output.exists():
        raise ValueError(f"{output} is there already: give another name")
    repair = pedalboard.load_plugin(str(plugin))
    repair.preset = preset
    repair.offline_failure = "silence"  # not a stem that only seems repaired
    with AudioFile(str(stem)) as stem_in, AudioFile(str(song)) as song_in:
        rate = int(stem_in.samplerate)
        if rate != song_in.samplerate:
            raise ValueError(f"the stem has {rate} Hz, the song {song_in.samplerate:g}: resample one of them")
        if max(stem_in.num_channels, song_in.num_channels) > 2:
            raise ValueError("more than two channels: StemProver's plug-in takes mono and stereo")
        parts = [np.broadcast_to(file.read(file.frames), (2, file.frames)) for file in (stem_in, song_in)]
    length = parts[0].shape[1]
    part = parts[1][:, :length]
    mix = np.concatenate([part, np.zeros((2, length - part.shape[1]), np.float32)], axis=1)
    repaired = repair.process(np.ascontiguousarray(np.concatenate([parts[0], mix])), rate)[:2]
    if parts[0].any() and not repaired.any():
        raise RuntimeError("the bridge does not answer: start it with stemprover serve")
    with AudioFile(str(output), "w", rate, 2, bit_depth=32) as out:
        out.write(repaired)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name in ("plugin", "stem", "song", "output"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--preset", default="general")
    try:
        render(**vars(parser.parse_args()))
    except (ValueError, RuntimeError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()

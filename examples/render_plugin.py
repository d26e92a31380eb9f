"""Repair a stem with the VST3, as a DAW does when it bounces a track.

    make plugin && stemprover plugin install
    stemprover serve &
    python examples/render_plugin.py ~/.vst3/StemProver.vst3 separated.wav mix.wav repaired.wav --preset bleed

pedalboard has no side-chains, so the mix is passed as channels three and four; it compensates the latency itself.
`Repairer(...).process(stem, rate, mix=mix)` does the same without the plug-in and the bridge.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import numpy as np
import pedalboard
from pedalboard.io import AudioFile


def render(plugin: Path, stem: Path, mix: Path, output: Path, preset: str = "general") -> None:
    """Repair a mono or stereo stem to a stereo WAV of 32-bit floats with the stem's length.

    Raises ValueError if stem and mix do not match or the output exists, and RuntimeError if the bridge does not answer.
    Nothing is written then.
    """
    if output.exists():
        raise ValueError(f"{output} is there already: choose another name")
    repair = pedalboard.load_plugin(str(plugin))
    repair.preset = preset
    repair.offline_failure = "silence"  # so that an unrepaired stem is not taken for a repaired one
    with AudioFile(str(stem)) as stem_in, AudioFile(str(mix)) as mix_in:
        rate = int(stem_in.samplerate)
        if rate != mix_in.samplerate:
            raise ValueError(f"the stem has {rate} Hz, the mix {mix_in.samplerate:g} Hz: resample one of them")
        if max(stem_in.num_channels, mix_in.num_channels) > 2:
            raise ValueError("more than two channels: the plug-in is for mono and stereo")
        parts = [np.broadcast_to(file.read(file.frames), (2, file.frames)) for file in (stem_in, mix_in)]
    length = parts[0].shape[1]
    part = parts[1][:, :length]
    padded = np.concatenate([part, np.zeros((2, length - part.shape[1]), np.float32)], axis=1)
    repaired = repair.process(np.ascontiguousarray(np.concatenate([parts[0], padded])), rate)[:2]
    if parts[0].any() and not repaired.any():
        raise RuntimeError("the bridge does not answer: start it with stemprover serve")
    with AudioFile(str(output), "w", rate, 2, bit_depth=32) as out:
        out.write(repaired)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name in ("plugin", "stem", "mix", "output"):
        parser.add_argument(name, type=Path)
    parser.add_argument("--preset", default="general")
    try:
        render(**vars(parser.parse_args()))
    except (ValueError, RuntimeError) as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()

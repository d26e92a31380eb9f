"""How far stems of each kind are what a mask made of their song: near 1 for a separator that masks, near 0 for a true
stem (`engine/leak.py`, masked).

    python tools/measure_masked.py cases/valid --most 5
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from stemprover.engine.features import FeatureMaker
from stemprover.engine.stft import Stft, StftConfig, whole_stft
from stemprover.engine.train.cases import read_case, written_cases
from stemprover.engine.train.fit_caution import some_of

ACTIVE_DB = -30.0  # frames so far under the song's loudest are left out


def masked(stem: np.ndarray, mix: np.ndarray) -> float:
    """Median over the active frames of a stem and its song, (2, T) at 44.1 kHz."""
    stft, maker = Stft(StftConfig()), FeatureMaker()
    spectra = [whole_stft(stft, sound)[None] for sound in (stem, mix)]
    found = maker(spectra[0], spectra[1], maker.start(1))[0].masked[0]
    power = np.square(np.abs(spectra[1])).sum(axis=(0, 1, 2))
    return float(np.median(found[power > 10 ** (ACTIVE_DB / 10) * power.max()]))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("folders", type=Path, nargs="+", help="cases, as of stemprover.engine.train.cases")
    parser.add_argument("--most", type=int, default=None, help="cases of each kind and folder (all)")
    given = parser.parse_args()
    values: dict[str, list[float]] = {}
    for folder in given.folders:
        for kind, path in some_of(written_cases(folder), given.most):
            sounds = read_case(path)
            values.setdefault(kind, []).append(masked(sounds["degraded"], sounds["mix"]))
            values.setdefault("true stems", []).append(masked(sounds["truth"], sounds["mix"]))
    for kind, found in sorted(values.items()):
        print(f"{kind:26} {np.median(found):5.2f}, {min(found):5.2f} to {max(found):5.2f}, {len(found)} stems")


if __name__ == "__main__":
    main()

"""What the leak canceller (engine/dsp/leakage.py) does by itself, with no network to choose where: gain of SI-SDR by kind.

python tools/measure_leak.py cases/valid cases/valid-other cases/test --most 6
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from stemprover.engine.dsp.leakage import LeakCanceller
from stemprover.engine.dsp.stft import Stft, whole_istft, whole_stft
from stemprover.engine.metrics.basic import si_sdr
from stemprover.engine.train.cases import read_case, written_cases
from stemprover.engine.train.fit_trust import some_of


def without_leak(stem: np.ndarray, mix: np.ndarray) -> np.ndarray:
    """A stem (2, T) less its leak."""
    stft, canceller = Stft(), LeakCanceller()
    own, song = (_turned(whole_stft(stft, sound))[None] / 2 for sound in (stem, mix))
    gain = canceller.measure(own, song - own, canceller.start(1))[0].gain
    return whole_istft(stft, _turned(canceller.cancel(own, song - own, gain)[0]).astype(np.complex64), stem.shape[1])


def _turned(pair: np.ndarray) -> np.ndarray:
    return np.stack([pair[0] + pair[1], pair[0] - pair[1]])


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folders", type=Path, nargs="+")
    parser.add_argument("--most", type=int, default=None, help="cases of each kind and folder")
    given = parser.parse_args()
    found: dict[str, list[float]] = {}
    for folder in given.folders:
        for kind, place in some_of(written_cases(folder), given.most):
            sounds = read_case(place)
            after = without_leak(sounds["degraded"], sounds["mix"])
            gain = si_sdr(after, sounds["truth"]) - si_sdr(sounds["degraded"], sounds["truth"])
            found.setdefault(kind, []).append(gain)
    for kind, gains in found.items():
        low, high = min(gains), max(gains)
        print(f"{kind:26} {len(gains):3} cases  median {np.median(gains):+6.2f}  {low:+6.2f} to {high:+6.2f} dB")


if __name__ == "__main__":
    main()

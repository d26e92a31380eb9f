"""How far stems of each kind are what a mask made of their song: near 1 for a separator that masks, near 0 for a true
stem (`engine/leak.py`, masked); and how many of them auto takes for a separator's (`Analysis.separation`).

    python tools/measure_masked.py cases/valid cases/valid-other
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from stemprover.engine.detect.analysis import Analysis, analyse
from stemprover.engine.features import FeatureMaker
from stemprover.engine.repair import MODEL_RATE
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
    values: dict[str, list[tuple[float, Analysis]]] = {}
    for folder in given.folders:
        for kind, path in some_of(written_cases(folder), given.most):
            sounds = read_case(path)
            named = {kind: sounds["degraded"]} | ({"true": sounds["truth"]} if kind.startswith("separated-") else {})
            for name, stem in named.items():
                found = masked(stem, sounds["mix"]), analyse(stem, MODEL_RATE, sounds["mix"])
                values.setdefault(name, []).append(found)
    for kind, several in values.items():
        shares, told = [share for share, _ in several], [analysis.mark for _, analysis in several]
        count = sum(analysis.is_separated for _, analysis in several)
        print(
            f"{kind:26} masked {min(shares):+.2f} to {max(shares):+.2f}; "
            f"mark {min(told):+.2f} to {max(told):+.2f}, told as a separator's {count} of {len(several)}"
        )


if __name__ == "__main__":
    main()

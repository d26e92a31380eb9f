"""How far stems of each kind are what a mask made of their song: near 1 for a separator that masks, near 0 for a true
stem (`engine/dsp/leakage.py`, masked); and how many of them auto takes for a separator's (`Analysis.mark`).

    python tools/measure_masked.py cases/valid cases/valid-other --pool data/pool/valid data/pool/valid-other \\
        --songs FOLDER_OF_SONGS
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from stemprover.benchmarks.consistency import EXTENSIONS, items
from stemprover.engine.constants import MODEL_RATE
from stemprover.engine.detect.analysis import Analysis, analyse
from stemprover.engine.dsp.stft import Stft, StftConfig, whole_stft
from stemprover.engine.features import FeatureMaker
from stemprover.engine.train.cases import read_case, written_cases
from stemprover.engine.train.corpus.layouts import find_songs
from stemprover.engine.train.fit_trust import some_of

BLEED = (0.0, 0.03, 0.1, 0.3, 0.6)
STARTS_S, SECONDS = (50.0, 100.0), 12.0
SILENT = 1e-4  # of the song's power, a stem says nothing
ACTIVE_DB = -30.0  # frames so far under the song's loudest are left out


def masked(stem: np.ndarray, mix: np.ndarray) -> float:
    """Median over the active frames of a stem and its song, (2, T) at 44.1 kHz."""
    stft, maker = Stft(StftConfig()), FeatureMaker()
    spectra = [whole_stft(stft, sound)[None] for sound in (stem, mix)]
    found = maker(spectra[0], spectra[1], maker.start(1))[0].masked[0]
    power = np.square(np.abs(spectra[1])).sum(axis=(0, 1, 2))
    return float(np.median(found[power > 10 ** (ACTIVE_DB / 10) * power.max()]))


def pairs(given: argparse.Namespace) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """What a stem is, the stem, and its song."""
    for folder in given.folders:
        for kind, path in some_of(written_cases(folder), given.most):
            sounds = read_case(path)
            yield kind, sounds["degraded"], sounds["mix"]
            if kind.startswith("separated-"):
                yield "true", sounds["truth"], sounds["mix"]
    for split in given.pool:
        for item in items(split, given.items):
            song = item[:2].sum(axis=0)
            for extension, places in EXTENSIONS.items():
                for role, place in zip(("vocals", "accompaniment"), places, strict=True):
                    yield f"Spleeter {extension} {role}", item[place], song
    for whole in find_songs(given.songs).songs if given.songs is not None else ():
        for start in STARTS_S:
            sounds, _ = whole.excerpt(start, SECONDS)
            song = np.sum(list(sounds.values()), axis=0)
            for stem in sounds.values():
                if np.mean(stem**2) > SILENT * np.mean(song**2):
                    for gain in BLEED:
                        kind = f"with {gain:g} of the rest" if gain else "of whole songs"
                        yield f"true {kind}", stem + np.float32(gain) * (song - stem), song


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("folders", type=Path, nargs="*", help="cases, as of stemprover.engine.train.cases")
    parser.add_argument("--most", type=int, default=None, help="cases of each kind and folder (all)")
    parser.add_argument(
        "--pool", type=Path, nargs="*", default=[], help="splits of a pool: with both of Spleeter's ends"
    )
    parser.add_argument("--items", type=int, default=20, help="of each split")
    parser.add_argument("--songs", type=Path, help="songs: their true stems, and those with bleed")
    given = parser.parse_args()
    values: dict[str, list[tuple[float, Analysis]]] = {}
    for kind, stem, song in pairs(given):
        found = masked(stem, song), analyse(stem, MODEL_RATE, song)
        values.setdefault(kind, []).append(found)
    for kind, several in values.items():
        shares, told = [share for share, _ in several], [analysis.mark for _, analysis in several]
        count = sum(analysis.is_separated for _, analysis in several)
        print(
            f"{kind:26} masked {min(shares):+.2f} to {max(shares):+.2f}; "
            f"mark {min(told):+.2f} to {max(told):+.2f}, told as a separator's {count} of {len(several)}"
        )


if __name__ == "__main__":
    main()

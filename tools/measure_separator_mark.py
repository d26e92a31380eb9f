"""How reliably `analyze` and auto recognise the output of a mask-based separator (`Analysis.mask_score`), beside the
evidence that the trust curves use (`Leakage.mask_likelihood`): near 1 for such a separator, near 0 for a true stem.

    python tools/measure_separator_mark.py cases/valid cases/valid-other \\
        --pool data/pool/valid data/pool/valid-other --songs FOLDER_OF_SONGS
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from stemprover.benchmarks.consistency import EXTENSIONS, items
from stemprover.benchmarks.table import print_table
from stemprover.engine.constants import MODEL_RATE
from stemprover.engine.detect.analysis import Analysis, analyse
from stemprover.engine.dsp.stft import Stft, StftConfig, whole_stft
from stemprover.engine.features import FeatureMaker
from stemprover.engine.train.cases import read_case, select_cases, written_cases
from stemprover.engine.train.corpus.layouts import find_songs

BLEED = (0.0, 0.03, 0.1, 0.3, 0.6)
STARTS_S, SECONDS = (50.0, 100.0), 12.0
SILENT = 1e-4  # of the mix's power; quieter stems are left out
ACTIVE_DB = -30.0  # relative to the loudest frame of the mix; quieter frames are left out


def mask_likelihood(stem: np.ndarray, mix: np.ndarray) -> float:
    """Median of the likelihood over the active frames of a stem and its mix, (2, T) at 44.1 kHz."""
    stft, maker = Stft(StftConfig()), FeatureMaker()
    spectra = [whole_stft(stft, sound)[None] for sound in (stem, mix)]
    leakage = maker(spectra[0], spectra[1], maker.start(1))[0].leakage
    assert leakage is not None
    found = leakage.mask_likelihood[0]
    power = np.square(np.abs(spectra[1])).sum(axis=(0, 1, 2))
    return float(np.median(found[power > 10 ** (ACTIVE_DB / 10) * power.max()]))


def stems(given: argparse.Namespace) -> Iterator[tuple[str, np.ndarray, np.ndarray]]:
    """(kind, stem, mix) of the cases, of the pool's items and of the songs."""
    for folder in given.folders:
        for kind, path in select_cases(written_cases(folder), given.most):
            sounds = read_case(path)
            yield kind, sounds["degraded"], sounds["mix"]
            if kind.startswith("separated-"):
                yield "true", sounds["truth"], sounds["mix"]
    for split in given.pool:
        for item in items(split, given.items):
            mix = item[:2].sum(axis=0)
            for extension, places in EXTENSIONS.items():
                for role, place in zip(("vocals", "accompaniment"), places, strict=True):
                    yield f"Spleeter, {role}, highs: {extension}", item[place], mix
    for song in find_songs(given.songs).songs if given.songs is not None else ():
        for start in STARTS_S:
            sounds, _ = song.excerpt(start, SECONDS)
            mix = np.sum(list(sounds.values()), axis=0)
            for stem in sounds.values():
                if np.mean(stem**2) > SILENT * np.mean(mix**2):
                    for gain in BLEED:
                        kind = f"with {gain:g} of the rest" if gain else "of whole songs"
                        yield f"true {kind}", stem + np.float32(gain) * (mix - stem), mix


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("folders", type=Path, nargs="*", help="cases made by stemprover.engine.train.cases")
    parser.add_argument("--most", type=int, default=None, help="cases of each kind and folder (default: all)")
    parser.add_argument("--pool", type=Path, nargs="*", default=[], help="splits of a pool, for Spleeter's stems")
    parser.add_argument("--items", type=int, default=20, help="items of each split")
    parser.add_argument("--songs", type=Path, help="songs, for true stems with and without bleed")
    given = parser.parse_args()
    values: dict[str, list[tuple[float, Analysis]]] = {}
    for kind, stem, mix in stems(given):
        values.setdefault(kind, []).append((mask_likelihood(stem, mix), analyse(stem, MODEL_RATE, mix)))
    if not values:
        parser.error("nothing to measure; name folders of cases, --pool or --songs")
    rows = []
    for kind, several in values.items():
        likelihoods, scores = [one for one, _ in several], [analysis.mask_score for _, analysis in several]
        count = sum(analysis.is_separated for _, analysis in several)
        ranges = [f"{min(found):+.2f} to {max(found):+.2f}" for found in (scores, likelihoods)]
        rows.append([kind, f"{count} of {len(several)}", *ranges])
    print_table("Recognised as a separator's", ["stems", "recognised", "mask score", "mask likelihood"], rows)


if __name__ == "__main__":
    main()

"""How often the level of a stem in its song is found, and how often one is found where there is no other.

    python tools/measure_levels.py cases/valid cases/valid-other --songs FOLDER_OF_SONGS
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import soundfile
from stemprover.engine.dsp.fifo import Fifo
from stemprover.engine.train.corpus.layouts import find_songs
from stemprover.offline.alignment import MAX_OFFSET_S, estimate_alignment

LEVELS_DB = (0.0, -1.0, -6.0, 4.0)
NEAR_DB = 0.3
SECONDS, BLEED = 10.0, 0.3
SILENT = 1e-4  # of the song's power, a stem says nothing


class Early:
    """A song in memory, begun early."""

    def __init__(self, song: np.ndarray, rate: int) -> None:
        self._fifo = Fifo()
        self._fifo.push(np.pad(song, ((0, 0), (round(MAX_OFFSET_S * rate), 2 * rate))))

    def take(self, samples: int) -> np.ndarray:
        """The next samples (C, n)."""
        return self._fifo.pop(samples)


def read(path: Path) -> tuple[np.ndarray, int]:
    """Samples (C, T) and rate."""
    sound, rate = soundfile.read(path, dtype="float32", always_2d=True)
    return sound.T, rate


def pairs(
    folders: list[Path], songs: Path | None, starts: list[float]
) -> Iterator[tuple[str, np.ndarray, np.ndarray, int]]:
    """What a stem is, stem, song, rate."""
    for folder in folders:
        for case in sorted(folder.glob("*/*/degraded.flac")):
            (stem, rate), (mix, _) = read(case), read(case.with_name("mix.flac"))
            kind = case.parent.parent.name
            yield kind, stem, mix, rate
            if kind in ("phasiness", "smeared-transients"):
                rest = mix - read(case.with_name("truth.flac"))[0]
                yield f"{kind} with bleed", stem + np.float32(BLEED) * rest, mix, rate
    for song in find_songs(songs).songs if songs is not None else ():
        for start in starts:
            sounds, rate = song.excerpt(start, SECONDS)
            mix = np.sum(list(sounds.values()), axis=0)
            for stem in sounds.values():
                if np.mean(stem**2) > SILENT * np.mean(mix**2):
                    yield "true", stem, mix, rate
                    yield "true with bleed", stem + np.float32(BLEED) * (mix - stem), mix, rate


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("cases", type=Path, nargs="*", help="folders of cases")
    parser.add_argument("--songs", type=Path, help="songs: folders of files that are named by stem")
    parser.add_argument("--start", type=float, nargs="+", default=[20.0, 50.0, 100.0, 130.0], help="seconds into each")
    given = parser.parse_args()
    found: dict[str, list[list[float]]] = {}
    for kind, stem, song, rate in pairs(given.cases, given.songs, given.start):
        rows = found.setdefault(kind, [[] for _ in LEVELS_DB])
        for row, level in zip(rows, LEVELS_DB, strict=True):
            moved = np.float32(10 ** (level / 20)) * stem
            row.append(estimate_alignment([moved], Early(song, rate), rate).difference_db + level)
    print(f"{'':30}" + "".join(f"{f'at {level:+g} dB':>22}" for level in LEVELS_DB))
    for kind, rows in found.items():
        cells = []
        for row, level in zip(rows, LEVELS_DB, strict=True):
            right = sum(abs(error) < NEAR_DB for error in row)
            missed = sum(error == level for error in row if abs(error) >= NEAR_DB)
            cells.append(f"{right} of {len(row)}, {len(row) - right - missed} wrong")
        print(f"{kind:30}" + "".join(f"{cell:>22}" for cell in cells), flush=True)


if __name__ == "__main__":
    main()

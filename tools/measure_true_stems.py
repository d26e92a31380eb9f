"""How well true stems of whole songs, which need no repair, are preserved: the SDR at which they come back, and how
much of the error lies below 200 Hz. With --bleed, how well stems with that much of the rest of the mix are repaired.

    python tools/measure_true_stems.py FOLDER_OF_SONGS --preset auto
    python tools/measure_true_stems.py FOLDER_OF_SONGS --preset auto --bleed 0.1
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from stemprover.benchmarks.table import print_table
from stemprover.engine.auto import preset_for
from stemprover.engine.detect.analysis import analyse
from stemprover.engine.preset import load_preset
from stemprover.engine.repair import Repairer
from stemprover.engine.train.corpus.layouts import find_songs

LOW_HZ = 200.0
WANTED_DB = 35.0
SILENT_DB = -60.0  # relative to the mix; quieter stems are left out


def ratio_db(one: np.ndarray, other: np.ndarray) -> float:
    """Power of one signal over another's, at most 200 dB."""
    return min(200.0, 10 * float(np.log10((np.square(one).sum() + 1e-20) / (np.square(other).sum() + 1e-20))))


def low_share(error: np.ndarray, rate: int) -> float:
    """Share of the power that lies below LOW_HZ."""
    power = np.square(np.abs(np.fft.rfft(error, axis=1))).sum(axis=0)
    return float(power[: round(LOW_HZ * error.shape[1] / rate)].sum() / (power.sum() + 1e-20))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("folder", type=Path, help="songs: folders of files that are named after their stems")
    parser.add_argument("--preset", default="auto")
    parser.add_argument("--start", type=float, nargs="+", default=[50.0, 100.0], help="seconds into each song")
    parser.add_argument("--bleed", type=float, default=0.0, help="gain of the rest of the mix in each stem")
    parser.add_argument("--seconds", type=float, default=12.0, help="length of each excerpt")
    given = parser.parse_args()
    found, gained, rows = [], [], []
    for song in find_songs(given.folder).songs:
        for start in given.start:
            sounds, rate = song.excerpt(start, given.seconds)
            mix = np.sum(list(sounds.values()), axis=0)
            for name, stem in sounds.items():
                if ratio_db(stem, mix) < SILENT_DB:
                    continue
                given_stem = stem + np.float32(given.bleed) * (mix - stem)
                chosen = preset_for(analyse(given_stem, rate, mix)) if given.preset == "auto" else None
                preset = chosen or load_preset(given.preset)
                error = Repairer(preset).process(given_stem, rate, mix) - stem
                found.append(ratio_db(stem, error))
                gained.append(found[-1] - ratio_db(stem, given_stem - stem))
                gain = [f"{gained[-1]:+.1f} dB"] if given.bleed else []
                excerpt = f"{song.name}, {start:g} s"
                low = f"{100 * low_share(error, rate):.0f}%"
                rows.append([excerpt, name, f"{found[-1]:.1f} dB", *gain, low, preset.name])
    if not rows:
        parser.error(f"{given.folder}: no excerpt has a stem that is not silent; check --start")
    head = ["excerpt", "stem", "SDR after", *(["gain"] if given.bleed else []), f"error below {LOW_HZ:g} Hz", "preset"]
    what = f"True stems with {given.bleed:g} of the rest of the mix" if given.bleed else "True stems"
    print_table(f"{what}, preset {given.preset}", head, rows)
    under = sum(value < WANTED_DB for value in found)
    print(
        f"{len(found)} stems: median {np.median(found):.1f} dB, worst {min(found):.1f} dB, "
        f"{under} below {WANTED_DB:g} dB."
    )
    if given.bleed:
        lost = sum(value < -0.05 for value in gained)
        print(f"Gain: median {np.median(gained):+.1f} dB, worst {min(gained):+.1f} dB; {lost} lost.")


if __name__ == "__main__":
    main()

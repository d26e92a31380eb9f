"""At how many dB true stems of whole songs come back, which a repair should leave alone; how much of what is wrong then
lies below 200 Hz. With `--bleed`, of stems that so much of the rest of their song is in, which it should take out.

    python tools/measure_true_stems.py FOLDER_OF_SONGS --preset auto
    python tools/measure_true_stems.py FOLDER_OF_SONGS --preset auto --bleed 0.1
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from stemprover import Repairer, load_preset
from stemprover.engine.auto import preset_for
from stemprover.engine.detect.analysis import analyse
from stemprover.engine.train.corpus.layouts import find_songs

LOW_HZ = 200.0
WANTED_DB = 35.0
SILENT_DB = -60.0  # under the song, a stem says nothing


def db(one: np.ndarray, other: np.ndarray) -> float:
    """Power of one sound over another's, at most 200."""
    return min(200.0, 10 * float(np.log10((np.square(one).sum() + 1e-20) / (np.square(other).sum() + 1e-20))))


def low_share(change: np.ndarray, rate: int) -> float:
    """Share of the power below LOW_HZ."""
    power = np.square(np.abs(np.fft.rfft(change, axis=1))).sum(axis=0)
    return float(power[: round(LOW_HZ * change.shape[1] / rate)].sum() / (power.sum() + 1e-20))


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("folder", type=Path, help="songs: folders of files that are named by stem")
    parser.add_argument("--preset", default="auto")
    parser.add_argument("--start", type=float, nargs="+", default=[50.0, 100.0], help="seconds into each song")
    parser.add_argument("--bleed", type=float, default=0.0, help="gain of the rest of the song in each stem")
    parser.add_argument("--seconds", type=float, default=12.0)
    given = parser.parse_args()
    found, gained = [], []
    for song in find_songs(given.folder).songs:
        for start in given.start:
            sounds, rate = song.excerpt(start, given.seconds)
            mix = np.sum(list(sounds.values()), axis=0)
            for name, stem in sounds.items():
                if db(stem, mix) < SILENT_DB:
                    continue
                given_stem = stem + np.float32(given.bleed) * (mix - stem)
                chosen = preset_for(analyse(given_stem, rate, mix)) if given.preset == "auto" else None
                preset = chosen or load_preset(given.preset)
                wrong = Repairer(preset).process(given_stem, rate, mix) - stem
                found.append(db(stem, wrong))
                gained.append(found[-1] - db(stem, given_stem - stem))
                what, low = f"{song.name} {start:g} s {name}", 100 * low_share(wrong, rate)
                before = f" ({gained[-1]:+5.1f})" if given.bleed else ""
                print(
                    f"{what:28} {found[-1]:6.1f} dB{before}  {low:3.0f}% below {LOW_HZ:g} Hz  {preset.name}", flush=True
                )
    under = sum(value < WANTED_DB for value in found)
    middle, least = np.median(found), min(found)
    print(f"{len(found)} stems: median {middle:.1f} dB, worst {least:.1f} dB, {under} under {WANTED_DB:g} dB")
    if given.bleed:
        lost = sum(value < -0.05 for value in gained)
        print(f"gained: median {np.median(gained):+.1f} dB, worst {min(gained):+.1f} dB, {lost} lost")


if __name__ == "__main__":
    main()

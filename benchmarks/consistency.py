"""What it does to the stems of a song to make them sum to the mix. The stems are real ones by Spleeter, of a held-out
split of the training pool, and each is repaired first, as `repair --mix` does it.

    python -m stemprover.benchmarks.consistency data/pool --split test
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from ..engine.auto import preset_for
from ..engine.detect.analysis import analyse
from ..engine.dsp.consistency import MixConsistency
from ..engine.metrics.basic import log_spectral_distance, si_sdr, windowed
from ..engine.repair import Repairer
from .table import print_table

RATE, WINDOW = 44100, 220500
FULL_SCALE = 32767  # of the pool's int16
#: Spleeter models nothing above 11 kHz; the pool has its stems with two ways to fill in the highs. By their names: the
#: rows of vocals and accompaniment in an item (12, T).
EXTENSIONS = {"zeros": [2, 3], "average": [4, 5]}
_SILENT = 1e-3  # of full scale


class AsRepair:
    """Repairs stems (S, C, n) one after the other, as the command does. It keeps one model at a time."""

    def __init__(self) -> None:
        self._loaded: dict[tuple[str, bool], Repairer] = {}

    def __call__(self, dry: np.ndarray, mix: np.ndarray) -> tuple[np.ndarray, list[float]]:
        """The repaired stems, and how faulty each was."""
        repaired, severities = [], []
        for stem in dry:
            analysis = analyse(stem, RATE, mix)
            preset = preset_for(analysis)
            key = preset.name, preset.separated
            if key not in self._loaded:
                self._loaded = {key: Repairer(preset, jobs=1)}
            repaired.append(self._loaded[key].process(stem, RATE, mix))
            severities.append(analysis.strength)
        return np.stack(repaired), severities


def in_sum(stems: np.ndarray, mix: np.ndarray, severities: list[float]) -> np.ndarray:
    """Stems (S, C, n) that sum to the mix."""
    stream = MixConsistency(severities, mix.shape[0])
    return stems + np.concatenate([stream.process(stems, mix), stream.finish()], axis=-1)


def measured(stem: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """SI-SDR and log-spectral distance in dB, medians over windows; NaN if the true stem is silent in all of them."""
    found = [windowed(measure, stem, truth, WINDOW) for measure in (si_sdr, log_spectral_distance)]
    si_sdr_db, distance_db = (float(np.nanmedian(v)) if np.isfinite(v).any() else np.nan for v in found)
    return si_sdr_db, distance_db


def items(folder: Path, most: int | None) -> Iterator[np.ndarray]:
    """Items (12, T) of a split of the pool, evenly spread, without those whose voice or accompaniment is silent."""
    shards = [np.load(path, mmap_mode="r") for path in sorted(folder.glob("shard_*.npy"))]
    sounding = [
        (shard, number)
        for shard in shards
        for number in range(len(shard))
        if np.abs(shard[number][:2]).max(axis=(1, 2)).min() > _SILENT * FULL_SCALE
    ]
    count = len(sounding) if most is None else min(most, len(sounding))
    for place in np.linspace(0, len(sounding) - 1, count).astype(int):
        shard, number = sounding[place]
        yield shard[number].astype(np.float32) / np.float32(FULL_SCALE)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("pool", type=Path)
    parser.add_argument("--split", default="test", help="a held-out split")
    parser.add_argument("--items", type=int, help="number of items, evenly spread (default: all)")
    given = parser.parse_args()
    folder = given.pool / given.split
    if not any(folder.glob("shard_*.npy")):
        parser.error(f"{folder} has no shards; build the pool first: stemprover corpus build --help")
    repair, found = AsRepair(), dict[tuple[str, str], list[np.ndarray]]()
    for item in items(folder, given.items):
        truth = item[:2]
        mix = truth.sum(axis=0)
        for extension, places in EXTENSIONS.items():
            dry = item[places]
            repaired, severities = repair(dry, mix)
            states = dry, repaired, in_sum(repaired, mix, severities)
            for number, role in enumerate(("vocals", "accompaniment")):
                measures = np.array([measured(stems[number], truth[number]) for stems in states])
                found.setdefault((role, extension), []).append(measures)
    gain_rows, distance_rows = [], []
    for (role, extension), measures_of in found.items():
        values = np.array(measures_of)  # (sets, states, measures)
        values = values[np.isfinite(values).all(axis=(1, 2))]
        gains = values[:, 1:, 0] - values[:, :1, 0]
        by_sum = gains[:, 1] - gains[:, 0]
        numbers = [*np.median(gains, axis=0), *gains.min(axis=0), np.median(by_sum), by_sum.mean(), by_sum.min()]
        gain_rows.append([role, extension, str(len(values)), *(f"{n:+.2f}" for n in numbers)])
        distances = np.median(values[:, :, 1], axis=0)
        distance_rows.append([role, extension, str(len(values)), *(f"{n:.2f}" for n in distances)])
    head = ["stem", "highs", "cases"]
    print_table(
        "SI-SDR gain in dB, repaired and then made to sum to the mix",
        [*head, "repaired", "in sum", "worst, repaired", "worst, in sum", "by the sum: median", "mean", "worst"],
        gain_rows,
    )
    print_table("Log-spectral distance in dB, medians", [*head, "separated", "repaired", "in sum"], distance_rows)


if __name__ == "__main__":
    main()

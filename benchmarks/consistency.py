"""What it does to a song's stems to have them sum to the song, on the real Spleeter's stems of a held-out split, each
repaired first as `repair --mix` does it, by what the detectors find.

    python -m stemprover.benchmarks.consistency data/pool --split test
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from ..engine.auto import preset_for
from ..engine.detect.analysis import analyse
from ..engine.dsp.consistency import MixConsistency
from ..engine.metrics.basic import log_spectral_distance, si_sdr, windowed
from ..engine.repair import Repairer

RATE, WINDOW = 44100, 220500
FULL_SCALE = 32767  # of the pool's int16
#: By Spleeter's ways to go on above the bins that it knows: the rows of vocals and accompaniment in an item (12, T).
EXTENSIONS = {"zeros": [2, 3], "average": [4, 5]}
_SILENT = 1e-3  # of full scale


class AsRepair:
    """Repairs stems (S, C, n) as the command does, one after the other; keeps one model, since models take memory."""

    def __init__(self) -> None:
        self._made: dict[tuple[str, bool], Repairer] = {}

    def __call__(self, dry: np.ndarray, mix: np.ndarray) -> tuple[np.ndarray, list[float]]:
        """The repaired stems, and how faulty each was."""
        repaired, severities = [], []
        for stem in dry:
            heard = analyse(stem, RATE, mix)
            preset = preset_for(heard)
            key = preset.name, preset.separated
            if key not in self._made:
                self._made = {key: Repairer(preset, jobs=1)}
            repaired.append(self._made[key].process(stem, RATE, mix))
            severities.append(heard.strength)
        return np.stack(repaired), severities


def in_sum(stems: np.ndarray, mix: np.ndarray, severities: list[float]) -> np.ndarray:
    """Stems (S, C, n) with their shares."""
    stream = MixConsistency(severities, mix.shape[0])
    return stems + np.concatenate([stream.process(stems, mix), stream.finish()], axis=-1)


def measured(stem: np.ndarray, truth: np.ndarray) -> tuple[float, float]:
    """SI-SDR and log-spectral distance in dB, medians over windows; NaN where the true stem is silent in all."""
    found = [windowed(measure, stem, truth, WINDOW) for measure in (si_sdr, log_spectral_distance)]
    si_sdr_db, distance_db = (float(np.nanmedian(v)) if np.isfinite(v).any() else np.nan for v in found)
    return si_sdr_db, distance_db


def items(folder: Path, most: int | None) -> Iterator[np.ndarray]:
    """Sounds (12, T) of the pool, evenly spread, without those in which voice or accompaniment is silent."""
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
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("pool", type=Path)
    parser.add_argument("--split", default="test", help="a held-out split")
    parser.add_argument("--items", type=int, help="how many, evenly spread; all unless given")
    given = parser.parse_args()
    folder = given.pool / given.split
    if not any(folder.glob("shard_*.npy")):
        parser.error(f"{folder} holds no shards; build it first: python -m stemprover.engine.train.corpus.pool --help")
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
    table = Table(title="Stems in sum; SI-SDR and log-spectral distance in dB", title_justify="left")
    for heading in (
        "stem", "extension", "sets", "gain, repaired", "gain, in sum", "worst, repaired", "worst, in sum",
        "for the sum: median", "mean", "worst", "distance: separated", "repaired", "in sum",
    ):  # fmt: skip
        table.add_column(heading)
    for (role, extension), rows in found.items():
        values = np.array(rows)  # (sets, states, measures)
        values = values[np.isfinite(values).all(axis=(1, 2))]
        gains = values[:, 1:, 0] - values[:, :1, 0]
        for_sum = gains[:, 1] - gains[:, 0]
        numbers = [*np.median(gains, axis=0), *gains.min(axis=0), np.median(for_sum), for_sum.mean(), for_sum.min()]
        distances = np.median(values[:, :, 1], axis=0)
        table.add_row(
            role, extension, str(len(values)), *[f"{n:+.2f}" for n in numbers], *[f"{n:.2f}" for n in distances]
        )
    Console(width=180).print(table)


if __name__ == "__main__":
    main()

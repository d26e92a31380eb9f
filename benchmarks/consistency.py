"""What it does to a song's stems to have them sum to the song, on the real Spleeter's stems of a held-out split.

    python -m stemprover.benchmarks.consistency data/pool --split test --items 8
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table

from ..engine.consistency import MixConsistency
from ..engine.metrics import log_spectral_distance, si_sdr, windowed
from ..engine.repair import Repairer

RATE, WINDOW = 44100, 220500
FULL_SCALE = 32767  # of the pool's int16


def in_sum(stems: np.ndarray, mix: np.ndarray) -> np.ndarray:
    """Stems (S, C, n), equally faulty, with their shares."""
    stream = MixConsistency([0.5] * len(stems), mix.shape[0])
    return stems + np.concatenate([stream.process(stems, mix), stream.finish()], axis=-1)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("pool", type=Path)
    parser.add_argument("--split", default="test", help="a held-out split")
    parser.add_argument("--items", type=int, default=8, help="of its first shard, evenly spread")
    given = parser.parse_args()
    shard = given.pool / given.split / "shard_000.npy"
    if not shard.exists():
        parser.error(f"{shard} is not there; build it first: python -m stemprover.engine.train.pool --help")
    tracks = np.load(shard, mmap_mode="r")
    repairer, console = Repairer(jobs=1), Console(width=110)
    for extension, places in (("zeros", (2, 3)), ("average", (4, 5))):
        found: dict[tuple[str, str], list[tuple[float, float]]] = {}
        for number in np.linspace(0, len(tracks) - 1, given.items).astype(int):
            item = tracks[number].astype(np.float32) / np.float32(FULL_SCALE)
            truth, dry = item[:2], item[list(places)]
            mix = truth.sum(axis=0)
            repaired = np.stack([repairer.process(stem, RATE, mix) for stem in dry])
            for name, stems in (
                ("as separated", dry), ("in sum", in_sum(dry, mix)), ("repaired", repaired),
                ("repaired, in sum", in_sum(repaired, mix)),
            ):  # fmt: skip
                for role, stem, true in zip(("vocals", "accompaniment"), stems, truth, strict=True):
                    if np.abs(true).max() > 1e-3:
                        ratio = float(np.nanmedian(windowed(si_sdr, stem, true, WINDOW)))
                        distance = float(np.nanmedian(windowed(log_spectral_distance, stem, true, WINDOW)))
                        found.setdefault((role, name), []).append((ratio, distance))
        table = Table("stem", "", "SI-SDR, dB", "median gain", "worst", "log-spectral distance", title=extension)
        for (role, name), rows in found.items():
            values = np.array(rows)
            gains = values[:, 0] - np.array(found[role, "as separated"])[:, 0]
            ratio, distance = np.median(values, axis=0)
            table.add_row(
                role, name, f"{ratio:.2f}", f"{np.median(gains):+.2f}", f"{gains.min():+.2f}", f"{distance:.2f}"
            )
        console.print(table)


if __name__ == "__main__":
    main()

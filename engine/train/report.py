"""What the shipped model does to held-out songs, measured on what the real separator made of them.

    python -m stemprover.engine.train.report data/pool [--split valid] [--bundle presets/base] [--steps 1 2 4]
[--no-mix]

Prints, for vocals and accompaniment, medians over windows of 5 seconds of SI-SDR, the log-spectral distance, and how
much of a true stem comes back when a true stem goes in. Runs the exported model, as a user would.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ..metrics import log_spectral_distance, sdr, si_sdr, windowed
from ..repair import Repairer
from .pool import FULL_SCALE, TRACKS, open_shard, shard_paths

WINDOW_SAMPLES = 5 * 44100


@dataclass(frozen=True)
class Row:
    """One stem of one split: medians over windows, in dB; `worse` is the share of windows that lost over 0.2 dB."""

    split: str
    stem: str
    extension: str
    steps: int
    mixture: bool
    windows: int
    si_sdr_before: float
    si_sdr_gain: float
    worse: float
    log_spectral_before: float
    log_spectral_change_percent: float
    clean_sdr: float


def pieces(pool: Path, split: str) -> list[np.ndarray]:
    """The items of a split as (6, 2, T) float32; those of "valid" are consecutive, so they are joined to one."""
    items = [np.asarray(item) for path in shard_paths(pool / split) for item in open_shard(path)[0]]
    if split == "valid":
        items = [np.concatenate(items, axis=-1)]
    return [item.astype(np.float32) / np.float32(FULL_SCALE) for item in items]


def measure(repairer: Repairer, items: list[np.ndarray], split: str, extension: str, mixture: bool) -> list[Row]:
    """A row for vocals and one for accompaniment."""
    rows = []
    for stem, letter in (("vocals", "v"), ("accompaniment", "a")):
        before, gains, lsd_before, lsd_after, clean = [], [], [], [], []
        for item in items:
            tracks = dict(zip(TRACKS, item, strict=True))
            truth, separated = tracks[f"x_{letter}"], tracks[f"y_{letter}_{extension}"]
            mix = tracks["x_v"] + tracks["x_a"] if mixture else None
            repaired = repairer.process(separated, 44100, mix)
            first = windowed(si_sdr, separated, truth, WINDOW_SAMPLES)
            before.append(first)
            gains.append(windowed(si_sdr, repaired, truth, WINDOW_SAMPLES) - first)
            lsd_before.append(windowed(log_spectral_distance, separated, truth, WINDOW_SAMPLES))
            lsd_after.append(windowed(log_spectral_distance, repaired, truth, WINDOW_SAMPLES))
            clean.append(windowed(sdr, repairer.process(truth, 44100, mix), truth, WINDOW_SAMPLES))
        gain = np.concatenate(gains)
        lsd = [float(np.median(np.concatenate(values))) for values in (lsd_before, lsd_after)]
        rows.append(
            Row(
                split=split,
                stem=stem,
                extension=extension,
                steps=repairer.steps,
                mixture=mixture,
                windows=len(gain),
                si_sdr_before=round(float(np.median(np.concatenate(before))), 2),
                si_sdr_gain=round(float(np.median(gain)), 3),
                worse=round(float(np.mean(gain < -0.2)), 3),
                log_spectral_before=round(lsd[0], 2),
                log_spectral_change_percent=round(100 * (lsd[1] / lsd[0] - 1), 2),
                clean_sdr=round(float(np.median(np.concatenate(clean))), 1),
            )
        )
    return rows


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("pool", type=Path)
    parser.add_argument("--split", nargs="+", default=["valid"])
    parser.add_argument("--bundle", type=Path, default=None)
    parser.add_argument("--steps", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--extension", nargs="+", choices=["zeros", "average"], default=["zeros"])
    parser.add_argument("--no-mix", action="store_true", help="measure without the mixture")
    parser.add_argument("--jobs", type=int, default=None)
    parser.add_argument("--json", type=Path, default=None, help="write the rows here as well")
    given = parser.parse_args()
    rows: list[Row] = []
    for split in given.split:
        items = pieces(given.pool, split)
        for extension in given.extension:
            for steps in given.steps:
                repairer = Repairer(bundle=given.bundle, steps=steps, jobs=given.jobs)
                for row in measure(repairer, items, split, extension, not given.no_mix):
                    rows.append(row)
                    print("  ".join(f"{name} {value}" for name, value in asdict(row).items()), flush=True)
    if given.json is not None:
        given.json.write_text(json.dumps([asdict(row) for row in rows], indent=1) + "\n")


if __name__ == "__main__":
    main()

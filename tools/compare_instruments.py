"""Whether an instrument is worth an adapter of its own: one is trained on its true stems alone, one as long on all
stems of the same songs, with the same simulated faults, and both are measured on a song that neither has heard.

    python tools/compare_instruments.py STEMS WORK --instrument drums --held-out francium --minutes 7

STEMS is a folder of songs in stems (docs/training.md); what is in WORK already is not made again.
"""

from __future__ import annotations

import argparse
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from stemprover.engine.constants import MODEL_RATE
from stemprover.engine.metrics.basic import log_spectral_distance, si_sdr
from stemprover.engine.repair import Repairer
from stemprover.engine.train.corpus.artefacts import SIMULATORS
from stemprover.engine.train.corpus.layouts import find_songs
from stemprover.engine.train.corpus.true_stems import build_pool, excerpts
from stemprover.engine.train.dataset import CropConfig
from stemprover.engine.train.loop import train
from stemprover.engine.train.options import LossWeights, TrainOptions


def trained(work: Path, name: str, minutes: float) -> Path:
    """An adapter for all simulated faults on the pool of that name, by what the presets' recipes have in common."""
    run = work / f"run-{name}"
    if not (run / "adapter.safetensors").exists():
        crop = CropConfig(
            batch=4, frames=96, history=100, roles="v", average=0.0, simulated=1.0, upon_separated=0.0, blend=0.0,
            clean=0.1, no_mix=0.05, severity=(0.2, 1.0),
        )  # fmt: skip
        options = TrainOptions(
            run=run, pool=work / name, adapter="adapter", minutes=minutes, threads=1, learning_rate=1.5e-3, warmup=40,
            floor_db=-30.0, ema=0.99, validate_every=100_000, crop=crop, weights=LossWeights(log_error=3.0),
        )  # fmt: skip
        train(options)
    return run / "adapter.safetensors"


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("stems", type=Path)
    parser.add_argument("work", type=Path)
    parser.add_argument("--instrument", default="drums")
    parser.add_argument("--held-out", required=True, help="a song that has this stem")
    parser.add_argument("--minutes", type=float, default=7.0)
    given = parser.parse_args()
    having = [song for song in find_songs(given.stems).songs if given.instrument in dict(song.stems)]
    held_out = [song for song in having if song.name == given.held_out]
    songs = [song for song in having if song not in held_out]
    if not held_out or not songs:
        parser.error(f"{given.stems}: no song {given.held_out!r} with {given.instrument}, or no other one with them")
    work = given.work / f"{given.instrument}-without-{given.held_out}-{given.minutes:g}"
    repairers = {"the base": Repairer(gated=False)}
    every = tuple({name for song in songs for name, _ in song.stems})
    for name, stems in ((given.instrument, (given.instrument,)), ("all", every)):
        pool = work / name
        if not (pool / "train").exists():
            shutil.rmtree(work / "unfinished", ignore_errors=True)
            build_pool(work / "unfinished", [replace(song, split="train") for song in songs], stems)
            (work / "unfinished").rename(pool)
        adapter = trained(work, name, given.minutes)
        repairers[f"an adapter for {name}"] = Repairer(blend={adapter: 1.0}, gated=False)
    rng, rows = np.random.default_rng(1), {name: list[tuple[float, float]]() for name in repairers}
    items = list(excerpts(held_out[0], given.instrument))
    for number, (truth, rest) in enumerate(items):
        fault = list(SIMULATORS)[number % len(SIMULATORS)]
        degraded = SIMULATORS[fault](truth, rest, float(rng.uniform(0.35, 1.0)), rng)
        for name, repairer in repairers.items():
            after = repairer.process(degraded, MODEL_RATE, truth + rest)
            gained = (measure(after, truth) - measure(degraded, truth) for measure in (si_sdr, log_spectral_distance))
            rows[name].append(tuple(gained))
    title = f"{given.instrument} of {given.held_out}, {len(items)} excerpts, one simulated fault each, no gate"
    table = Table("", "SI-SDR, median", "mean", "worst", "log-spectral distance, mean", title=title)
    for name, found in rows.items():
        gains, distances = np.array(found).T
        figures = (np.median(gains), gains.mean(), gains.min(), distances.mean())
        table.add_row(name, *(f"{figure:+.2f} dB" for figure in figures))
    Console(width=110).print(table)


if __name__ == "__main__":
    main()

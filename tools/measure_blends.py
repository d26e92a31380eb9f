"""A stem with two faults: what the blend of their presets does, beside either preset alone and the base.

    python tools/measure_blends.py cases/test --stems 4 [--json report/presets/blends.json]

The faults are simulated upon held-out true stems, one after the other in random order, at severities of 0.35 to 1.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from stemprover.engine.constants import MODEL_RATE
from stemprover.engine.metrics.basic import log_spectral_distance, si_sdr
from stemprover.engine.preset import blend_presets, load_preset
from stemprover.engine.repair import Repairer
from stemprover.engine.train.cases import read_case, written_cases
from stemprover.engine.train.corpus.artefacts import SIMULATORS
from stemprover.engine.train.fit_trust import some_of

STEMS = ("separated-vocals", "separated-accompaniment")
Sounds = tuple[np.ndarray, np.ndarray, np.ndarray]


def sounds_with(pair: Sequence[str], cases: Sequence[Path], seed: int = 1) -> Iterator[Sounds]:
    """True stem, the same with both faults, and song, each (2, T) at 44.1 kHz."""
    rng = np.random.default_rng([seed, *"+".join(pair).encode()])
    for case in cases:
        sounds = read_case(case)
        truth, mix = sounds["truth"], sounds["mix"]
        degraded = truth
        for kind in rng.permutation(pair):
            degraded = SIMULATORS[kind](degraded, mix - truth, float(rng.uniform(0.35, 1.0)), rng)
        yield truth, degraded, mix


def measured(repairers: Mapping[str, Repairer], sounds: Sequence[Sounds]) -> dict[str, tuple[float, float]]:
    """By name of the repairer: median gain of SI-SDR in dB, and change of the median log-spectral distance in %."""
    found = {}
    for name, repairer in repairers.items():
        gains, before, after = [], [], []
        for truth, degraded, mix in sounds:
            repaired = repairer.process(degraded, MODEL_RATE, mix)
            gains.append(si_sdr(repaired, truth) - si_sdr(degraded, truth))
            before.append(log_spectral_distance(degraded, truth))
            after.append(log_spectral_distance(repaired, truth))
        found[name] = float(np.median(gains)), float(100 * (np.median(after) / np.median(before) - 1))
    return found


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("folder", type=Path, help="cases, as of stemprover.engine.train.cases")
    parser.add_argument("--stems", type=int, default=4, help="held-out stems, half of them vocals")
    parser.add_argument("--faults", nargs="+", choices=list(SIMULATORS), default=list(SIMULATORS), help="to be paired")
    parser.add_argument("--json", type=Path, help="also write the figures here")
    given = parser.parse_args()
    stems = [case for case in written_cases(given.folder) if case[0] in STEMS]
    cases = [folder for _, folder in some_of(stems, max(1, given.stems // 2))]
    alone = {name: Repairer(load_preset(name)) for name in ("general", *given.faults)}
    title = f"SI-SDR gain in dB / change of the log-spectral distance, medians of {len(cases)} stems"
    table, figures = Table("faults", "general", "first alone", "second alone", "both", title=title), {}
    for pair in combinations(given.faults, 2):
        both = Repairer(blend_presets(dict.fromkeys(pair, 1.0)))
        repairers = {"general": alone["general"], **{name: alone[name] for name in pair}, "both": both}
        found = measured(repairers, list(sounds_with(pair, cases)))
        table.add_row(" + ".join(pair), *(f"{gain:+.2f} / {change:+.1f}%" for gain, change in found.values()))
        figures[" + ".join(pair)] = list(found.values())
    rows = np.array(list(figures.values()))
    gain = int((rows[:, 3, 0] > rows[:, :3, 0].max(axis=1)).sum())
    distance = int((rows[:, 3, 1] < rows[:, :3, 1].min(axis=1)).sum())
    console = Console(width=140)
    console.print(table)
    console.print(f"both is the best of its row by SI-SDR in {gain}, by the distance in {distance} of {len(rows)}")
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1) + "\n")


if __name__ == "__main__":
    main()

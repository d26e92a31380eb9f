"""Stems with two faults: what the blend of their two presets does, compared with either preset alone and with general.

    python tools/measure_two_faults.py cases/test --stems 4

The faults are simulated on held-out true stems, one after the other in random order, at severities of 0.35 to 1.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations
from pathlib import Path

import numpy as np
from stemprover.benchmarks.table import print_table
from stemprover.engine.constants import MODEL_RATE
from stemprover.engine.metrics.basic import log_spectral_distance, si_sdr
from stemprover.engine.preset import blend_presets, load_preset
from stemprover.engine.repair import Repairer
from stemprover.engine.train.cases import read_case, select_cases, written_cases
from stemprover.engine.train.corpus.simulated_faults import SIMULATORS

STEMS = ("separated-vocals", "separated-accompaniment")
Sounds = tuple[np.ndarray, np.ndarray, np.ndarray]


def sounds_with(pair: Sequence[str], cases: Sequence[Path], seed: int = 1) -> Iterator[Sounds]:
    """For each case its true stem, the stem with both faults, and the mix, each (2, T) at 44.1 kHz."""
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
    parser.add_argument("folder", type=Path, help="cases made by stemprover.engine.train.cases")
    parser.add_argument("--stems", type=int, default=4, help="held-out stems, half of them vocals")
    parser.add_argument("--faults", nargs="+", choices=list(SIMULATORS), default=list(SIMULATORS), help="to combine")
    given = parser.parse_args()
    if len(given.faults) < 2:
        parser.error("--faults needs two faults or more")
    stems = [case for case in written_cases(given.folder) if case[0] in STEMS]
    cases = [folder for _, folder in select_cases(stems, max(1, given.stems // 2))]
    alone = {name: Repairer(load_preset(name)) for name in ("general", *given.faults)}
    rows, figures = [], []
    for pair in combinations(given.faults, 2):
        both = Repairer(blend_presets(dict.fromkeys(pair, 1.0)))
        repairers = {"general": alone["general"], **{name: alone[name] for name in pair}, "both": both}
        found = measured(repairers, list(sounds_with(pair, cases)))
        rows.append([" + ".join(pair), *(f"{gain:+.2f} / {change:+.1f}%" for gain, change in found.values())])
        figures.append(list(found.values()))
    values = np.array(figures)
    by_gain = int((values[:, 3, 0] > values[:, :3, 0].max(axis=1)).sum())
    by_distance = int((values[:, 3, 1] < values[:, :3, 1].min(axis=1)).sum())
    title = f"Gain of SI-SDR in dB / change of the log-spectral distance, medians over {len(cases)} stems"
    print_table(title, ["faults", "general", "first preset alone", "second preset alone", "blend of both"], rows)
    print(f"The blend is best by SI-SDR in {by_gain} and by the distance in {by_distance} of {len(rows)} pairs.")


if __name__ == "__main__":
    main()

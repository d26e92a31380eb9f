"""What more steps of the sampler bring and cost, and what a clean stem loses, with and without the detectors' gate.

    python -m stemprover.benchmarks.steps cases/test --cases 4
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import soundfile
from rich.console import Console
from rich.table import Table

from ..bridge.validate import Case, find_cases
from ..engine.metrics import log_spectral_distance, sdr, si_sdr, windowed
from ..engine.repair import Repairer

WINDOW_S = 5
STEPS = (1, 2, 4, 8)


def spread(cases: Sequence[Case], most: int) -> list[Case]:
    """So many of each kind, evenly spread."""
    by_kind = defaultdict(list)
    for case in cases:
        by_kind[case.kind].append(case)
    return [
        group[place]
        for group in by_kind.values()
        for place in sorted(set(np.linspace(0, len(group) - 1, most).round().astype(int)))
    ]


def measured(repairer: Repairer, case: Case, with_mix: bool) -> tuple[float, float, float, float]:
    """SI-SDR in dB and log-spectral distance in dB, each after less before, medians over windows; SDR in dB at which
    the true stem comes back from the same repair; seconds of work a second of sound."""
    sounds, rate = {}, 44100
    for name in ("truth", "degraded", "mix"):
        path = getattr(case, name)
        if path is not None:
            sound, rate = soundfile.read(path, dtype="float32", always_2d=True)
            sounds[name] = sound.T
    truth, before = sounds["truth"], sounds["degraded"]
    mix = sounds.get("mix") if with_mix else None
    began = time.perf_counter()
    after = repairer.process(before, rate, mix)
    took = (time.perf_counter() - began) / (before.shape[1] / rate)
    window = WINDOW_S * rate
    differences = [
        float(np.nanmedian(windowed(measure, after, truth, window) - windowed(measure, before, truth, window)))
        for measure in (si_sdr, log_spectral_distance)
    ]
    return *differences, sdr(repairer.process(truth, rate, mix), truth), took


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("folder", type=Path, help="cases, as of stemprover.engine.train.cases")
    parser.add_argument("--cases", type=int, default=4, help="of each kind")
    parser.add_argument("--steps", type=int, nargs="+", default=STEPS)
    parser.add_argument("--no-mix", action="store_true")
    parser.add_argument("--model", type=Path, default=None, help="another bundle than the shipped one")
    given = parser.parse_args(arguments)
    cases, console = spread(find_cases(given.folder), given.cases), Console(width=120)
    kinds = list(dict.fromkeys(case.kind for case in cases))
    table = Table("steps", "gate", *kinds, "a clean stem comes back at", "time", title="SI-SDR gain / LSD change, dB")
    for count in given.steps:
        for gated in (True, False):
            repairer = Repairer(bundle=given.model, steps=count, jobs=1, gated=gated)
            found = [measured(repairer, case, not given.no_mix) for case in cases]
            cells = []
            for kind in kinds:
                rows = np.array([row for row, case in zip(found, cases, strict=True) if case.kind == kind])
                cells.append(f"{np.median(rows[:, 0]):+.2f} / {np.median(rows[:, 1]):+.2f}")
            clean, took = (np.array([row[i] for row in found]) for i in (2, 3))
            back = f"{np.median(clean):.1f} dB, worst {clean.min():.1f} dB"
            table.add_row(str(count), "on" if gated else "off", *cells, back, f"{np.median(took):.3f}")
    console.print(table)


if __name__ == "__main__":
    main()

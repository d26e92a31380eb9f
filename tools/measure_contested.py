"""What a preset's caution should let through in the lowest band where stem and rest are about as loud
(`Caution.contested` in `engine/trust.py`): by how much the error gets smaller, by kind of case, for some factors.

    python -m stemprover.engine.train.corpus.true_stems data/instruments --stem drums bass other --stems FOLDER_OF_SONGS \\
        --takes --held-out
    python -m stemprover.engine.train.cases data/instruments cases/instruments --split valid-other valid \\
        --separated 16 --simulated 5 --roles v
    python tools/measure_contested.py cases/instruments/valid-other cases/instruments/valid --preset general
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np
from stemprover import load_preset
from stemprover.engine.adapters import Adapter
from stemprover.engine.bundle import Bundle, base_bundle
from stemprover.engine.train.cases import written_cases
from stemprover.engine.train.fit_trust import measure_all

FACTORS = (1.0, 0.5, 0.25, 0.0)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("folders", type=Path, nargs="+", help="cases, as of stemprover.engine.train.cases")
    parser.add_argument("--preset", default="general")
    given = parser.parse_args()
    adapter = next(iter(load_preset(given.preset).adapters), None)
    caution = Bundle.load(base_bundle()).caution if adapter is None else Adapter.load(adapter).caution
    if caution is None:
        parser.error(f"{given.preset} has no caution")
    cases = [case for folder in given.folders for case in written_cases(folder)]
    found = [case.through(caution.ramps[0]) for case in measure_all(cases, base_bundle(), True, adapter)]
    for kind in dict.fromkeys(case.kind for case in found):
        parts = []
        for factor in FACTORS:
            cautious = replace(caution, contested=factor)
            gains = [case.gain_db(cautious.share(case.heard[None], True)[0]) for case in found if case.kind == kind]
            parts.append(
                f"{factor:g}: median {np.median(gains):+.2f}, mean {np.mean(gains):+.2f}, worst {min(gains):+.2f}"
            )
        print(f"{given.preset} {kind:18} {'; '.join(parts)}", flush=True)


if __name__ == "__main__":
    main()

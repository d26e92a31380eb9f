"""Phase before and after a repair, band by band: against the true stem, and between the channels.

python -m stemprover.benchmarks.phase_by_band cases/test --kinds separated-vocals separated-accompaniment
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path

import numpy as np
import soundfile

from ..engine.dsp.bands import PerceptualBands
from ..engine.metrics.spectral import band_channel_agreement, band_phase_agreement
from ..engine.repair import Repairer
from ..reports.validate import find_cases
from .sampler_steps import spread
from .table import print_table

MEASURES = {"with the true stem": band_phase_agreement, "between the channels": band_channel_agreement}


def main(arguments: list[str] | None = None) -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("folder", type=Path, help="cases made by stemprover.engine.train.cases")
    parser.add_argument("--kinds", nargs="+", default=["separated-vocals", "separated-accompaniment"])
    parser.add_argument("--cases", type=int, default=10, help="of each kind")
    parser.add_argument("--model", type=Path, default=None, help="a bundle to use in place of the shipped one")
    given = parser.parse_args(arguments)
    repairer, bands = Repairer(bundle=given.model, jobs=1), PerceptualBands()
    cases = [case for case in find_cases(given.folder) if case.kind in given.kinds]
    for kind in given.kinds:
        found: dict[str, list[np.ndarray]] = {name: [] for name in MEASURES}
        for case in spread([case for case in cases if case.kind == kind], given.cases):
            truth, before = (soundfile.read(path, dtype="float32")[0].T for path in (case.truth, case.degraded))
            mix = None if case.mix is None else soundfile.read(case.mix, dtype="float32")[0].T
            after = repairer.process(before, 44100, mix)
            for name, measure in MEASURES.items():
                found[name].append(np.stack([measure(before, truth), measure(after, truth)]))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # bands that are silent in every case
            medians = {name: np.nanmedian(np.stack(rows), axis=0) for name, rows in found.items()}
        rows = []
        for band in range(len(bands)):
            low, high = bands.edges_hz[band : band + 2]
            cells = ["{:.4f} → {:.4f}".format(*medians[name][:, band]) for name in MEASURES]
            rows.append([f"{low:.0f} to {high:.0f} Hz", *cells])
        print_table(f"{kind}: agreement of phases (1 is best), median before → after", ["band", *MEASURES], rows)


if __name__ == "__main__":
    main()

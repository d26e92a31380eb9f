"""How good the signals are that the network may take from (engine/dsp/leakage.py), each by itself.

    python -m stemprover.benchmarks.references cases/valid

`cancelled`: the stem without its leakage. `masked`: the mix through the stem's mask, of which each band takes the
amount that is best for it over the whole case, which only the true stem tells: what a network that chose well for each
band could gain. `clean`: the SDR in dB at which a true stem comes back without its leakage.
"""

from __future__ import annotations

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
import soundfile

from ..engine.dsp.latent import BandLayout
from ..engine.dsp.leakage import LeakageCanceller, masked_mix, mid_side
from ..engine.dsp.stft import Stft, StftConfig, whole_stft
from ..reports.validate import Case, find_cases
from .table import print_table

LAYOUT, CANCELLER = BandLayout(), LeakageCanceller()


def without_leakage(stem: np.ndarray, mix: np.ndarray) -> np.ndarray:
    """The stem without its leakage; spectra of mid and side (1, 2, F, N)."""
    found, _ = CANCELLER.measure(stem, mix - stem, CANCELLER.start(1))
    return stem - CANCELLER.part(mix - stem, found.gain)


def gain_db(before: np.ndarray, after: np.ndarray) -> float:
    """By how many dB the power of an error falls."""
    power = [float(np.sum(np.abs(x) ** 2)) for x in (before, after)]
    return float(10 * np.log10(power[0] / max(power[1], 1e-12 * power[0])))


def best_of_each_band(wrong: np.ndarray, change: np.ndarray) -> np.ndarray:
    """`change` (1, 2, F, N) at the amount 0..1 for each band that leaves the least of the error `wrong`."""
    agreement, power = (LAYOUT.sum(x).sum(axis=(0, 1, 3)) for x in ((wrong * change.conj()).real, np.abs(change) ** 2))
    amount = np.clip(agreement / (power + 1e-12), 0.0, 1.0)
    found: np.ndarray = np.repeat(amount, LAYOUT.widths)[:, None] * change
    return found


def spectra(case: Case) -> list[np.ndarray]:
    """True stem, mix and degraded stem of a case at 44.1 kHz, mid and side (1, 2, F, N)."""
    stft = Stft(StftConfig())
    paths = (case.truth, case.mix or case.degraded, case.degraded)
    sounds = (soundfile.read(path, dtype="float32", always_2d=True)[0].T for path in paths)
    return [mid_side(whole_stft(stft, sound)[None]) for sound in sounds]


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n\n")[0])
    parser.add_argument("folders", type=Path, nargs="+", help="cases with mixes, as engine.train.cases writes them")
    given = parser.parse_args()
    found = defaultdict(list)
    for case in (case for path in given.folders for case in find_cases(path)):
        true, mix, stem = spectra(case)
        wrong = true - stem
        if not np.abs(wrong).max() or not np.abs(true).max():
            continue
        own = without_leakage(stem, mix)
        change = masked_mix(own, mix) - stem
        clean = gain_db(true, without_leakage(true, mix) - true)
        found[case.kind].append(
            (gain_db(wrong, true - own), gain_db(wrong, wrong - best_of_each_band(wrong, change)), clean)
        )
    rows = []
    for kind, values in sorted(found.items()):
        cancelled, masked, clean = np.array(values).T
        rows.append(
            [kind, f"{len(values)}", f"{np.median(cancelled):+.2f} ({cancelled.min():+.2f})",
             f"{np.median(masked):+.2f} ({masked.min():+.2f})", f"{np.median(clean):.1f} ({clean.min():.1f})"]
        )  # fmt: skip
    print_table("Median gain in dB (worst)", ["kind", "cases", "cancelled", "masked", "clean, dB"], rows)


if __name__ == "__main__":
    main()

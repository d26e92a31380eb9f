"""Is a Karhunen-Loeve rotation inside the bands worth its cost? Prints its coding gain over the plain bins of mid and
side.

    python tools/measure_klt.py data/pool

Coding gain (Jayant and Noll, Digital Coding of Waveforms, 1984): geometric mean of the variances before, over that of
the eigenvalues of the covariance; 0 dB means that the bins are uncorrelated and a rotation gains nothing.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from stemprover.engine.dsp.latent import BandLayout, compress
from stemprover.engine.dsp.stft import Stft
from stemprover.engine.train.corpus.pool import FULL_SCALE, open_shard, shard_paths


def main() -> None:
    layout, stft = BandLayout(), Stft()
    covariances = [np.zeros((2 * width, 2 * width), complex) for width in layout.widths]
    for path in shard_paths(Path(sys.argv[1]) / "train")[:8]:
        shard, _ = open_shard(path)
        for item in shard[::3]:
            audio = (item[0] + item[1].astype(np.float32))[:, : 400 * 512] / np.float32(FULL_SCALE)
            left, right = compress(stft.analysis(audio, stft.start_analysis(2))[0], 0.5)
            starts = np.concatenate([[0], np.cumsum(layout.widths)])
            for k, width in enumerate(layout.widths):
                bins = slice(starts[k], starts[k] + width)
                values = np.concatenate([0.5 * (left + right)[bins], 0.5 * (left - right)[bins]])
                covariances[k] += values @ values.conj().T
    gains = []
    for covariance in covariances:
        eigenvalues = np.maximum(np.linalg.eigvalsh(covariance), 1e-9 * np.trace(covariance).real)
        diagonal = np.maximum(np.diag(covariance).real, 1e-9 * np.trace(covariance).real)
        gains.append(10 * np.mean(np.log10(diagonal) - np.log10(eigenvalues)))
    for name, part in (("4-bin bands", gains[:16]), ("8-bin bands", gains[16:32]), ("16-bin bands", gains[32:])):
        print(f"{name}: coding gain {np.mean(part):.2f} dB (from {min(part):.2f} to {max(part):.2f})")


if __name__ == "__main__":
    main()

"""Stems that sum to their mix: the difference is distributed among them, bin by bin.

Mixture consistency after S. Wisdom, J. R. Hershey, K. Wilson, J. Thorpe, M. Chinen, B. Patton and R. A. Saurous,
"Differentiable consistency constraints for improved deep speech enhancement", ICASSP 2019: each stem gets a share w of
the difference, and the shares of a bin sum to 1. Here they depend on each stem's power in the bin and on its severity:
a stem that is loud there and damaged is the likeliest place for what is missing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import OptionError
from .fifo import Fifo
from .stft import Stft, StftConfig

FAULTLESS = 0.15  # weight of a stem without any fault; one with faults everywhere has 1 + FAULTLESS
EVEN = 1e-4  # of a stem's power in a frame, added to every bin: decides where all stems are silent
_SMOOTHING_BINS = 5


class MixConsistency:
    """A stream: `process` takes the next samples of all stems and of the mix, and returns what to add to the stems, as
    far as it is decided; `finish` returns the rest. The result does not depend on block sizes.

    severities: of each stem, 0 (nothing wrong) to 1. Raises OptionError for fewer than two stems or other values.
    """

    def __init__(self, severities: Sequence[float], channels: int) -> None:
        if len(severities) < 2:
            raise OptionError(f"{len(severities)} stem: a mix is made of two or more")
        if not all(0.0 <= severity <= 1.0 for severity in severities):
            raise OptionError(f"severities {list(severities)}: use 0 (nothing wrong) to 1 for each stem")
        self._factors = np.array([FAULTLESS + severity for severity in severities], np.float32)[:, None, None]
        self._count, self._channels = len(severities), channels
        self._stft = Stft(StftConfig())
        self._analysis = self._stft.start_analysis((self._count + 1) * channels)
        self._synthesis = self._stft.start_synthesis(self._count * channels)
        self._fifo = Fifo()
        self._skip = self._stft.config.delay_samples
        self._owed = 0

    def process(self, stems: np.ndarray, mix: np.ndarray) -> np.ndarray:
        """Stems (S, C, n) and mix (C, n) to additions (S, C, m)."""
        hop, count = self._stft.config.hop, mix.shape[1]
        flat = np.concatenate([stems, (mix - stems.sum(axis=0))[None]]).astype(np.float32, copy=False)
        flat = flat.reshape((self._count + 1) * self._channels, count)
        self._fifo.push(flat)
        self._owed += count
        ready = len(self._fifo) // hop * hop
        if not ready:
            return np.zeros((self._count, self._channels, 0), np.float32)
        return self._distributed(self._fifo.pop(ready))

    def finish(self) -> np.ndarray:
        """The last additions (S, C, m): as many as samples went in, in all."""
        hop, rows = self._stft.config.hop, (self._count + 1) * self._channels
        waiting = len(self._fifo)
        fill = -(-(waiting + self._stft.config.delay_samples) // hop) * hop
        last = np.zeros((rows, fill), np.float32)
        if waiting:
            last[:, :waiting] = self._fifo.pop(waiting)
        return self._distributed(last)

    def _distributed(self, flat: np.ndarray) -> np.ndarray:
        spectra, self._analysis = self._stft.analysis(flat, self._analysis)
        bins, frames = spectra.shape[1:]
        grouped = spectra.reshape(self._count + 1, self._channels, bins, frames)
        power = np.mean(grouped[:-1].real ** 2 + grouped[:-1].imag ** 2, axis=1)
        weights = (_smoothed(power) + EVEN * power.mean(axis=1, keepdims=True) + 1e-20) * self._factors
        weights /= weights.sum(axis=0)
        parts = (weights[:, None] * grouped[-1]).astype(np.complex64).reshape(-1, bins, frames)
        audio, self._synthesis = self._stft.synthesis(parts, self._synthesis)
        drop = min(self._skip, audio.shape[1])
        self._skip -= drop
        audio = audio[:, drop:][:, : self._owed]
        self._owed -= audio.shape[1]
        return audio.reshape(self._count, self._channels, -1)


def _smoothed(power: np.ndarray) -> np.ndarray:
    """Power (S, F, N), averaged over neighbouring bins."""
    half = _SMOOTHING_BINS // 2
    padded = np.pad(power, ((0, 0), (half, half), (0, 0)), mode="edge")
    parts = np.stack([padded[:, i : i + power.shape[1]] for i in range(_SMOOTHING_BINS)])
    return parts.mean(axis=0, dtype=np.float32)

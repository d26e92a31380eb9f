"""Stems that sum to their song: what they lack of it, or have too much, is shared out among them, bin by bin.

Mixture consistency as of S. Wisdom, J. R. Hershey, K. Wilson, J. Thorpe, M. Chinen, B. Patton and R. A. Saurous,
"Differentiable consistency constraints for improved deep speech enhancement", ICASSP 2019: each stem gets a share w of
the difference, the shares of a bin sum to 1. Here they go by each stem's power in the bin and by how faulty it is: a
stem that is loud there and damaged is the likeliest place for what is missing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..errors import OptionError
from .fifo import Fifo
from .stft import Stft, StftConfig

FAULTLESS = 0.15  # weight of a stem without any fault, beside 1 + FAULTLESS of one that is faulty all over
EVEN = 1e-4  # of a stem's power in a frame, what counts in every bin: decides where no stem has anything
_SMOOTHING_BINS = 5


class MixConsistency:
    """A stream: `process` takes the next samples of all stems and of the song, and returns what has to be added to the
    stems, as far as it is decided; `finish` the rest. Any split into blocks gives the same.

    severities: of each stem, 0 (nothing wrong) to 1. Raises OptionError for fewer than two stems or other values.
    """

    def __init__(self, severities: Sequence[float], channels: int) -> None:
        if len(severities) < 2:
            raise OptionError(f"{len(severities)} stem: a song is shared out among two or more")
        if not all(0.0 <= severity <= 1.0 for severity in severities):
            raise OptionError(f"severities {list(severities)}: give 0 (nothing wrong) to 1 for each stem")
        self._factors = np.array([FAULTLESS + severity for severity in severities], np.float32)[:, None, None]
        self._count, self._channels = len(severities), channels
        self._stft = Stft(StftConfig())
        self._analysis = self._stft.start_analysis((self._count + 1) * channels)
        self._synthesis = self._stft.start_synthesis(self._count * channels)
        self._fifo = Fifo()
        self._waiting = 0
        self._skip = self._stft.config.delay_samples
        self._owed = 0

    def process(self, stems: np.ndarray, mix: np.ndarray) -> np.ndarray:
        """Stems (S, C, n) and song (C, n) to additions (S, C, m)."""
        hop, count = self._stft.config.hop, mix.shape[1]
        flat = np.concatenate([stems, (mix - stems.sum(axis=0))[None]]).astype(np.float32, copy=False)
        flat = flat.reshape((self._count + 1) * self._channels, count)
        self._fifo.push(flat)
        self._waiting += count
        self._owed += count
        ready = self._waiting // hop * hop
        if not ready:
            return np.zeros((self._count, self._channels, 0), np.float32)
        self._waiting -= ready
        return self._shared(self._fifo.pop(ready))

    def finish(self) -> np.ndarray:
        """The last additions (S, C, m), as many as are still owed."""
        hop, rows = self._stft.config.hop, (self._count + 1) * self._channels
        fill = -(-(self._waiting + self._stft.config.delay_samples) // hop) * hop
        last = np.zeros((rows, fill), np.float32)
        if self._waiting:
            last[:, : self._waiting] = self._fifo.pop(self._waiting)
        self._waiting = 0
        return self._shared(last)

    def _shared(self, flat: np.ndarray) -> np.ndarray:
        spectra, self._analysis = self._stft.analysis(flat, self._analysis)
        bins, frames = spectra.shape[1:]
        grouped = spectra.reshape(self._count + 1, self._channels, bins, frames)
        power = np.mean(grouped[:-1].real ** 2 + grouped[:-1].imag ** 2, axis=1)
        weights = (_smoothed(power) + EVEN * power.mean(axis=1, keepdims=True) + 1e-20) * self._factors
        weights /= weights.sum(axis=0)
        parts = (weights[:, None] * grouped[-1]).astype(np.complex64).reshape(-1, bins, frames)
        sound, self._synthesis = self._stft.synthesis(parts, self._synthesis)
        drop = min(self._skip, sound.shape[1])
        self._skip -= drop
        sound = sound[:, drop:][:, : self._owed]
        self._owed -= sound.shape[1]
        return sound.reshape(self._count, self._channels, -1)


class Coverage:
    """How much of a song is in none of its stems: `add` blocks, then `missing_db`. highest_hz: what is above is left
    out."""

    def __init__(self, sample_rate: int, highest_hz: float | None = None) -> None:
        self._bins = None if highest_hz is None else int(highest_hz / sample_rate * StftConfig().n_fft)
        self._rest = self._song = 0.0

    def add(self, stems: np.ndarray, mix: np.ndarray) -> None:
        """Stems (S, C, n) and song (C, n)."""
        size = StftConfig().n_fft
        count = mix.shape[1] // size
        for sound, name in ((mix - stems.sum(axis=0), "_rest"), (mix, "_song")):
            frames = sound[:, : count * size].reshape(-1, size) * np.hanning(size).astype(np.float32)
            power = float(np.sum(np.abs(np.fft.rfft(frames, axis=1)[:, : self._bins]) ** 2))
            setattr(self, name, getattr(self, name) + power)

    @property
    def missing_db(self) -> float:
        """Energy of what is missing, relative to the song's."""
        return 10 * float(np.log10((self._rest + 1e-20) / (self._song + 1e-20)))


def _smoothed(power: np.ndarray) -> np.ndarray:
    """Power (S, F, N), the mean over neighbouring bins."""
    half = _SMOOTHING_BINS // 2
    padded = np.pad(power, ((0, 0), (half, half), (0, 0)), mode="edge")
    parts = np.stack([padded[:, i : i + power.shape[1]] for i in range(_SMOOTHING_BINS)])
    return parts.mean(axis=0, dtype=np.float32)

"""Levels and spectra of a stream, for the monitor page."""

from __future__ import annotations

from typing import Any

import numpy as np


class Scope:
    """Meters the input (dry) and output (wet) of a stream: peak levels since the last reading, and spectra."""

    SIZE = 2048

    def __init__(self) -> None:
        self._recent = {"dry": np.zeros(self.SIZE, np.float32), "wet": np.zeros(self.SIZE, np.float32)}
        self._peaks = {"dry": 0.0, "wet": 0.0}

    def add(self, side: str, audio: np.ndarray) -> None:
        """Add audio (C, n). side: "dry" or "wet"."""
        self._peaks[side] = max(self._peaks[side], float(np.abs(audio).max(initial=0.0)))
        self._recent[side] = np.concatenate([self._recent[side], audio.mean(axis=0, dtype=np.float32)])[-self.SIZE :]

    def take(self, bands: int, sample_rate: int) -> dict[str, dict[str, Any]]:
        """For each side, the peak and the levels of `bands` bands from 40 Hz up, in dBFS. Resets the peaks."""
        edges = np.geomspace(40.0, sample_rate / 2, bands + 1) / sample_rate * self.SIZE
        starts = np.minimum(edges[:-1].astype(int), self.SIZE // 2)
        reading: dict[str, dict[str, Any]] = {}
        for side, recent in self._recent.items():
            power = np.abs(np.fft.rfft(np.nan_to_num(recent) * np.hanning(self.SIZE))) ** 2
            levels = 10 * np.log10(np.maximum.reduceat(power, starts) / (self.SIZE / 4) ** 2 + 1e-10)
            peak = 20 * np.log10(min(self._peaks[side], 1e5) + 1e-5)
            reading[side] = {"peak_db": round(float(peak), 1), "bands_db": np.round(levels, 1).tolist()}
            self._peaks[side] = 0.0
        return reading

"""Levels and spectra of a stream, for the monitor."""

from __future__ import annotations

from typing import Any

import numpy as np


class Scope:
    """The last sound that came in and went out: peaks since they were last asked for, and spectra."""

    SIZE = 2048

    def __init__(self) -> None:
        self._recent = {"dry": np.zeros(self.SIZE, np.float32), "wet": np.zeros(self.SIZE, np.float32)}
        self._peaks = {"dry": 0.0, "wet": 0.0}

    def add(self, side: str, sound: np.ndarray) -> None:
        """Sound (C, n) of a side, dry or wet."""
        self._peaks[side] = max(self._peaks[side], float(np.abs(sound).max(initial=0.0)))
        self._recent[side] = np.concatenate([self._recent[side], sound.mean(axis=0, dtype=np.float32)])[-self.SIZE :]

    def take(self, bands: int, sample_rate: int) -> dict[str, dict[str, Any]]:
        """For each side the peak and the levels of `bands` bands from 40 Hz up, in dB of full scale."""
        edges = np.geomspace(40.0, sample_rate / 2, bands + 1) / sample_rate * self.SIZE
        starts = np.minimum(edges[:-1].astype(int), self.SIZE // 2)
        found: dict[str, dict[str, Any]] = {}
        for side, recent in self._recent.items():
            power = np.abs(np.fft.rfft(np.nan_to_num(recent) * np.hanning(self.SIZE))) ** 2
            levels = 10 * np.log10(np.maximum.reduceat(power, starts) / (self.SIZE / 4) ** 2 + 1e-10)
            peak = 20 * np.log10(min(self._peaks[side], 1e5) + 1e-5)
            found[side] = {"peak_db": round(float(peak), 1), "bands_db": np.round(levels, 1).tolist()}
            self._peaks[side] = 0.0
        return found

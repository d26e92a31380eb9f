"""Digital silence stays digital silence: where a channel holds nothing but zeros, nothing is added to it."""

from __future__ import annotations

import numpy as np

STRETCH_SECONDS = 64 / 44100


class SilenceGate:
    """A gain for the change, for each channel: 0 in every stretch of zeros of at least 1.5 ms, 1 elsewhere, and a
    straight ramp of 1.5 ms on either side of a stretch, so that the change neither rings into a pause nor breaks off.

    `process` returns the gains of all samples that are decided: some `delay_samples` fewer than have come in, the rest
    with `last`. Any split of the sound into blocks gives the same gains.
    """

    def __init__(self, sample_rate: int, channels: int) -> None:
        self._stretch = max(1, round(STRETCH_SECONDS * sample_rate))
        self._ramp = (np.arange(self._stretch, dtype=np.float32) + 1) / np.float32(self._stretch + 1)
        self._recent = np.zeros((channels, 0), np.float32)
        self._decided = 0  # of the recent samples

    @property
    def delay_samples(self) -> int:
        """Samples after a place that decide on it: a ramp and a stretch."""
        return 2 * self._stretch

    def process(self, block: np.ndarray, *, last: bool = False) -> np.ndarray:
        """The next samples (C, n) to the gains (C, m) float32 that are decided now."""
        sound = np.concatenate([self._recent, block], axis=1)
        end = sound.shape[1] if last else max(self._decided, sound.shape[1] - self.delay_samples)
        gains = np.ones(sound.shape, np.float32)
        silent = sound == 0.0
        if silent.any():
            for gain, zeros in zip(gains, silent, strict=True):
                self._close(gain, zeros)
        found = gains[:, self._decided : end]
        keep = max(0, end - self.delay_samples)
        self._recent, self._decided = sound[:, keep:], end - keep
        return found

    def _close(self, gain: np.ndarray, zeros: np.ndarray) -> None:
        edges = np.flatnonzero(np.diff(np.concatenate([[False], zeros, [False]])))
        starts, stops = edges[::2], edges[1::2]
        long = stops - starts >= self._stretch
        for start, stop in zip(starts[long], stops[long], strict=True):
            gain[start:stop] = 0.0
            before = gain[max(0, start - len(self._ramp)) : start]
            np.minimum(before, self._ramp[::-1][len(self._ramp) - len(before) :], out=before)
            after = gain[stop : stop + len(self._ramp)]
            np.minimum(after, self._ramp[: len(after)], out=after)

"""Estimates the gain of a stem in its mix, from places where nothing else plays.

If a stem was turned up or down after its separation, mix minus stem still contains some of the stem, which looks like
bleed. Where nothing else plays, the mix equals the stem times one gain. Separator masks, bleed and missing highs also
make the mix louder than the stem in some bins, but hardly ever in all of them.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

WINDOW_S = 0.09
#: A place is a patch of so many frames (a quarter of a window apart) and bins. The stem is alone there if the mix
#: equals the stem times one gain, except for MAX_RESIDUE of its power.
FRAMES, BINS, MAX_RESIDUE = 5, 3, 0.01
FAINTEST_DB = -70.0  # relative to the loudest place of the stem
#: Gains outside of this range are ignored. At less than a quarter of its level, a stem more likely contains nothing but
#: bleed wherever the mix equals it times one gain.
MIN_GAIN_DB, MAX_GAIN_DB = -24.0, 12.0
_STEP_DB, _WIDTH_DB, _SPAN_DB = 0.05, 0.25, 40.0
#: The lowest peak of the histogram counts, if it has at least this part of the highest one's weight. The peaks above it
#: may come from places with nothing but bleed.
MIN_PEAK = 0.05
#: How much evidence a level difference needs: this part of the whole stem, and so many times the evidence for no
#: difference. A mix that is quieter than the stem needs less, because only a level difference explains it; a louder mix
#: may also come from bleed. Most of the stem is always enough for a quieter one: bleed that is as far down as the stem
#: was turned up is as loud as in the mix, which looks like no difference wherever the stem pauses.
MIN_SHARE, MIN_RATIO_QUIETER, MIN_RATIO_LOUDER, MOST = 0.02, 8.0, 100.0, 0.5
INAUDIBLE_DB = 0.1  # smaller differences are ignored
#: If the stem is louder in the mix, the mix is hardly anywhere quieter than that level, apart from cancellation: at
#: most MAX_BELOW of the stem may be BELOW_DB under it. If there is more, the level is that of bleed in the stem, and
#: what lies below is the stem itself.
BELOW_DB, MAX_BELOW = 3.0, 0.1


_EDGES = np.arange(-_SPAN_DB - _STEP_DB / 2, _SPAN_DB + _STEP_DB, _STEP_DB)


@dataclass(frozen=True)
class GainEvidence:
    """What a stem and its mix say about the stem's gain there: histograms over the gain in dB (_EDGES). alone: the
    amplitudes of the places where nothing else plays, by their gain. sums: of these gains times the amplitudes.
    everywhere: the amplitudes of all places, by the ratio of the mix's level to the stem's."""

    alone: np.ndarray
    sums: np.ndarray
    everywhere: np.ndarray

    @classmethod
    def none(cls) -> GainEvidence:
        """Before anything was heard."""
        zeros = np.zeros(len(_EDGES) - 1)
        return cls(zeros, zeros, zeros)

    @classmethod
    def of(cls, stem: np.ndarray, mix: np.ndarray, sample_rate: int) -> GainEvidence:
        """Of an excerpt of one channel (n,), aligned and with the same polarity."""
        size = 1 << round(np.log2(WINDOW_S * sample_rate))
        if len(stem) < size + (FRAMES - 1) * size // 4:
            return cls.none()
        stem_spectra, mix_spectra = _spectra(stem, size), _spectra(mix, size)
        cross = _patch_sums((stem_spectra.conj() * mix_spectra).real)
        stem_power, mix_power = (
            _patch_sums(np.square(x.real) + np.square(x.imag)) for x in (stem_spectra, mix_spectra)
        )
        audible = stem_power > stem_power.max() * 10 ** (FAINTEST_DB / 10)
        ratios = 10 * np.log10(mix_power[audible] / stem_power[audible] + 1e-12).clip(-_SPAN_DB, _SPAN_DB)
        alone = audible & (cross > 0) & (cross**2 > (1.0 - MAX_RESIDUE) * stem_power * mix_power)
        levels, amplitudes = 20 * np.log10(cross[alone] / stem_power[alone]), np.sqrt(stem_power[alone])
        return cls(
            _histogram(levels, amplitudes), _histogram(levels, levels * amplitudes),
            _histogram(ratios, np.sqrt(stem_power[audible])),
        )  # fmt: skip

    def __add__(self, other: GainEvidence) -> GainEvidence:
        return GainEvidence(self.alone + other.alone, self.sums + other.sums, self.everywhere + other.everywhere)

    @property
    def gain(self) -> float:
        """Gain of the stem in the mix, above 0: the mode of the gains of the places where nothing else plays; 1 if no
        clear difference is found."""
        kernel = np.hanning(2 * round(_WIDTH_DB / _STEP_DB) + 3)
        smooth = np.convolve(self.alone, kernel, "same")
        inner = smooth[1:-1]
        peaks = 1 + np.flatnonzero((inner >= smooth[:-2]) & (inner > smooth[2:]) & (inner >= MIN_PEAK * smooth.max()))
        if not len(peaks):
            return 1.0
        peak, zero_db, total = int(peaks[0]), len(smooth) // 2, float(self.everywhere.sum())
        if peak > zero_db:
            needed = MIN_RATIO_LOUDER * smooth[zero_db]
        else:
            needed = min(MIN_RATIO_QUIETER * smooth[zero_db], MOST * total)
        if smooth[peak] < max(MIN_SHARE * total, needed):
            return 1.0
        near = slice(max(0, peak - len(kernel) // 2), peak + len(kernel) // 2 + 1)
        level_db = float(self.sums[near].sum() / self.alone[near].sum())
        if abs(level_db) < INAUDIBLE_DB or not MIN_GAIN_DB < level_db < MAX_GAIN_DB:
            return 1.0
        below = float(self.everywhere[: np.searchsorted(_EDGES, level_db - BELOW_DB)].sum())
        if level_db > 0 and below > MAX_BELOW * total:
            return 1.0
        return 10 ** (level_db / 20)


def estimate_gain(excerpts: Iterable[tuple[np.ndarray, np.ndarray]], sample_rate: int) -> float:
    """`GainEvidence.gain` of all channels of all excerpts: stem and mix (C, n)."""
    found = GainEvidence.none()
    for stems, mixes in excerpts:
        for stem, mix in zip(stems, mixes, strict=True):
            found += GainEvidence.of(stem, mix, sample_rate)
    return found.gain


def _histogram(values: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """The sums of the weights of values between each two of _EDGES; values beyond them do not count."""
    count = len(_EDGES) - 1
    place = np.floor((values - _EDGES[0]) / _STEP_DB).astype(np.int64)
    inside = (place >= 0) & (place < count)
    return np.bincount(place[inside], weights[inside], count)


def _spectra(audio: np.ndarray, size: int) -> np.ndarray:
    """Samples (n,) to spectra (N, F)."""
    frames = np.lib.stride_tricks.sliding_window_view(audio, size)[:: size // 4]
    spectra: np.ndarray = np.fft.rfft(frames * np.hanning(size).astype(np.float32), axis=-1)
    return spectra


def _patch_sums(values: np.ndarray) -> np.ndarray:
    """Sums over FRAMES and BINS: (N, F) to (N - FRAMES + 1, F - BINS + 1)."""
    frames, bins = len(values) - FRAMES + 1, values.shape[1] - BINS + 1
    rows = sum((values[start : start + frames] for start in range(1, FRAMES)), values[:frames])
    found: np.ndarray = sum((rows[:, start : start + bins] for start in range(1, BINS)), rows[:, :bins])
    return found

"""Estimates the gain of a stem in its mix, from places where nothing else plays.

If a stem was turned up or down after its separation, mix minus stem still contains some of the stem, which looks like
bleed. Where nothing else plays, the mix equals the stem times one gain. Separator masks, bleed and missing highs also
make the mix louder than the stem in some bins, but hardly ever in all of them.
"""

from __future__ import annotations

from collections.abc import Iterable

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
#: may also come from bleed.
MIN_SHARE, MIN_RATIO_QUIETER, MIN_RATIO_LOUDER = 0.02, 8.0, 100.0
INAUDIBLE_DB = 0.1  # smaller differences are ignored
#: If the stem is louder in the mix, the mix is hardly anywhere quieter than that level, apart from cancellation: at
#: most MAX_BELOW of the stem may be BELOW_DB under it. If there is more, the level is that of bleed in the stem, and
#: what lies below is the stem itself.
BELOW_DB, MAX_BELOW = 3.0, 0.1


def estimate_gain(excerpts: Iterable[tuple[np.ndarray, np.ndarray]], sample_rate: int) -> float:
    """Gain of the stem in the mix, above 0; 1 if no clear difference is found.

    excerpts: stem and mix (C, n), aligned and with the same polarity.
    The gain of each place in time and frequency is found by least squares, and counts, weighted by its amplitude, if
    its residue is small. The result is the mode of these gains.
    """
    edges = np.arange(-_SPAN_DB - _STEP_DB / 2, _SPAN_DB + _STEP_DB, _STEP_DB)
    weights, sums, all_weights = (np.zeros(len(edges) - 1) for _ in range(3))
    size = 1 << round(np.log2(WINDOW_S * sample_rate))
    channels = (pair for excerpt in excerpts for pair in zip(*excerpt, strict=True))  # one at a time, to save memory
    for stem, mix in channels:
        if len(stem) < size + (FRAMES - 1) * size // 4:
            continue
        stem_spectra, mix_spectra = _spectra(stem, size), _spectra(mix, size)
        cross = _patch_sums((stem_spectra.conj() * mix_spectra).real)
        stem_power, mix_power = (
            _patch_sums(np.square(x.real) + np.square(x.imag)) for x in (stem_spectra, mix_spectra)
        )
        audible = stem_power > stem_power.max() * 10 ** (FAINTEST_DB / 10)
        ratios = 10 * np.log10(mix_power[audible] / stem_power[audible] + 1e-12).clip(-_SPAN_DB, _SPAN_DB)
        all_weights += np.histogram(ratios, edges, weights=np.sqrt(stem_power[audible]))[0]
        alone = audible & (cross > 0) & (cross**2 > (1.0 - MAX_RESIDUE) * stem_power * mix_power)
        levels = 20 * np.log10(cross[alone] / stem_power[alone])
        weights += np.histogram(levels, edges, weights=np.sqrt(stem_power[alone]))[0]
        sums += np.histogram(levels, edges, weights=levels * np.sqrt(stem_power[alone]))[0]
    kernel = np.hanning(2 * round(_WIDTH_DB / _STEP_DB) + 3)
    smooth = np.convolve(weights, kernel, "same")
    inner = smooth[1:-1]
    peaks = 1 + np.flatnonzero((inner >= smooth[:-2]) & (inner > smooth[2:]) & (inner >= MIN_PEAK * smooth.max()))
    if not len(peaks):
        return 1.0
    peak, zero_db, total = int(peaks[0]), len(smooth) // 2, float(all_weights.sum())
    min_ratio = MIN_RATIO_LOUDER if peak > zero_db else MIN_RATIO_QUIETER
    if smooth[peak] < max(MIN_SHARE * total, min_ratio * smooth[zero_db]):
        return 1.0
    near = slice(max(0, peak - len(kernel) // 2), peak + len(kernel) // 2 + 1)
    level_db = float(sums[near].sum() / weights[near].sum())
    if abs(level_db) < INAUDIBLE_DB or not MIN_GAIN_DB < level_db < MAX_GAIN_DB:
        return 1.0
    below = float(all_weights[: np.searchsorted(edges, level_db - BELOW_DB)].sum())
    if level_db > 0 and below > MAX_BELOW * total:
        return 1.0
    return 10 ** (level_db / 20)


def _spectra(audio: np.ndarray, size: int) -> np.ndarray:
    """Samples (n,) to spectra (N, F)."""
    frames = np.lib.stride_tricks.sliding_window_view(audio, size)[:: size // 4]
    spectra: np.ndarray = np.fft.rfft(frames * np.hanning(size).astype(np.float32), axis=-1)
    return spectra


def _patch_sums(values: np.ndarray) -> np.ndarray:
    """Sums over FRAMES and BINS: (N, F) to (N - FRAMES + 1, F - BINS + 1)."""
    for axis, width in enumerate((FRAMES, BINS)):
        values = np.lib.stride_tricks.sliding_window_view(values, width, axis=axis).sum(axis=-1)
    return values

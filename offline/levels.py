"""The gain with which a stem stands in a song, found where the stem is alone in it.

A stem that was made softer or louder after it was separated leaves a part of itself in mixture minus stem, which looks
like bleed of the rest of the song. In bins in which nothing else sounds the song is the stem at one gain; a
separator's masks, bleed and missing highs make the song louder than the stem in some bins, but hardly ever in all.
"""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

WINDOW_S = 0.09
#: Frames (a quarter of a window apart) and bins over which the song has to be the stem at one gain, but for so much of
#: its power.
FRAMES, BINS, REST = 5, 3, 0.01
FAINTEST_DB = -70.0  # under the loudest such place
#: No fader is farther down or up, and a stem at less than a quarter of its level in the song is likelier to have
#: nothing but bleed where the song is it at one gain.
SOFTEST_DB, LOUDEST_DB = -24.0, 12.0
_STEP_DB, _WIDTH_DB, _SPAN_DB = 0.05, 0.25, 40.0
#: The level is the lowest that this share of the highest peak's weight speaks for: bleed is alone in some bins, too.
LEAST_PEAK = 0.05
#: What speaks for a level has to have this share of all that sounds, and so many times what speaks for no difference:
#: where the song is softer than the stem, which nothing else makes it, and where it is louder, as bleed does too.
LEAST_SHARE, LEAST_RATIO_SOFTER, LEAST_RATIO_LOUDER = 0.02, 8.0, 100.0
UNHEARD_DB = 0.1  # less is no other level
#: Where the song holds the stem louder than it is, it is nowhere much softer than that, but for what cancels: of all
#: that sounds so much may be BELOW_DB under it. Where bleed alone is at one gain, the stem's own sound is.
BELOW_DB, MOST_BELOW = 3.0, 0.1


def estimate_gain(places: Iterable[tuple[np.ndarray, np.ndarray]], sample_rate: int) -> float:
    """Gain of the stem in the song, above 0; 1 where none is found.

    places: stretches of stem and song (C, n), in step and of one polarity. The least-squares gain of each place in time
    and frequency counts where its residue is small, by the amplitude there; the level is the mode of these.
    """
    edges = np.arange(-_SPAN_DB - _STEP_DB / 2, _SPAN_DB + _STEP_DB, _STEP_DB)
    weights, sums, whole_weights = (np.zeros(len(edges) - 1) for _ in range(3))
    size = 1 << round(np.log2(WINDOW_S * sample_rate))
    channels = (pair for place in places for pair in zip(*place, strict=True))  # one by one, for the memory
    for stem, song in channels:
        if len(stem) < size + (FRAMES - 1) * size // 4:
            continue
        own, whole = _spectra(stem, size), _spectra(song, size)
        cross = _around((own.conj() * whole).real)
        of_stem, of_song = (_around(np.square(x.real) + np.square(x.imag)) for x in (own, whole))
        sounding = of_stem > of_stem.max() * 10 ** (FAINTEST_DB / 10)
        ratios = 10 * np.log10(of_song[sounding] / of_stem[sounding] + 1e-12).clip(-_SPAN_DB, _SPAN_DB)
        whole_weights += np.histogram(ratios, edges, weights=np.sqrt(of_stem[sounding]))[0]
        alone = sounding & (cross > 0) & (cross**2 > (1.0 - REST) * of_stem * of_song)
        levels = 20 * np.log10(cross[alone] / of_stem[alone])
        weights += np.histogram(levels, edges, weights=np.sqrt(of_stem[alone]))[0]
        sums += np.histogram(levels, edges, weights=levels * np.sqrt(of_stem[alone]))[0]
    kernel = np.hanning(2 * round(_WIDTH_DB / _STEP_DB) + 3)
    smooth = np.convolve(weights, kernel, "same")
    inner = smooth[1:-1]
    peaks = 1 + np.flatnonzero((inner >= smooth[:-2]) & (inner > smooth[2:]) & (inner >= LEAST_PEAK * smooth.max()))
    if not len(peaks):
        return 1.0
    peak, none, everything = int(peaks[0]), len(smooth) // 2, float(whole_weights.sum())
    ratio = LEAST_RATIO_LOUDER if peak > none else LEAST_RATIO_SOFTER
    if smooth[peak] < max(LEAST_SHARE * everything, ratio * smooth[none]):
        return 1.0
    near = slice(max(0, peak - len(kernel) // 2), peak + len(kernel) // 2 + 1)
    level = float(sums[near].sum() / weights[near].sum())
    if abs(level) < UNHEARD_DB or not SOFTEST_DB < level < LOUDEST_DB:
        return 1.0
    below = float(whole_weights[: np.searchsorted(edges, level - BELOW_DB)].sum())
    if level > 0 and below > MOST_BELOW * everything:
        return 1.0
    return 10 ** (level / 20)


def _spectra(sound: np.ndarray, size: int) -> np.ndarray:
    """(n,) to (N, F)."""
    frames = np.lib.stride_tricks.sliding_window_view(sound, size)[:: size // 4]
    found: np.ndarray = np.fft.rfft(frames * np.hanning(size).astype(np.float32), axis=-1)
    return found


def _around(values: np.ndarray) -> np.ndarray:
    """Sums over FRAMES and BINS: (N, F) to (N - FRAMES + 1, F - BINS + 1)."""
    for axis, width in enumerate((FRAMES, BINS)):
        values = np.lib.stride_tricks.sliding_window_view(values, width, axis=axis).sum(axis=-1)
    return values

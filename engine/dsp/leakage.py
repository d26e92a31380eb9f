"""Leakage: how much of the residual (mix minus stem) a stem contains at a constant gain, and the stem without it.

If a splitter, a filter or a fader let the residual through, the stem is true + g * rest, and mix minus stem is the rest
at another gain. The gain at which the residual is found in the stem is the real least-squares solution of one tap,
Re<stem, residual> / <residual, residual>, over a band and the last second and a half (Haykin, Adaptive Filter Theory,
2002, on noise cancelling with a reference).

Three things keep chance and other faults from being taken for leakage. Each gain is shrunk by its own variance against
that of the gains around it (empirical Bayes: Efron and Morris, 1973): real leakage is found in all bands alike, while
what chance finds has either sign. Where the residual contains the stem, because the mix is at another level or lost
something, <stem, residual> follows the stem's power from frame to frame, and with leakage the residual's: a regression
on both tells them apart. And leakage leaves the rest of the stem independent of the residual, so that along the
residual's phase and across it the stem then has the same power. A mask, a filter or another fault makes stem and
residual depend on each other, and then nothing is subtracted.

What a mask, a filter or a codec did is better undone from the mix itself, through the mask that the stem is for it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from .bands import longest_sums, no_sums
from .latent import BandLayout

HIGHEST_GAIN = 1.5
_SUMS = 10
_FLOOR = np.float32(1e-9)
_TINY = np.float32(1e-3)  # of a power: a difference that is smaller is mostly rounding
#: How many of the bins of a band and of its frames count as independent: frames overlap, and partials last.
_INDEPENDENT = np.float32(0.1)
#: The gains of a band are compared with those of this many bands to either side.
_AROUND = 10
#: The largest ratio of the powers of stem and residual, either way, that a frame counts with.
_RATIO = 1e3
#: At which gain a residual usually contains its stem: the standard deviation of its prior.
_OWN_GAIN = 0.015
#: From which dependence on less of the leakage is subtracted, and from which on nothing.
_DEPENDENT = (0.1, 0.2)
#: Leakage is certain to the degree that its squared gain exceeds this many times its variance.
_VARIANCES = 2.0
#: Of the magnitudes that `masked_mix` compares.
EXPONENT = np.float32(3.0)


@dataclass(frozen=True)
class LeakageState:
    """The sums over the last frames."""

    sums: tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Leakage:
    """What was measured of the residual in a stem, for mid and side.

    gain (B, 2, K, N), 0 to HIGHEST_GAIN: at which the residual is to be subtracted from the stem. coherence (B, 2, K,
    N), 0 to 1: the share of the stem's power in the band that the residual explains (squared coherence).
    mask_likelihood (B, N), 0 to 1: how far stem and residual are in phase in all bins, Re<stem, residual> / <|stem|,
    |residual|>. A mask gives every bin of the mix to both in one phase, so this is near 1 for a mask-based separator
    (0.65 to 0.9 for Spleeter's stems), and near 0 for a true stem, whatever was done to it. dependence (B, N), 0 to 1:
    how unequal the stem's power is along the residual's phase and across it; 0 for a true stem with or without leakage,
    however much, and more after nearly anything else. certainty (B, K, N), 0 to 1: that there is leakage around a band.
    """

    gain: np.ndarray
    coherence: np.ndarray
    mask_likelihood: np.ndarray
    dependence: np.ndarray
    certainty: np.ndarray


@dataclass(frozen=True)
class LeakageCanceller:
    """Packed mid/side spectra of stem and residual (B, 2, F, N), frame by frame, with bands.LONGEST frames of
    memory."""

    layout: BandLayout = field(default_factory=BandLayout)

    def start(self, batch: int) -> LeakageState:
        """State before the first frame: silence."""
        return LeakageState(no_sums((batch * 2, _SUMS, self.layout.bands)))

    def measure(self, stem: np.ndarray, residual: np.ndarray, state: LeakageState) -> tuple[Leakage, LeakageState]:
        """The leakage in these frames, and the state after them."""
        batch, sides, _, frames = stem.shape
        shared = stem.real * residual.real + stem.imag * residual.imag
        power = [np.square(x.real) + np.square(x.imag) for x in (residual, stem)]
        along = np.square(shared) / (power[0] + _FLOOR * _FLOOR)
        sums = [self.layout.sum(x) for x in (shared, *power, along, np.sqrt(power[0] * power[1]))]
        sums += [np.ones_like(sums[0]), *_regressors(*sums[:3])]
        values = np.stack(sums, axis=2).reshape(batch * sides, _SUMS, -1, frames)
        found, after = longest_sums(values, state.sums)
        sums = list(np.moveaxis(found.reshape(batch, sides, _SUMS, -1, frames), 2, 0))
        cross, of_residual, of_stem, in_line, sizes, count, *regressors = sums
        coherence = np.square(cross) / (of_residual * of_stem + _FLOOR * _FLOOR)
        rest = np.maximum(of_stem - np.square(cross) / (of_residual + _FLOOR), _TINY * of_stem)
        bins = _INDEPENDENT * self.layout.widths[:, None].astype(np.float32)
        gain = _shrunk(cross / (of_residual + _FLOOR), rest / (of_residual + _FLOOR) / (count * bins))
        dependence = _dependence(in_line - (of_stem - rest), rest, of_stem, of_residual)
        additive = np.interp(dependence, _DEPENDENT, (1.0, 0.0))[:, None]
        certainty = (additive * _certainty(count * bins, *(x * bins for x in regressors))).astype(np.float32)
        in_phase = _over_bands(cross) / (_over_bands(sizes) + _FLOOR)
        explained = np.clip(coherence, 0.0, 1.0) * (cross > 0.0)
        gain = np.clip(gain * certainty[:, None], 0.0, HIGHEST_GAIN)
        leakage = Leakage(gain, explained, np.clip(in_phase, 0.0, 1.0), dependence, certainty)
        return leakage, LeakageState(after)

    def part(self, residual: np.ndarray, gain: np.ndarray) -> np.ndarray:
        """The residual (B, 2, F, N) at the bands' gains (B, 2, K, N): what is to be subtracted from the stem."""
        found: np.ndarray = np.repeat(gain, self.layout.widths, axis=2) * residual
        return found


def masked_mix(stem: np.ndarray, mix: np.ndarray) -> np.ndarray:
    """The mix at the gains |stem|^p / (|stem|^p + |mix - stem|^p) of each bin, p = EXPONENT: spectra of one shape.

    This is a Wiener filter with fractional powers (Liutkus and Badeau, Generalized Wiener filtering with fractional
    power spectrograms, 2015), for which the stem is its own estimate: the phase is the mix's, what a codec or a filter
    took from the stem comes back, and what is louder in the rest goes.
    """
    own, other = np.abs(stem) ** EXPONENT, np.abs(mix - stem) ** EXPONENT
    found: np.ndarray = own / (own + other + _FLOOR * _FLOOR) * mix
    return found


def mid_side(spectrum: np.ndarray) -> np.ndarray:
    """Left and right (B, 2, ...) to mid and side."""
    return np.stack([spectrum[:, 0] + spectrum[:, 1], spectrum[:, 0] - spectrum[:, 1]], axis=1) * np.float32(0.5)


def left_right(sides: np.ndarray) -> np.ndarray:
    """The inverse of `mid_side`."""
    return np.stack([sides[:, 0] + sides[:, 1], sides[:, 0] - sides[:, 1]], axis=1)


def _regressors(cross: np.ndarray, of_residual: np.ndarray, of_stem: np.ndarray) -> list[np.ndarray]:
    """The sums of the weighted least squares of <stem, residual> on the powers of both, from those of single frames.
    The weight is one over the product of the powers, which the variance of the scalar product is proportional to."""
    product = np.sqrt((of_stem + _FLOOR) * (of_residual + _FLOOR))
    ratio = np.clip((of_stem + _FLOOR) / (of_residual + _FLOOR), 1.0 / _RATIO, _RATIO)
    root, likeness = np.sqrt(ratio), cross / product
    return [ratio, 1.0 / ratio, likeness * root, likeness / root]


def _certainty(
    count: np.ndarray, of_stem: np.ndarray, of_residual: np.ndarray, by_stem: np.ndarray, by_residual: np.ndarray
) -> np.ndarray:
    """How certain it is that there is leakage around a band (B, K, N): one minus _VARIANCES times the variance of the
    regression's gain of the residual over its square. From the number of independent observations and the sums of
    `_regressors` (B, 2, K, N)."""
    both, stem, residual, with_stem, with_residual = (
        _around(x.sum(axis=1, dtype=np.float64)) for x in (count, of_stem, of_residual, by_stem, by_residual)
    )
    stem += 1.0 / _OWN_GAIN**2  # a ridge: where the two powers do not change against each other, it is leakage
    determinant = stem * residual - both * both
    gain = np.maximum(with_residual * stem - with_stem * both, 0.0) / determinant
    variance = stem / determinant
    found: np.ndarray = np.maximum(1.0 - _VARIANCES * variance / np.maximum(gain * gain, 1e-12), 0.0)
    return found


def _shrunk(gain: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """Gains (B, 2, K, N) of these variances, each moved towards the mean of those around it, the further the larger its
    variance is beside their spread; the mean itself towards zero. None is negative: such a gain, which no leakage has,
    counts against the others."""
    variance = variance.astype(np.float64) + 1e-6
    precision, weight = 1.0 / variance, 1.0 / np.square(variance)
    certain = _around(precision.sum(axis=1))
    mean = np.maximum(_around((precision * gain).sum(axis=1)) / certain, 0.0)
    mean *= np.maximum(1.0 - 1.0 / np.maximum(certain * np.square(mean), 1.0), 0.0)
    square = _around((weight * (gain * np.abs(gain) - variance)).sum(axis=1)) / _around(weight.sum(axis=1))
    spread = np.maximum(square - np.square(mean), 0.0)[:, None]
    found = (spread * gain + variance * mean[:, None]) / (spread + variance)
    return np.maximum(found, 0.0).astype(np.float32)


def _dependence(along: np.ndarray, rest: np.ndarray, of_stem: np.ndarray, of_residual: np.ndarray) -> np.ndarray:
    """`Leakage.dependence` (B, N) from the power `rest` of the stem without its leakage, and from the part of it that
    is `along` the residual's phase (B, 2, K, N); the mean over the bands, by how far both are heard there. (With a step
    there, rounding errors would matter.)"""
    share = np.clip(along / (rest + _FLOOR), 0.0, 1.0)
    heard = (rest - _TINY * of_stem) / (rest + _FLOOR) * of_residual / (of_residual + _FLOOR)
    unequal = _over_bands((2.0 * share - 1.0) * heard) / np.maximum(_over_bands(heard), 1.0)
    return np.abs(unequal).astype(np.float32)


def _around(values: np.ndarray) -> np.ndarray:
    """The sum of (B, K, N) over each band and _AROUND bands to either side, in an order that does not depend on the
    number of frames."""
    bands = values.shape[1]
    padded = np.pad(values, ((0, 0), (_AROUND, _AROUND), (0, 0)))
    total = np.zeros_like(values)
    for start in range(2 * _AROUND + 1):
        total += padded[:, start : start + bands]
    return total


def _over_bands(values: np.ndarray) -> np.ndarray:
    """The sum of (B, 2, K, N) over sides and bands (B, N), in an order that does not depend on the number of frames."""
    batch, _, _, frames = values.shape
    rows: np.ndarray = np.ascontiguousarray(values.reshape(batch, -1, frames).transpose(0, 2, 1)).sum(axis=-1)
    return rows

"""Detects whether a stem was made by a mask-based separator, and whether anything at all was done to it.

A mask splits each bin of the mix between the stem and the residual (mix minus stem) at the same phase, so the two are
in phase (`Leakage.mask_likelihood`). Bleed has the same effect, but it contains the residual at one gain or a few. The
gains of a mask, in the bins where the residual dominates, are spread over the whole range.

A true stem is independent of its residual. Nearly every fault changes that, of whatever kind it is, because what the
stem lost is then in the residual (`Leakage.dependence`), or the reverse (`Leakage.certainty`).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..dsp.latent import BandLayout
from ..dsp.leakage import Leakage, LeakageCanceller, LeakageState, mid_side
from ..dsp.stft import StftConfig

#: A stem whose `mask_score` is above this was made by a mask-based separator (docs/detectors.md).
SEPARATED = 0.25
#: A stem whose disturbance is above this is not a true one (docs/detectors.md).
DISTURBED = 0.15
#: The most that the dull-highs score adds to the mask score.
CUT_OFF = 0.1
#: Many separators are not trained above this frequency and extend their mask with a single gain.
HIGHEST_HZ = 11000.0
LOWEST_DB, STEP_DB, GAINS = -80.0, 0.5, 160
ONE_GAIN_DB = 6.0
_LARGEST_PART, _IN_PHASE = 0.25, 0.8


@dataclass(frozen=True)
class MaskEvidence:
    """Evidence for a mask in N frames.

    unexplained (N,): how far stem and residual are in phase, minus what leakage at a single gain explains, averaged
    over the bands. gains (GAINS, N): histogram of the gain at which the residual appears in phase in the stem, over the
    bins that the residual dominates, weighted by the residual's amplitude; in steps of STEP_DB from LOWEST_DB.
    disturbance (N,): how far stem and residual depend on each other, or how certain leakage is over the bands, 0 to 1.
    """

    unexplained: np.ndarray
    gains: np.ndarray
    disturbance: np.ndarray


@dataclass(frozen=True)
class SeparationDetector:
    """Spectra of stem and mix (2, F, N) to `MaskEvidence`, frame by frame."""

    sample_rate: int
    layout: BandLayout = field(default_factory=BandLayout)
    stft: StftConfig = field(default_factory=StftConfig)

    def start(self) -> LeakageState:
        """State before the first frame."""
        return LeakageCanceller(self.layout).start(1)

    def __call__(self, stem: np.ndarray, mix: np.ndarray, state: LeakageState) -> tuple[MaskEvidence, LeakageState]:
        """The evidence in these frames, and the state after them."""
        stem_sides = mid_side(stem[None])
        residual = mid_side(mix[None]) - stem_sides
        leakage, state = LeakageCanceller(self.layout).measure(stem_sides, residual, state)
        disturbance = np.maximum(leakage.dependence[0], leakage.certainty[0].mean(axis=0))
        gains = _gain_histogram(stem_sides[0], residual[0])
        return MaskEvidence(self._unexplained(leakage), gains, disturbance), state

    def _unexplained(self, leakage: Leakage) -> np.ndarray:
        in_range = self.layout.starts < HIGHEST_HZ / self.sample_rate * self.stft.n_fft
        unexplained: np.ndarray = leakage.mask_likelihood[0] - leakage.coherence[0].max(axis=0)[in_range].mean(axis=0)
        return unexplained


def separation_score(unexplained: float, gains: np.ndarray) -> float:
    """The mean of `MaskEvidence.unexplained`, minus the largest fraction of the summed gain histogram (GAINS,) found
    within ONE_GAIN_DB."""
    within = np.convolve(gains, np.ones(round(ONE_GAIN_DB / STEP_DB)), "valid")
    total = float(gains.sum())
    return unexplained - (float(within.max()) / total if total else 0.0)


def mask_score(separation: float, dull_highs: float) -> float:
    """How strongly a stem shows the marks of a mask-based separator; compare with SEPARATED.

    separation: the `separation_score`. dull_highs: the score of that detector, which adds up to CUT_OFF, because many
    separators remove everything above 11 to 16 kHz. A stem with highs missing for another reason does not pass: those
    highs are then in the residual and not in the stem, which makes `separation` low.
    """
    return separation + min(dull_highs, CUT_OFF)


def _gain_histogram(stem: np.ndarray, residual: np.ndarray) -> np.ndarray:
    """Spectra (2, F, N) to `MaskEvidence.gains`."""
    product = stem.real * residual.real + stem.imag * residual.imag
    stem_power, residual_power = (np.square(x.real) + np.square(x.imag) for x in (stem, residual))
    smallest = 10 ** (LOWEST_DB / 20) * residual_power
    dominated = stem_power < _LARGEST_PART * residual_power
    in_phase = product**2 > _IN_PHASE**2 * stem_power * residual_power
    counts = dominated & (product > smallest) & in_phase
    frames = np.nonzero(counts)[2]
    levels = (20 * np.log10(product[counts] / residual_power[counts]) - LOWEST_DB) / STEP_DB
    steps = np.minimum(levels, GAINS - 1).astype(int)
    flat = np.bincount(steps * stem.shape[-1] + frames, np.sqrt(residual_power[counts]), GAINS * stem.shape[-1])
    return flat.reshape(GAINS, -1).astype(np.float32)

"""Whether a separator's mask left a stem of its song.

A mask gives stem and rest of the song a part of each bin in one phase (`Leak.masked`), and so does bleed. But bleed is
the rest at one gain or some, and a mask's gains, in the bins that are the rest's, are all over.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from ..dsp.latent import BandLayout
from ..dsp.leakage import Leak, LeakCanceller, LeakState, mid_side
from ..dsp.stft import StftConfig

#: What `separators_mark` is above for a stem that a separator's mask left of its song (docs/detectors.md).
SEPARATED = 0.25
CUT_OFF = 0.1
#: Above, separators go on with one gain, having learnt none.
HIGHEST_HZ = 11000.0
LOWEST_DB, STEP_DB, GAINS = -80.0, 0.5, 160
ONE_GAIN_DB = 6.0
_LARGEST_PART, _IN_PHASE = 0.25, 0.8


@dataclass(frozen=True)
class InPhase:
    """Of some frames: unexplained (N,), how far stem and rest are in phase, less what a leak at one gain explains in
    the mean of the bands; gains (GAINS, N), how much of the rest, as amplitude, stands at which gain in the stem in
    phase, where it is by far the most of a bin."""

    unexplained: np.ndarray
    gains: np.ndarray


@dataclass(frozen=True)
class SeparationDetector:
    """Spectra of stem and song (2, F, N) to what was heard in them, frame by frame."""

    sample_rate: int
    layout: BandLayout = field(default_factory=BandLayout)
    stft: StftConfig = field(default_factory=StftConfig)

    def start(self) -> LeakState:
        """State before the first frame."""
        return LeakCanceller(self.layout).start(1)

    def __call__(self, stem: np.ndarray, song: np.ndarray, state: LeakState) -> tuple[InPhase, LeakState]:
        """What was heard, and the state after these frames."""
        own = mid_side(stem[None])
        rest = mid_side(song[None]) - own
        leak, state = LeakCanceller(self.layout).measure(own, rest, state)
        return InPhase(self._unexplained(leak), _gains(own[0], rest[0])), state

    def _unexplained(self, leak: Leak) -> np.ndarray:
        known = self.layout.starts < HIGHEST_HZ / self.sample_rate * self.stft.n_fft
        found: np.ndarray = leak.masked[0] - leak.coherence[0].max(axis=0)[known].mean(axis=0)
        return found


def separation(unexplained: float, gains: np.ndarray) -> float:
    """The mean of `InPhase.unexplained`, less the largest share of the sum of `InPhase.gains` (GAINS,) that lies within
    ONE_GAIN_DB."""
    within = np.convolve(gains, np.ones(round(ONE_GAIN_DB / STEP_DB)), "valid")
    total = float(gains.sum())
    return unexplained - (float(within.max()) / total if total else 0.0)


def separators_mark(separated: float, dull_highs: float) -> float:
    """How far a stem bears the mark of a separator's mask: what `separation` says, and up to CUT_OFF more by the
    detector's score of highs that are cut off. Many separators know nothing of what is above 11 to 16 kHz; and where
    highs are missing for another reason, they stand in the rest, against the stem, so that it is low."""
    return separated + min(dull_highs, CUT_OFF)


def _gains(stem: np.ndarray, rest: np.ndarray) -> np.ndarray:
    """Spectra (2, F, N) to `InPhase.gains`."""
    shared = stem.real * rest.real + stem.imag * rest.imag
    of_stem, of_rest = (np.square(x.real) + np.square(x.imag) for x in (stem, rest))
    least = 10 ** (LOWEST_DB / 20) * of_rest
    counts = (of_stem < _LARGEST_PART * of_rest) & (shared > least) & (shared**2 > _IN_PHASE**2 * of_stem * of_rest)
    frames = np.nonzero(counts)[2]
    levels = (20 * np.log10(shared[counts] / of_rest[counts]) - LOWEST_DB) / STEP_DB
    places = np.minimum(levels, GAINS - 1).astype(int)
    flat = np.bincount(places * stem.shape[-1] + frames, np.sqrt(of_rest[counts]), GAINS * stem.shape[-1])
    return flat.reshape(GAINS, -1).astype(np.float32)

"""The detectors: local measures to a severity in 0..1 for each type of artefact, perceptual band and frame."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from ..dsp.bands import PerceptualBands
from ..dsp.stft import StftConfig
from ..threads import single_threaded_blas
from .measures import NEEDS_MIX, Measures, MeasureState

TYPES = ("musical-noise", "bleed", "phasiness", "smeared-transients", "dull-highs")
#: Types that cannot be detected without the mix: the detector is no better than chance there (docs/detectors.md).
MIX_ONLY_TYPES = ("bleed",)
WEIGHTS = Path(__file__).with_name("weights.npz")
SPREAD_LIMIT = 5.0  # measures are clipped to this many standard deviations of the training material


def usable_measures(has_mix: bool) -> np.ndarray:
    """Indices into NAMES of the measures that a detector is given with or without the mix."""
    return np.array([i for i, needs in enumerate(NEEDS_MIX) if has_mix or not needs])


@dataclass(frozen=True)
class DetectorState:
    """State of the measures between calls."""

    measures: MeasureState


@dataclass(frozen=True)
class Detectors:
    """Packed spectra of a stem and its mix (2, F, N) to severities (5, K, N); types in the order of TYPES.

    Each type has its own detector, s = sigmoid(b + a . tanh(c + W u)) with u the standardised measures. There is one
    set of detectors with the mix and one without. A severity is the expected level of the damage in this cell: 0 at
    20 dB or more below the stem, 1 at the level of the stem. It is 0 where the stem is silent. docs/detectors.md
    describes how the detectors were fitted and how well they do on held-out material.
    """

    weights_file: Path = WEIGHTS
    stft: StftConfig = field(default_factory=StftConfig)

    @cached_property
    def measures(self) -> Measures:
        """The local measures."""
        return Measures(stft=self.stft)

    @property
    def bands(self) -> PerceptualBands:
        """The perceptual bands of the maps."""
        return self.measures.bands

    @cached_property
    def _weights(self) -> dict[str, np.ndarray]:
        with np.load(self.weights_file) as arrays:
            return dict(arrays)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of the weights that determine the maps. A model trained on these maps works with no others."""
        digest = hashlib.sha256()
        for name in sorted(name for name in self._weights if not name.endswith(("_threshold", "_beside", "_typical"))):
            digest.update(name.encode() + np.ascontiguousarray(self._weights[name], np.float32).tobytes())
        return digest.hexdigest()

    def thresholds(self, has_mix: bool) -> np.ndarray:
        """File scores (5,) above which a file counts as faulty; true stems hardly ever exceed them (docs/detectors.md).
        See `limits` for files with more than one fault."""
        return self._weights["song_threshold" if has_mix else "alone_threshold"]

    def limits(self, scores: np.ndarray, has_mix: bool) -> np.ndarray:
        """The thresholds (5,) that apply to these scores (5,).

        As soon as one score is above its threshold, something has certainly damaged the stem. Then the others count as
        faults from a third or a quarter of a clearly audible case.
        """
        known = np.array([has_mix or kind not in MIX_ONLY_TYPES for kind in TYPES])
        thresholds = self.thresholds(has_mix)
        if not (known & (scores > thresholds)).any():
            return thresholds
        return np.minimum(thresholds, self._weights["song_beside" if has_mix else "alone_beside"])

    def typical(self, has_mix: bool) -> np.ndarray:
        """File scores (5,) of clearly audible cases: the median over simulated cases of each type."""
        return self._weights["song_typical" if has_mix else "alone_typical"]

    def start(self) -> DetectorState:
        """State before the first frame."""
        return DetectorState(self.measures.start())

    def __call__(
        self, stem: np.ndarray, mix: np.ndarray | None, state: DetectorState
    ) -> tuple[np.ndarray, DetectorState]:
        """Severities of these frames, and the state after them. The result does not depend on how frames are split."""
        measured, active, after = self.measures(stem, mix, state.measures)
        kind = "alone" if mix is None else "song"
        scaled = standardise(measured[usable_measures(mix is not None)], self._weights, kind)
        with single_threaded_blas():
            inner = np.tensordot(self._weights[f"{kind}_inner"], scaled, 1)
        hidden = np.tanh(inner + self._weights[f"{kind}_inner_bias"])
        rows = hidden.reshape(len(TYPES), -1, *measured.shape[1:])
        logit = np.einsum("th,thkn->tkn", self._weights[f"{kind}_outer"], rows)
        logit += self._weights[f"{kind}_outer_bias"][:, None, None]
        severity = 1.0 / (1.0 + np.exp(-logit))
        return (severity * active).astype(np.float32), DetectorState(after)


def standardise(measures: np.ndarray, weights: dict[str, np.ndarray], kind: str) -> np.ndarray:
    """Measures (J, K, N) scaled to zero mean and unit deviation on the training material, clipped at SPREAD_LIMIT."""
    scaled = (measures - weights[f"{kind}_mean"]) / weights[f"{kind}_deviation"]
    return np.clip(scaled, -SPREAD_LIMIT, SPREAD_LIMIT)

"""The detectors: from local measures to a severity in 0..1 for each type of artefact, perceptual band and frame."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

import numpy as np

from ..dsp.bands import PerceptualBands
from ..dsp.stft import StftConfig
from .measures import NEEDS_MIX, Measures, MeasureState

TYPES = ("musical-noise", "bleed", "phasiness", "smeared-transients", "dull-highs")
#: What cannot be told without the song: the detector is no better than chance there (docs/detectors.md).
NEEDS_SONG = ("bleed",)
WEIGHTS = Path(__file__).with_name("weights.npz")
SPREAD_LIMIT = 5.0  # standard deviations of the training material that a measure may count


def mix_columns(has_mix: bool) -> np.ndarray:
    """Which rows of NAMES a detector sees with or without the song."""
    return np.array([i for i, needs in enumerate(NEEDS_MIX) if has_mix or not needs])


@dataclass(frozen=True)
class DetectorState:
    """What the measures remember."""

    measures: MeasureState


@dataclass(frozen=True)
class Detectors:
    """Packed spectra of a stem and its song (2, F, N) to severities (5, K, N); types in the order of TYPES.

    Each type has a detector of its own, s = sigmoid(b + a . tanh(c + W u)), u the standardised measures; one set of
    them with the song, one without. What a detector says of simulated faults of held-out material, and how it was
    fitted, is in docs/detectors.md. Severity: the share of damage expected in this place, 0 for 20 dB under the sound
    and 1 for as loud as it. Where the stem pauses it is 0.
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
        with np.load(self.weights_file) as found:
            return dict(found)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of what the maps are made by: a model that was trained on these maps fits no others."""
        digest = hashlib.sha256()
        for name in sorted(name for name in self._weights if not name.endswith(("_threshold", "_beside", "_typical"))):
            digest.update(name.encode() + np.ascontiguousarray(self._weights[name], np.float32).tobytes())
        return digest.hexdigest()

    def thresholds(self, has_mix: bool) -> np.ndarray:
        """File scores (5,) over which a file counts as faulty; hardly a true stem lies over one (docs/detectors.md).
        `limits` says what holds beside another fault."""
        return self._weights["song_threshold" if has_mix else "alone_threshold"]

    def limits(self, scores: np.ndarray, has_mix: bool) -> np.ndarray:
        """What these scores (5,) have to be over to count as faults (5,): the thresholds. Once one of them is, the
        sound has been through something that does harm, and for the others a third or a quarter of a clearly audible
        case is enough."""
        known = np.array([has_mix or kind not in NEEDS_SONG for kind in TYPES])
        thresholds = self.thresholds(has_mix)
        if not (known & (scores > thresholds)).any():
            return thresholds
        return np.minimum(thresholds, self._weights["song_beside" if has_mix else "alone_beside"])

    def typical(self, has_mix: bool) -> np.ndarray:
        """File scores (5,) of clearly audible cases: the median of simulated ones, each of its own type."""
        return self._weights["song_typical" if has_mix else "alone_typical"]

    def start(self) -> DetectorState:
        """State before the first frame."""
        return DetectorState(self.measures.start())

    def __call__(
        self, stem: np.ndarray, mix: np.ndarray | None, state: DetectorState
    ) -> tuple[np.ndarray, DetectorState]:
        """Severities of these frames, and the state after them; any split into runs of frames gives the same."""
        found, active, after = self.measures(stem, mix, state.measures)
        kind = "alone" if mix is None else "song"
        scaled = standardise(found[mix_columns(mix is not None)], self._weights, kind)
        hidden = np.tanh(np.tensordot(self._weights[f"{kind}_inner"], scaled, 1) + self._weights[f"{kind}_inner_bias"])
        rows = hidden.reshape(len(TYPES), -1, *found.shape[1:])
        logit = np.einsum("th,thkn->tkn", self._weights[f"{kind}_outer"], rows)
        logit += self._weights[f"{kind}_outer_bias"][:, None, None]
        severity = 1.0 / (1.0 + np.exp(-logit))
        return (severity * active).astype(np.float32), DetectorState(after)


def standardise(measures: np.ndarray, weights: dict[str, np.ndarray], kind: str) -> np.ndarray:
    """Measures (J, K, N) to zero mean and unit deviation on the training material, limited to SPREAD_LIMIT."""
    scaled = (measures - weights[f"{kind}_mean"]) / weights[f"{kind}_deviation"]
    return np.clip(scaled, -SPREAD_LIMIT, SPREAD_LIMIT)

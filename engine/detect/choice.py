"""Chooses presets for a running stream from the detectors' scores, slowly and with hysteresis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ..constants import MODEL_RATE
from ..errors import OptionError
from .analysis import FRAMES_PER_COLUMN, FrameAnalyser, FrameAnalysis, preset_weight
from .detectors import MIX_ONLY_TYPES, TYPES, Detectors
from .score import apply_powers
from .separation import DISTURBED, GAINS, SEPARATED, mask_score, separation_score


@dataclass(frozen=True)
class ChoiceConfig:
    """How fast a choice reacts, in seconds of audio that is not silent.

    memory_s: time constant of the scores. first_s: time before the first choice. hold_s: shortest time between changes.
    release: a chosen type is dropped when its score falls below this fraction of its threshold. step: a weight is
    changed when it is off by this much or more.
    """

    memory_s: float = 6.0
    first_s: float = 3.0
    hold_s: float = 4.0
    release: float = 0.7
    step: float = 0.15

    def __post_init__(self) -> None:
        for name in ("memory_s", "first_s", "hold_s", "release", "step"):
            if not getattr(self, name) > 0.0:
                raise OptionError(f"{name}={getattr(self, name)}: must be greater than 0")
        if self.release > 1.0:
            raise OptionError(
                f"release={self.release:g}: must be at most 1, or a type would be dropped while it is detected"
            )


@dataclass(frozen=True)
class Choice:
    """Preset weights by type of artefact. Without any: whether a mask-based separator made the stem, or something else,
    that no detector knows, was done to it."""

    weights: Mapping[str, float] = field(default_factory=dict)
    is_separated: bool = False
    is_disturbed: bool = False


@dataclass
class LiveChoice:
    """Analyses a stream and chooses presets: `process(block, mix)` returns the current choice, also in `present`."""

    sample_rate: float
    channels: int
    has_mix: bool = False
    config: ChoiceConfig = field(default_factory=ChoiceConfig)
    detectors: Detectors = field(default_factory=Detectors)

    def __post_init__(self) -> None:
        self._frames = FrameAnalyser(self.sample_rate, self.channels, self.has_mix, self.detectors)
        self._frame_s = self.detectors.stft.hop / MODEL_RATE
        self._scores = np.zeros(len(TYPES))
        self._unexplained, self._gains, self._disturbance = 0.0, np.zeros(GAINS), 0.0
        self._analysed_s = 0.0
        self._unchanged_s = self.config.hold_s  # the first choice need not wait
        self.present = Choice()

    @property
    def made(self) -> bool:
        """Whether enough audio was analysed for a choice."""
        return self._analysed_s >= self.config.first_s

    @property
    def scores(self) -> np.ndarray:
        """Scores (5,) of the last seconds that were not silent."""
        return self._scores / self._filled

    @property
    def _filled(self) -> float:
        """How much of the memory is filled, 0 to 1 (1 before the first frame, to divide by)."""
        return float(1.0 - np.exp(-self._analysed_s / self.config.memory_s)) or 1.0

    def process(self, block: np.ndarray, mix: np.ndarray | None = None) -> Choice:
        """Analyse the next samples of stem and mix, both (C, n), and return the current choice.

        The result does not depend on how the audio is split into blocks. Raises as `FrameAnalyser.process`.
        """
        frames = self._frames.process(block, mix)
        for start in range(0, len(frames.unexplained), FRAMES_PER_COLUMN):
            column = slice(start, start + FRAMES_PER_COLUMN)
            self._update(FrameAnalysis(*(values[..., column] for values in vars(frames).values())))
        return self.present

    def _update(self, frames: FrameAnalysis) -> None:
        sounding = frames.sounding
        seconds = float(sounding.sum()) * self._frame_s
        if not seconds:
            return  # silence neither changes the scores nor counts as time
        keep = np.exp(-seconds / self.config.memory_s)
        mean = apply_powers(frames.severity[..., sounding]).mean(axis=(1, 2), dtype=np.float64)
        unexplained, disturbance = (
            float(values[sounding].mean(dtype=np.float64)) for values in (frames.unexplained, frames.disturbance)
        )
        gains = frames.gains[:, sounding].sum(axis=1, dtype=np.float64)
        if not np.isfinite([*mean, unexplained, disturbance, *gains]).all():
            return  # a single non-finite value would spoil the running means for good
        self._scores = keep * self._scores + (1.0 - keep) * mean
        self._unexplained = keep * self._unexplained + (1.0 - keep) * unexplained
        self._disturbance = keep * self._disturbance + (1.0 - keep) * disturbance
        self._gains = keep * self._gains + gains
        self._analysed_s += seconds
        self._unchanged_s += seconds
        if self._analysed_s < self.config.first_s or self._unchanged_s < self.config.hold_s:
            return
        choice = self._choice()
        if self._differs(choice):
            self.present, self._unchanged_s = choice, 0.0

    def _choice(self) -> Choice:
        """The choice for the present scores."""
        present, release = self.present, self.config.release
        dull = float(self.scores[TYPES.index("dull-highs")])
        separation = separation_score(float(self._unexplained / self._filled), self._gains)
        if mask_score(separation, dull) > SEPARATED * (release if present.is_separated else 1.0):
            return Choice(is_separated=True)
        if weights := self._weights():
            return Choice(weights)
        limit = DISTURBED * (release if present.is_disturbed else 1.0)
        return Choice(is_disturbed=float(self._disturbance / self._filled) > limit)

    def _weights(self) -> dict[str, float]:
        """Preset weights for the present scores."""
        scores, typical = self.scores, self.detectors.typical(self.has_mix)
        present = self.present.weights
        release = self.config.release if present else 1.0
        limits = self.detectors.limits(scores / release, self.has_mix)
        weights = {}
        for kind, score, threshold, usual in zip(TYPES, scores, limits, typical, strict=True):
            if kind in MIX_ONLY_TYPES and not self.has_mix:
                continue
            limit = threshold * (self.config.release if kind in present else 1.0)
            if score > limit:
                weights[kind] = preset_weight(float(score), float(threshold), float(usual))
        return weights

    def _differs(self, choice: Choice) -> bool:
        """Whether a choice is another than the present one, or has a weight that is off by a step."""
        now, wanted = ((one.is_separated, one.is_disturbed, one.weights.keys()) for one in (self.present, choice))
        return now != wanted or any(
            abs(weight - self.present.weights[kind]) >= self.config.step for kind, weight in choice.weights.items()
        )

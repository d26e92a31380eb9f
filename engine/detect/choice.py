"""What a running stream asks for: the detectors' scores, slowly, and with hysteresis."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ..constants import MODEL_RATE
from ..errors import OptionError
from .analysis import FRAMES_A_COLUMN, Heard, Listener, weight_of
from .bank import NEEDS_SONG, TYPES, Detectors
from .score import raised
from .separation import GAINS, SEPARATED, separation, separators_mark


@dataclass(frozen=True)
class ChoiceConfig:
    """Seconds of sound: `memory_s` is the time constant of the scores, `first_s` how long nothing is chosen, `hold_s`
    how long a choice stands at least. A type is dropped under `release` of its threshold; a weight is changed where
    it is off by `step` or more."""

    memory_s: float = 6.0
    first_s: float = 3.0
    hold_s: float = 4.0
    release: float = 0.7
    step: float = 0.15

    def __post_init__(self) -> None:
        for name in ("memory_s", "first_s", "hold_s", "release", "step"):
            if not getattr(self, name) > 0.0:
                raise OptionError(f"{name}={getattr(self, name)}: give a number over 0")
        if self.release > 1.0:
            raise OptionError(f"release={self.release:g} is over 1, so a choice would let go before it takes hold")


@dataclass(frozen=True)
class Choice:
    """What a sound asks for: weights by type, none where nothing is wrong or where the whole stem is a separator's."""

    weights: Mapping[str, float] = field(default_factory=dict)
    is_separated: bool = False


@dataclass
class LiveChoice:
    """`process(block, mix)` listens and returns what the stream now asks for, which `present` is until then."""

    sample_rate: float
    channels: int
    has_mix: bool = False
    config: ChoiceConfig = field(default_factory=ChoiceConfig)
    detectors: Detectors = field(default_factory=Detectors)

    def __post_init__(self) -> None:
        self._listener = Listener(self.sample_rate, self.channels, self.has_mix, self.detectors)
        self._frame_s = self.detectors.stft.hop / MODEL_RATE
        self._scores = np.zeros(len(TYPES))
        self._unexplained, self._gains = 0.0, np.zeros(GAINS)
        self._heard_s = 0.0
        self._stands_s = self.config.hold_s  # the first choice need not wait for another
        self.present = Choice()

    @property
    def made(self) -> bool:
        """Whether enough was heard for a choice."""
        return self._heard_s >= self.config.first_s

    @property
    def scores(self) -> np.ndarray:
        """Scores of the last seconds of sound (5,)."""
        return self._scores / self._known

    @property
    def _known(self) -> float:
        """How much of the memory is filled, 0 to 1."""
        return float(1.0 - np.exp(-self._heard_s / self.config.memory_s)) or 1.0

    def process(self, block: np.ndarray, mix: np.ndarray | None = None) -> Choice:
        """The next samples (C, n), and as many of the song where there is one. Raises as `Listener.process`. The choice
        depends on the sound alone, not on how it was cut into blocks."""
        heard = self._listener.process(block, mix)
        for start in range(0, len(heard.unexplained), FRAMES_A_COLUMN):
            parts = (heard.severity, heard.power, heard.unexplained, heard.gains)
            self._column(Heard(*(part[..., start : start + FRAMES_A_COLUMN] for part in parts)))
        return self.present

    def _column(self, heard: Heard) -> None:
        sounding = heard.sounding
        seconds = float(sounding.sum()) * self._frame_s
        if not seconds:
            return  # pauses are not listened to, and do not count as time
        keep = np.exp(-seconds / self.config.memory_s)
        mean = raised(heard.severity[..., sounding]).mean(axis=(1, 2), dtype=np.float64)
        unexplained = float(heard.unexplained[sounding].mean(dtype=np.float64))
        gains = heard.gains[:, sounding].sum(axis=1, dtype=np.float64)
        if not np.isfinite([*mean, unexplained, *gains]).all():
            return  # a sample that is no number tells nothing, and must not be remembered
        self._scores = keep * self._scores + (1.0 - keep) * mean
        self._unexplained = keep * self._unexplained + (1.0 - keep) * unexplained
        self._gains = keep * self._gains + gains
        self._heard_s += seconds
        self._stands_s += seconds
        if self._heard_s < self.config.first_s or self._stands_s < self.config.hold_s:
            return
        limit = SEPARATED * (self.config.release if self.present.is_separated else 1.0)
        dull = float(self.scores[TYPES.index("dull-highs")])
        is_separated = separators_mark(separation(float(self._unexplained / self._known), self._gains), dull) > limit
        wanted = {} if is_separated else self._wanted()
        if is_separated != self.present.is_separated or self._differs(wanted):
            self.present, self._stands_s = Choice(wanted, is_separated), 0.0

    def _wanted(self) -> dict[str, float]:
        scores, typical = self.scores, self.detectors.typical(self.has_mix)
        present = self.present.weights
        held = self.config.release if present else 1.0
        limits = self.detectors.limits(scores / held, self.has_mix)
        wanted = {}
        for kind, score, threshold, usual in zip(TYPES, scores, limits, typical, strict=True):
            if kind in NEEDS_SONG and not self.has_mix:
                continue
            limit = threshold * (self.config.release if kind in present else 1.0)
            if score > limit:
                wanted[kind] = weight_of(float(score), float(threshold), float(usual))
        return wanted

    def _differs(self, wanted: Mapping[str, float]) -> bool:
        present = self.present.weights
        return wanted.keys() != present.keys() or any(
            abs(weight - present[kind]) >= self.config.step for kind, weight in wanted.items()
        )

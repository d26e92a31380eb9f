"""A whole sound through the detectors: scores, maps over time and frequency, and what would help."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ..constants import MODEL_RATE
from ..dsp.channels import pair_count, to_pairs
from ..dsp.resample import Resampler, check_rate
from ..dsp.stft import Stft
from ..errors import MixMismatchError, OptionError
from .bank import NEEDS_SONG, TYPES, Detectors
from .score import raised
from .separation import GAINS, SEPARATED, SeparationDetector, separation, separators_mark

FRAMES_A_COLUMN = 8


def _strength(score: float, threshold: float, typical: float) -> float:
    return float(np.clip((score - threshold) / max(typical - threshold, 1e-3), 0.0, 1.0))


def weight_of(score: float, threshold: float, typical: float) -> float:
    """The weight of a preset that a score asks for: 0.4 at the threshold, 1 for a clearly audible case."""
    return round(0.4 + 0.6 * _strength(score, threshold, typical), 2)


@dataclass(frozen=True)
class Finding:
    """One type of artefact in one sound. score: see score.py, 0..1; threshold: see Detectors.limits;
    typical: the score of clearly audible cases; from_s, to_s and low_hz, high_hz: where most of it is."""

    kind: str
    score: float
    threshold: float
    typical: float
    known: bool
    from_s: float
    to_s: float
    low_hz: float
    high_hz: float

    @property
    def found(self) -> bool:
        """Whether the sound counts as faulty in this way."""
        return self.known and self.score > self.threshold

    @property
    def strength(self) -> float:
        """0 at the threshold, 1 for a clearly audible case, limited to that."""
        if not self.found:
            return 0.0
        return _strength(self.score, self.threshold, self.typical)


@dataclass(frozen=True)
class Analysis:
    """severities (5, K, M) in the order of TYPES, M columns of `column_s` seconds, K bands with `edges_hz` (K + 1,);
    levels_db (K, M): level of the stem in each, relative to its loudest; separation: see separation.py, 0 without the
    song."""

    duration_s: float
    has_mix: bool
    column_s: float
    edges_hz: np.ndarray
    severities: np.ndarray
    levels_db: np.ndarray
    findings: tuple[Finding, ...]
    separation: float = 0.0

    @property
    def mark(self) -> float:
        """As of `separators_mark`."""
        return separators_mark(self.separation, sum(f.score for f in self.findings if f.kind == "dull-highs"))

    @property
    def is_separated(self) -> bool:
        """Whether the stem is what a separator's mask left of the song."""
        return self.mark > SEPARATED

    @property
    def found(self) -> tuple[Finding, ...]:
        """What was found, the strongest first."""
        return tuple(sorted((f for f in self.findings if f.found), key=lambda f: -f.strength))

    @property
    def strength(self) -> float:
        """Of the strongest that was found, 0 where nothing was."""
        return max((f.strength for f in self.found), default=0.0)

    def blend(self) -> Mapping[str, float]:
        """Presets and weights that this sound asks for: 0.4 at the threshold, 1 for a clearly audible case."""
        return {f.kind: weight_of(f.score, f.threshold, f.typical) for f in self.found}


@dataclass(frozen=True)
class Heard:
    """Some frames of a sound: severities (5, K, N), mean power in each bin (K, N), and what tells a separator's stem
    (separation.py), unexplained (N,) and gains (GAINS, N), which are 0 without the song."""

    severity: np.ndarray
    power: np.ndarray
    unexplained: np.ndarray
    gains: np.ndarray

    @property
    def sounding(self) -> np.ndarray:
        """In which frames there is anything to judge (N,); the others are pauses."""
        return np.asarray(self.severity.any(axis=(0, 1)))


@dataclass
class Listener:
    """Blocks of a sound, and of its song if there is one, to severities: resampler, STFT and detectors in one stream,
    FRAMES_A_COLUMN frames at a time."""

    sample_rate: float
    channels: int
    has_mix: bool = False
    detectors: Detectors = field(default_factory=Detectors)

    def __post_init__(self) -> None:
        if self.channels < 1:
            raise OptionError(f"channels={self.channels}: give 1 or more")
        rate = check_rate(self.sample_rate)
        sources = self.channels * (2 if self.has_mix else 1)
        self._stft = Stft(self.detectors.stft)
        self._resampler = Resampler(rate, MODEL_RATE, sources)
        self._waiting = np.zeros((sources, 0), np.float32)
        pairs = pair_count(self.channels)
        self._spectra = [self._stft.start_analysis(4 if self.has_mix else 2) for _ in range(pairs)]
        self._states = [self.detectors.start() for _ in range(pairs)]
        self._separation = SeparationDetector(MODEL_RATE, stft=self.detectors.stft)
        self._leaks = [self._separation.start() for _ in range(pairs if self.has_mix else 0)]

    def process(self, block: np.ndarray, mix: np.ndarray | None = None) -> Heard:
        """The next samples (C, n), and as many of the song; of several pairs of channels the worse one counts, and of
        `Heard.gains` all."""
        sound = np.asarray(block, np.float32)
        if sound.ndim != 2 or len(sound) != self.channels:
            raise OptionError(f"block of shape {sound.shape}: give ({self.channels}, samples)")
        if (mix is not None) != self.has_mix or (mix is not None and np.shape(mix) != sound.shape):
            raise MixMismatchError(f"has_mix={self.has_mix}: give as much of the song as of the stem, {sound.shape}")
        if mix is not None:
            sound = np.concatenate([sound, np.asarray(mix, np.float32)])
        return self._advance(self._resampler.process(sound), last=False)

    def finish(self) -> Heard:
        """What is still inside; the last column is filled up with silence."""
        rest = self._resampler.process(np.zeros((len(self._waiting), 0), np.float32), last=True)
        return self._advance(rest, last=True)

    def _advance(self, sound: np.ndarray, *, last: bool) -> Heard:
        step = FRAMES_A_COLUMN * self.detectors.stft.hop
        waiting = np.concatenate([self._waiting, sound], axis=1)
        count = waiting.shape[1] // step * step
        if last and waiting.shape[1] > count:
            waiting = np.pad(waiting, ((0, 0), (0, count + step - waiting.shape[1])))
            count += step
        ready, self._waiting = waiting[:, :count], waiting[:, count:]
        shape = (len(self.detectors.bands), count // self.detectors.stft.hop)
        severity, power = np.zeros((len(TYPES), *shape), np.float32), np.zeros(shape, np.float32)
        unexplained = np.full(shape[1:], -np.inf if self.has_mix else 0.0, np.float32)
        gains = np.zeros((GAINS, *shape[1:]), np.float32)
        if not count:
            return Heard(severity, power, unexplained, gains)
        stems = to_pairs(ready[: self.channels])
        songs = to_pairs(ready[self.channels :]) if self.has_mix else None
        for i, stem in enumerate(stems):
            both = stem if songs is None else np.concatenate([stem, songs[i]])
            spectrum, self._spectra[i] = self._stft.analysis(both, self._spectra[i])
            song = spectrum[2:] if self.has_mix else None
            found, self._states[i] = self.detectors(spectrum[:2], song, self._states[i])
            energy = np.square(np.abs(spectrum[:2])).sum(axis=0)
            power += self.detectors.bands.sum(energy) / self.detectors.bands.widths[:, None]
            severity = np.maximum(severity, found)
            if song is not None:
                told, self._leaks[i] = self._separation(spectrum[:2], song, self._leaks[i])
                unexplained = np.maximum(unexplained, told.unexplained)
                gains += told.gains
        return Heard(severity, power, unexplained, gains)


@dataclass
class Analyser:
    """Blocks of a sound, and of its song if there is one, to an Analysis; it remembers 5 x 31 numbers each 93 ms."""

    sample_rate: float
    channels: int
    has_mix: bool = False
    detectors: Detectors = field(default_factory=Detectors)

    def __post_init__(self) -> None:
        self._listener = Listener(self.sample_rate, self.channels, self.has_mix, self.detectors)
        self._columns: list[np.ndarray] = []
        self._levels: list[np.ndarray] = []
        self._sounding = 0
        self._totals = np.zeros((len(TYPES), len(self.detectors.bands)))
        self._raised = np.zeros(len(TYPES))
        self._unexplained, self._gains = 0.0, np.zeros(GAINS)
        self._samples = 0

    def process(self, block: np.ndarray, mix: np.ndarray | None = None) -> None:
        """The next samples (C, n), and as many of the song."""
        heard = self._listener.process(block, mix)
        self._samples += np.shape(block)[1]
        self._add(heard)

    def finish(self) -> Analysis:
        """What was found. The analyser is used up."""
        self._add(self._listener.finish())
        bands = self.detectors.bands
        severities = (
            np.stack(self._columns, axis=-1) if self._columns else np.zeros((len(TYPES), len(bands), 0), np.float32)
        )
        power = np.stack(self._levels, axis=-1) if self._levels else np.zeros((len(bands), 0))
        levels = 10 * np.log10(power + 1e-12)
        column_s = FRAMES_A_COLUMN * self.detectors.stft.hop / MODEL_RATE
        return Analysis(
            duration_s=self._samples / self.sample_rate,
            has_mix=self.has_mix,
            column_s=column_s,
            edges_hz=bands.edges_hz,
            severities=severities,
            levels_db=levels - levels.max(initial=-120.0),
            findings=self._findings(severities, column_s),
            separation=separation(self._unexplained / max(1, self._sounding), self._gains),
        )

    def _add(self, heard: Heard) -> None:
        severity, sounding = heard.severity, heard.sounding
        self._sounding += int(sounding.sum())
        self._unexplained += float(heard.unexplained[sounding].sum(dtype=np.float64))
        self._gains += heard.gains[:, sounding].sum(axis=1, dtype=np.float64)
        self._totals += severity.sum(axis=-1, dtype=np.float64)
        self._raised += raised(severity).sum(axis=(1, 2), dtype=np.float64) / len(self.detectors.bands)
        self._columns += list(np.moveaxis(_columns(severity), -1, 0))
        self._levels += list(_columns(heard.power).T)

    def _findings(self, severities: np.ndarray, column_s: float) -> tuple[Finding, ...]:
        by_band = self._totals / max(1, self._sounding)
        scores = self._raised / max(1, self._sounding)
        limits, typical = self.detectors.limits(scores, self.has_mix), self.detectors.typical(self.has_mix)
        edges = self.detectors.bands.edges_hz
        findings = []
        for i, kind in enumerate(TYPES):
            first, last = _most(severities[i].sum(axis=0))
            low, high = _most(by_band[i])
            findings.append(
                Finding(
                    kind=kind,
                    score=float(scores[i]),
                    threshold=float(limits[i]),
                    typical=float(typical[i]),
                    known=self.has_mix or kind not in NEEDS_SONG,
                    from_s=first * column_s,
                    to_s=min((last + 1) * column_s, self._samples / self.sample_rate),
                    low_hz=float(edges[low]),
                    high_hz=float(edges[high + 1]),
                )
            )
        return tuple(findings)


def analyse(stem: np.ndarray, sample_rate: float, mix: np.ndarray | None = None) -> Analysis:
    """A whole sound (C, T), and its song of the same shape where there is one."""
    analyser = Analyser(sample_rate, len(stem), mix is not None)
    analyser.process(stem, mix)
    return analyser.finish()


def _columns(values: np.ndarray) -> np.ndarray:
    """Means over columns of frames: (..., N) to (..., N / FRAMES_A_COLUMN)."""
    return values.reshape(*values.shape[:-1], -1, FRAMES_A_COLUMN).mean(axis=-1)


def _most(amounts: np.ndarray) -> tuple[int, int]:
    """First and last index of the shortest stretch that holds 80% of the total."""
    if not len(amounts) or not amounts.any():
        return 0, max(0, len(amounts) - 1)
    total = np.concatenate([[0.0], np.cumsum(amounts, dtype=np.float64)])
    wanted = total[:-1] + 0.8 * total[-1]
    ends = np.searchsorted(total, wanted)
    lengths = np.where(ends < len(total), ends - np.arange(len(amounts)), len(total))
    start = int(np.argmin(lengths))
    return start, min(int(ends[start]), len(amounts)) - 1

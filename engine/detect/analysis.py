"""Runs the detectors over a stem: scores, maps over time and frequency, and the presets that would help."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ..constants import BLOCK_SAMPLES, MODEL_RATE
from ..dsp.channels import check_mix, pair_count, to_pairs
from ..dsp.resample import Resampler, check_rate
from ..dsp.stft import Stft
from ..errors import MixMismatchError, OptionError
from .detectors import MIX_ONLY_TYPES, TYPES, Detectors
from .score import apply_powers
from .separation import DISTURBED, GAINS, SEPARATED, SeparationDetector, mask_score, separation_score

FRAMES_PER_COLUMN = 8


def _strength(score: float, threshold: float, typical: float) -> float:
    return float(np.clip((score - threshold) / max(typical - threshold, 1e-3), 0.0, 1.0))


def preset_weight(score: float, threshold: float, typical: float) -> float:
    """Preset weight for a score: 0.4 at the threshold, 1 for a clearly audible case."""
    return round(0.4 + 0.6 * _strength(score, threshold, typical), 2)


@dataclass(frozen=True)
class Finding:
    """The result for one type of artefact in a stem.

    score: 0..1, see score.py. threshold: see Detectors.limits. typical: the score of clearly audible cases.
    known: False for types that cannot be detected without the mix. from_s, to_s, low_hz, high_hz: where most of it is.
    """

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
        """Whether the artefact was detected."""
        return self.known and self.score > self.threshold

    @property
    def level(self) -> float:
        """The score on a scale of which one half is the threshold, and 1 a clearly audible case or worse."""
        if not self.known:
            return 0.0
        return 0.5 + 0.5 * self.strength if self.found else 0.5 * self.score / max(self.threshold, 1e-6)

    @property
    def strength(self) -> float:
        """0 at the threshold, 1 for a clearly audible case or worse."""
        if not self.found:
            return 0.0
        return _strength(self.score, self.threshold, self.typical)


@dataclass(frozen=True)
class Analysis:
    """The result for a whole stem.

    severities (5, K, M): in the order of TYPES, K bands with `edges_hz` (K + 1,), M columns of `column_s` seconds.
    levels_db (K, M): level of the stem relative to its loudest cell. separation: see `separation_score`; disturbance:
    the mean of `MaskEvidence.disturbance`; both 0 without the mix.
    """

    duration_s: float
    has_mix: bool
    column_s: float
    edges_hz: np.ndarray
    severities: np.ndarray
    levels_db: np.ndarray
    findings: tuple[Finding, ...]
    separation: float = 0.0
    disturbance: float = 0.0

    @property
    def mask_score(self) -> float:
        """How strongly the stem shows the marks of a mask-based separator; see `separation.mask_score`."""
        return mask_score(self.separation, sum(f.score for f in self.findings if f.kind == "dull-highs"))

    @property
    def is_separated(self) -> bool:
        """Whether the stem was made by a mask-based separator."""
        return self.mask_score > SEPARATED

    @property
    def is_disturbed(self) -> bool:
        """Whether something was done to the stem, whatever it is."""
        return self.disturbance > DISTURBED

    @property
    def found(self) -> tuple[Finding, ...]:
        """The detected artefacts, strongest first."""
        return tuple(sorted((f for f in self.findings if f.found), key=lambda f: -f.strength))

    @property
    def strength(self) -> float:
        """Strength of the strongest artefact detected, 0 if there is none."""
        return max((f.strength for f in self.found), default=0.0)

    def blend(self) -> Mapping[str, float]:
        """Preset weights for the detected artefacts, strongest first: 0.4 at the threshold, 1 if clearly audible."""
        return {f.kind: preset_weight(f.score, f.threshold, f.typical) for f in self.found}


@dataclass(frozen=True)
class FrameAnalysis:
    """The result for N frames.

    severity (5, K, N). power (K, N): mean power per bin of each band. unexplained (N,), gains (GAINS, N) and
    disturbance (N,): as in `MaskEvidence`, 0 without the mix.
    """

    severity: np.ndarray
    power: np.ndarray
    unexplained: np.ndarray
    gains: np.ndarray
    disturbance: np.ndarray

    @property
    def sounding(self) -> np.ndarray:
        """Which frames are not silent (N,), boolean."""
        return np.asarray(self.severity.any(axis=(0, 1)))


@dataclass
class FrameAnalyser:
    """Analyses a stem block by block, with its mix if there is one.

    Resampler, STFT and detectors run as one stream, in steps of FRAMES_PER_COLUMN frames.
    """

    sample_rate: float
    channels: int
    has_mix: bool = False
    detectors: Detectors = field(default_factory=Detectors)

    def __post_init__(self) -> None:
        if self.channels < 1:
            raise OptionError(f"channels={self.channels}: must be at least 1")
        rate = check_rate(self.sample_rate)
        sources = self.channels * (2 if self.has_mix else 1)
        self._stft = Stft(self.detectors.stft)
        self._resampler = Resampler(rate, MODEL_RATE, sources)
        self._waiting = np.zeros((sources, 0), np.float32)
        pairs = pair_count(self.channels)
        self._spectra = [self._stft.start_analysis(4 if self.has_mix else 2) for _ in range(pairs)]
        self._states = [self.detectors.start() for _ in range(pairs)]
        self._separation = SeparationDetector(MODEL_RATE, stft=self.detectors.stft)
        self._separation_states = [self._separation.start() for _ in range(pairs if self.has_mix else 0)]

    def process(self, block: np.ndarray, mix: np.ndarray | None = None) -> FrameAnalysis:
        """Analyse the next samples of stem and mix, both (C, n). The frames returned may lag behind.

        With more than two channels, severities are those of the worst channel pair; gains are summed over the pairs.
        Raises OptionError, MixMismatchError for blocks of the wrong shape.
        """
        audio = np.asarray(block, np.float32)
        if audio.ndim != 2 or len(audio) != self.channels:
            raise OptionError(f"block of shape {audio.shape}: must be ({self.channels}, samples)")
        if (mix is not None) != self.has_mix:
            hint = "pass the mix as well" if mix is None else "leave out the mix, or create it with has_mix=True"
            raise MixMismatchError(f"this analyser was created with has_mix={self.has_mix}: {hint}")
        if mix is not None:
            check_mix(audio, mix)
            audio = np.concatenate([audio, np.asarray(mix, np.float32)])
        return self._advance(self._resampler.process(audio), last=False)

    def finish(self) -> FrameAnalysis:
        """The frames that are still buffered; the last column is padded with silence."""
        tail = self._resampler.process(np.zeros((len(self._waiting), 0), np.float32), last=True)
        return self._advance(tail, last=True)

    def _advance(self, audio: np.ndarray, *, last: bool) -> FrameAnalysis:
        step = FRAMES_PER_COLUMN * self.detectors.stft.hop
        waiting = np.concatenate([self._waiting, audio], axis=1)
        count = waiting.shape[1] // step * step
        if last and waiting.shape[1] > count:
            waiting = np.pad(waiting, ((0, 0), (0, count + step - waiting.shape[1])))
            count += step
        ready, self._waiting = waiting[:, :count], waiting[:, count:]
        shape = (len(self.detectors.bands), count // self.detectors.stft.hop)
        severity, power = np.zeros((len(TYPES), *shape), np.float32), np.zeros(shape, np.float32)
        unexplained = np.full(shape[1:], -np.inf if self.has_mix else 0.0, np.float32)
        gains, disturbance = np.zeros((GAINS, *shape[1:]), np.float32), np.zeros(shape[1:], np.float32)
        if not count:
            return FrameAnalysis(severity, power, unexplained, gains, disturbance)
        stems = to_pairs(ready[: self.channels])
        mixes = to_pairs(ready[self.channels :]) if self.has_mix else None
        for i, stem in enumerate(stems):
            both = stem if mixes is None else np.concatenate([stem, mixes[i]])
            spectrum, self._spectra[i] = self._stft.analysis(both, self._spectra[i])
            mix = spectrum[2:] if self.has_mix else None
            pair_severity, self._states[i] = self.detectors(spectrum[:2], mix, self._states[i])
            energy = np.square(np.abs(spectrum[:2])).sum(axis=0)
            power += self.detectors.bands.sum(energy) / self.detectors.bands.widths[:, None]
            severity = np.maximum(severity, pair_severity)
            if mix is not None:
                evidence, self._separation_states[i] = self._separation(spectrum[:2], mix, self._separation_states[i])
                unexplained = np.maximum(unexplained, evidence.unexplained)
                gains += evidence.gains
                disturbance = np.maximum(disturbance, evidence.disturbance)
        return FrameAnalysis(severity, power, unexplained, gains, disturbance)


@dataclass
class Analyser:
    """Analyses a whole stem block by block, with its mix if there is one. Stores 5 x 31 values for every 93 ms."""

    sample_rate: float
    channels: int
    has_mix: bool = False
    detectors: Detectors = field(default_factory=Detectors)

    def __post_init__(self) -> None:
        self._frames = FrameAnalyser(self.sample_rate, self.channels, self.has_mix, self.detectors)
        self._columns: list[np.ndarray] = []
        self._levels: list[np.ndarray] = []
        self._sounding = 0
        self._totals = np.zeros((len(TYPES), len(self.detectors.bands)))
        self._score_sums = np.zeros(len(TYPES))
        self._unexplained, self._gains, self._disturbance = 0.0, np.zeros(GAINS), 0.0
        self._samples = 0

    def process(self, block: np.ndarray, mix: np.ndarray | None = None) -> None:
        """Analyse the next samples of stem and mix, both (C, n). Raises as `FrameAnalyser.process`."""
        frames = self._frames.process(block, mix)
        self._samples += np.shape(block)[1]
        self._add(frames)

    def finish(self) -> Analysis:
        """The result. The analyser cannot be used afterwards."""
        self._add(self._frames.finish())
        bands = self.detectors.bands
        severities = (
            np.stack(self._columns, axis=-1) if self._columns else np.zeros((len(TYPES), len(bands), 0), np.float32)
        )
        power = np.stack(self._levels, axis=-1) if self._levels else np.zeros((len(bands), 0))
        levels = 10 * np.log10(power + 1e-12)
        column_s = FRAMES_PER_COLUMN * self.detectors.stft.hop / MODEL_RATE
        return Analysis(
            duration_s=self._samples / self.sample_rate,
            has_mix=self.has_mix,
            column_s=column_s,
            edges_hz=bands.edges_hz,
            severities=severities,
            levels_db=levels - levels.max(initial=-120.0),
            findings=self._findings(severities, column_s),
            separation=separation_score(self._unexplained / max(1, self._sounding), self._gains),
            disturbance=self._disturbance / max(1, self._sounding),
        )

    def _add(self, frames: FrameAnalysis) -> None:
        severity, sounding = frames.severity, frames.sounding
        self._sounding += int(sounding.sum())
        self._unexplained += float(frames.unexplained[sounding].sum(dtype=np.float64))
        self._gains += frames.gains[:, sounding].sum(axis=1, dtype=np.float64)
        self._disturbance += float(frames.disturbance[sounding].sum(dtype=np.float64))
        self._totals += severity.sum(axis=-1, dtype=np.float64)
        self._score_sums += apply_powers(severity).sum(axis=(1, 2), dtype=np.float64) / len(self.detectors.bands)
        self._columns += list(np.moveaxis(_columns(severity), -1, 0))
        self._levels += list(_columns(frames.power).T)

    def _findings(self, severities: np.ndarray, column_s: float) -> tuple[Finding, ...]:
        by_band = self._totals / max(1, self._sounding)
        scores = self._score_sums / max(1, self._sounding)
        limits, typical = self.detectors.limits(scores, self.has_mix), self.detectors.typical(self.has_mix)
        edges = self.detectors.bands.edges_hz
        findings = []
        for i, kind in enumerate(TYPES):
            first, last = _main_range(severities[i].sum(axis=0))
            low, high = _main_range(by_band[i])
            findings.append(
                Finding(
                    kind=kind,
                    score=float(scores[i]),
                    threshold=float(limits[i]),
                    typical=float(typical[i]),
                    known=self.has_mix or kind not in MIX_ONLY_TYPES,
                    from_s=first * column_s,
                    to_s=min((last + 1) * column_s, self._samples / self.sample_rate),
                    low_hz=float(edges[low]),
                    high_hz=float(edges[high + 1]),
                )
            )
        return tuple(findings)


def analyse(stem: np.ndarray, sample_rate: float, mix: np.ndarray | None = None) -> Analysis:
    """Analyse a whole stem (C, T), with its mix of the same shape if there is one. Raises as `Analyser.process`."""
    if mix is not None:
        check_mix(stem, mix)
    analyser = Analyser(sample_rate, len(stem), mix is not None)
    for start in range(0, stem.shape[1], BLOCK_SAMPLES):
        block = slice(start, start + BLOCK_SAMPLES)
        analyser.process(stem[:, block], None if mix is None else mix[:, block])
    return analyser.finish()


def _columns(values: np.ndarray) -> np.ndarray:
    """Means over columns of frames: (..., N) to (..., N / FRAMES_PER_COLUMN)."""
    return values.reshape(*values.shape[:-1], -1, FRAMES_PER_COLUMN).mean(axis=-1)


def _main_range(amounts: np.ndarray) -> tuple[int, int]:
    """First and last index of the shortest range that contains 80% of the total."""
    if not len(amounts) or not amounts.any():
        return 0, max(0, len(amounts) - 1)
    total = np.concatenate([[0.0], np.cumsum(amounts, dtype=np.float64)])
    targets = total[:-1] + 0.8 * total[-1]
    ends = np.searchsorted(total, targets)
    lengths = np.where(ends < len(total), ends - np.arange(len(amounts)), len(total))
    start = int(np.argmin(lengths))
    return start, min(int(ends[start]), len(amounts)) - 1

"""`stemprover validate`: repairs a folder of cases whose true stems are known, and says what that did to each type.

A case is a folder with a true stem (`truth.*`), a degraded one (`degraded.*`) and, where there is one, the song
(`mix.*`). Cases may stand in a folder of their type: FOLDER/bleed/0001/truth.wav.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..engine.errors import InputError
from ..engine.metrics.basic import si_sdr
from ..engine.preset import Preset
from ..offline.audiofile import probe, read_start
from ..offline.render import ChunkRepairer, Progress, render_file
from .compare import Row, compare_files, median_sdr

MEASURES = (
    "SI-SDR",
    "Log-spectral distance",
    "Multi-resolution STFT distance",
    "Phase agreement",
    "Channel phase error",
    "Onset error",
    "Perceptual score (2f)",
    "PESQ",
    "STOI",
    "BSSEval SDR",
)
HARM_DB = 0.2
EXCERPT_S = 5.0
SEARCHED_S = 60.0
RESAMPLES = 2000
WORST = 10
_NAMES = {
    "truth": ("truth", "true", "reference"),
    "degraded": ("degraded", "before", "separated"),
    "mix": ("mix", "song", "mixture"),
}
_AUDIO = (".wav", ".flac", ".ogg", ".aiff", ".aif", ".mp3")


@dataclass(frozen=True)
class Case:
    """One true stem and what became of it."""

    name: str
    kind: str
    truth: Path
    degraded: Path
    mix: Path | None


@dataclass(frozen=True)
class CaseResult:
    """What the repair did to one case; clean_sdr_db: the true stem sent through the same repair, against itself.
    notes: on where its song lies."""

    case: Case
    rows: tuple[Row, ...]
    clean_sdr_db: float
    notes: tuple[str, ...] = ()

    def gain(self, name: str) -> float:
        """How much better a measure got; nan where it was not measured."""
        for row in self.rows:
            if row.name == name:
                return row.after - row.before if row.better == "higher" else row.before - row.after
        return float("nan")


@dataclass(frozen=True)
class Summary:
    """One measure over the cases of one type: medians before and after, and the mean gain (more is better) with its 95%
    bootstrap interval (percentiles; Efron 1979); improved: share of cases; median_gain: of the paired gains."""

    kind: str
    measure: str
    cases: int
    before: float
    after: float
    gain: float
    low: float
    high: float
    median_gain: float
    improved: float


@dataclass(frozen=True)
class Excerpt:
    """The five seconds of a case that gained least, or lost most, as sounds (C, T) by name."""

    result: CaseResult
    start_s: float
    sample_rate: int
    sounds: dict[str, np.ndarray]


def find_cases(folder: Path) -> list[Case]:
    """All cases under a folder, in the order of their names. Raises InputError where there is none."""
    if not folder.is_dir():
        raise InputError(f"{folder}: there is no such folder")
    cases = []
    for place in sorted(path for path in [folder, *folder.rglob("*")] if path.is_dir()):
        found = {role: _first(place, names) for role, names in _NAMES.items()}
        truth, degraded = found["truth"], found["degraded"]
        if truth is not None and degraded is not None:
            relative = place.relative_to(folder)
            kind = relative.parts[0] if len(relative.parts) > 1 else "all"
            cases.append(Case(str(relative), kind, truth, degraded, found["mix"]))
    if not cases:
        raise InputError(f"{folder}: holds no case; a case is a folder with truth.wav and degraded.wav (and mix.wav)")
    return cases


def _first(folder: Path, names: Sequence[str]) -> Path | None:
    there = {path.stem.lower(): path for path in sorted(folder.iterdir()) if path.suffix.lower() in _AUDIO}
    return next((there[name] for name in names if name in there), None)


def validate(
    cases: Sequence[Case],
    choose: Callable[[Case], tuple[ChunkRepairer, Preset]],
    *,
    also: Sequence[str] = (),
    brief: bool = False,
    progress: Progress | None = None,
) -> tuple[list[CaseResult], list[Excerpt]]:
    """Repair every case and measure it; excerpts of the ten cases that gained least, the worst first.

    also: names of scorecard.EXTRAS. brief: as in `scorecard.measure`. progress: called with the cases done and those
    in all. Raises what `render_file` and `compare_files` raise.
    """
    results: list[CaseResult] = []
    with tempfile.TemporaryDirectory(prefix="stemprover-") as scratch:
        repaired = {case.name: Path(scratch) / f"{number}.wav" for number, case in enumerate(cases)}
        same = Path(scratch) / "clean.wav"
        for case in cases:
            repairer, preset = choose(case)
            for source, target in ((case.degraded, repaired[case.name]), (case.truth, same)):
                render_file(source, target, repairer, mix=case.mix, preset=preset, overwrite=True)
            compared = compare_files(case.degraded, repaired[case.name], case.truth, case.mix, also=also, brief=brief)
            results.append(CaseResult(case, compared.rows, median_sdr(same, case.truth), compared.notes))
            kept = {result.case.name for result in worst(results)}
            for name, path in repaired.items():
                if name not in kept:
                    path.unlink(missing_ok=True)
            if progress is not None:
                progress(len(results), len(cases))
        return results, [_excerpt(result, repaired[result.case.name]) for result in worst(results)]


def _excerpt(result: CaseResult, repaired: Path) -> Excerpt:
    """From the first minute."""
    case, rate = result.case, probe(result.case.truth).sample_rate
    paths = {"Before": case.degraded, "After": repaired, "True stem": case.truth}
    sounds = {name: read_start(path, round(SEARCHED_S * rate)) for name, path in paths.items()}
    length = min(sound.shape[1] for sound in sounds.values())
    size = min(length, round(EXCERPT_S * rate))
    gains: dict[int, float] = {}
    for start in range(0, length - size + 1, max(1, size // 2)):
        before, after, truth = (sound[:, start : start + size] for sound in sounds.values())
        if (gain := si_sdr(after, truth) - si_sdr(before, truth)) == gain:
            gains[start] = gain
    start = min(gains, key=lambda key: gains[key], default=0)
    cut = {name: sound[:, start : start + size] for name, sound in sounds.items()}
    return Excerpt(result, start / rate, rate, cut)


def worst(results: Sequence[CaseResult]) -> list[CaseResult]:
    """The ten that gained least SI-SDR, the worst first."""
    sure = [result for result in results if not np.isnan(result.gain("SI-SDR"))]
    return sorted(sure, key=lambda result: result.gain("SI-SDR"))[:WORST]


def summarise(results: Sequence[CaseResult], seed: int = 0) -> list[Summary]:
    """A row for each type and measure; types in the order of their names, "every type" last if there are several."""
    kinds = sorted({result.case.kind for result in results})
    groups = {kind: [result for result in results if result.case.kind == kind] for kind in kinds}
    if len(kinds) > 1:
        groups["every type"] = list(results)
    summaries = []
    for kind, group in groups.items():
        own = f"Detected {kind}"
        for measure in (*MEASURES, own):
            sure = [result for result in group if np.isfinite(result.gain(measure))]
            gains = np.array([result.gain(measure) for result in sure])
            rows = [row for result in sure for row in result.rows if row.name == measure]
            if len(gains):
                low, high = bootstrap_interval(gains, seed)
                before, after = (float(np.median([getattr(row, when) for row in rows])) for when in ("before", "after"))
                summaries.append(
                    Summary(
                        kind, measure, len(gains), before, after, float(gains.mean()), low, high,
                        float(np.median(gains)), float(np.mean(gains > 0)),
                    )
                )  # fmt: skip
    return summaries


def bootstrap_interval(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95% interval of the mean by resampling (Efron, Bootstrap methods, 1979). Of one value: that value."""
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (RESAMPLES, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def harmed(results: Sequence[CaseResult]) -> float:
    """Share of the cases that lost over 0.2 dB of SI-SDR."""
    gains = np.array([result.gain("SI-SDR") for result in results])
    gains = gains[~np.isnan(gains)]  # a clean stem that was changed has lost without limit, and counts
    return float(np.mean(gains < -HARM_DB)) if len(gains) else 0.0


def clean_sdr_db(results: Sequence[CaseResult]) -> tuple[float, float]:
    """How true stems come back, against themselves: median and worst, inf for the same samples."""
    found = sorted(result.clean_sdr_db for result in results if not np.isnan(result.clean_sdr_db))
    return (found[(len(found) - 1) // 2], found[0]) if found else (float("nan"), float("nan"))

"""`stemprover validate`: repairs cases whose true stems are known and measures the effect on each type of artefact.

A case is a folder with a true stem (`truth.*`), a degraded one (`degraded.*`) and, optionally, the mix (`mix.*`). Cases
may be grouped in folders by type: FOLDER/bleed/0001/truth.wav.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ..engine.errors import InputError
from ..engine.metrics.basic import si_sdr
from ..engine.stem_names import role_of
from ..offline.audiofile import probe, read_start
from ..offline.auto import RepairerChoice
from ..offline.pair import StemAndMix
from ..offline.render import Progress, render_file, render_pair
from .compare import Row, compare_pair, median_sdr

MEASURES = (
    "SI-SDR",
    "Log-spectral distance",
    "Level in pauses",
    "Bleedless",
    "Fullness",
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
    """A degraded stem with its true stem and, if there is one, its mix. kind: the type of artefact. The role of the
    stem is in the name of its folder or kind, as in bleed/song-vocals and separated-vocals/001."""

    name: str
    kind: str
    truth: Path
    degraded: Path
    mix: Path | None

    @property
    def role(self) -> str | None:
        """One of stem_names.ROLES, None if it is not known."""
        return role_of(self.degraded.parent.name, self.kind)


@dataclass(frozen=True)
class CaseResult:
    """The effect of the repair on one case. clean_sdr_db: SDR of the true stem after the same repair, against itself.
    notes: about the alignment of the mix."""

    case: Case
    rows: tuple[Row, ...]
    clean_sdr_db: float
    notes: tuple[str, ...] = ()

    def gain(self, name: str) -> float:
        """By how much a measure improved (negative: got worse); nan if it was not measured."""
        for row in self.rows:
            if row.name == name:
                return row.after - row.before if row.better == "higher" else row.before - row.after
        return float("nan")


@dataclass(frozen=True)
class Summary:
    """One measure over all cases of a type.

    before, after: medians. gain: mean gain, positive if better, with its 95% bootstrap interval low to high
    (percentiles; Efron 1979). median_gain: median of the gains of the cases. improved: fraction of cases that improved.
    """

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
    """The five seconds of a case that gained least or lost most. signals (C, T): by label."""

    result: CaseResult
    start_s: float
    sample_rate: int
    signals: dict[str, np.ndarray]


def find_cases(folder: Path) -> list[Case]:
    """All cases in a folder and its subfolders, sorted by name. Raises InputError if there are none."""
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder")
    cases = []
    for place in sorted(path for path in [folder, *folder.rglob("*")] if path.is_dir()):
        files = {role: _first(place, names) for role, names in _NAMES.items()}
        truth, degraded = files["truth"], files["degraded"]
        if truth is not None and degraded is not None:
            relative = place.relative_to(folder)
            kind = relative.parts[0] if len(relative.parts) > 1 else "all"
            cases.append(Case(str(relative), kind, truth, degraded, files["mix"]))
    if not cases:
        hint = "a case is a folder with truth.wav, degraded.wav and, optionally, mix.wav"
        raise InputError(f"{folder} contains no cases; {hint}")
    return cases


def _first(folder: Path, names: Sequence[str]) -> Path | None:
    files = {path.stem.lower(): path for path in sorted(folder.iterdir()) if path.suffix.lower() in _AUDIO}
    return next((files[name] for name in names if name in files), None)


def validate(
    cases: Sequence[Case],
    choice: RepairerChoice,
    *,
    also: Sequence[str] = (),
    brief: bool = False,
    progress: Progress | None = None,
) -> tuple[list[CaseResult], list[Excerpt]]:
    """Repair and measure every case. Returns the results, and excerpts of the ten cases that gained least, worst first.

    also: names from scorecard.EXTRAS. brief: as in `scorecard.measure`. progress: called with the cases done and the
    cases in total. Raises what `render_file` and `compare_pair` raise.
    """
    results: list[CaseResult] = []
    with tempfile.TemporaryDirectory(prefix="stemprover-") as scratch:
        repaired = {case.name: Path(scratch) / f"{number}.wav" for number, case in enumerate(cases)}
        clean = Path(scratch) / "clean.wav"
        for case in cases:
            pair = StemAndMix.open(case.degraded, case.mix, role=case.role)
            repairer, preset = choice if isinstance(choice, tuple) else choice(pair)
            render_pair(pair, repaired[case.name], repairer, preset=preset, overwrite=True)
            render_file(case.truth, clean, repairer, mix=case.mix, preset=preset, role=case.role, overwrite=True)
            compared = compare_pair(pair, repaired[case.name], case.truth, also=also, brief=brief)
            results.append(CaseResult(case, compared.rows, median_sdr(clean, case.truth), compared.notes))
            kept = {result.case.name for result in worst_cases(results)}
            for name, path in repaired.items():
                if name not in kept:
                    path.unlink(missing_ok=True)
            if progress is not None:
                progress(len(results), len(cases))
        return results, [_excerpt(result, repaired[result.case.name]) for result in worst_cases(results)]


def _excerpt(result: CaseResult, repaired: Path) -> Excerpt:
    """The excerpt is taken from the first minute."""
    case, rate = result.case, probe(result.case.truth).sample_rate
    paths = {"Before": case.degraded, "After": repaired, "True stem": case.truth}
    signals = {label: read_start(path, round(SEARCHED_S * rate)) for label, path in paths.items()}
    length = min(signal.shape[1] for signal in signals.values())
    size = min(length, round(EXCERPT_S * rate))
    gains: dict[int, float] = {}
    for start in range(0, length - size + 1, max(1, size // 2)):
        before, after, truth = (signal[:, start : start + size] for signal in signals.values())
        if (gain := si_sdr(after, truth) - si_sdr(before, truth)) == gain:
            gains[start] = gain
    start = min(gains, key=lambda key: gains[key], default=0)
    excerpts = {label: signal[:, start : start + size] for label, signal in signals.items()}
    return Excerpt(result, start / rate, rate, excerpts)


def worst_cases(results: Sequence[CaseResult]) -> list[CaseResult]:
    """The ten cases that gained least SI-SDR, worst first."""
    measured = [result for result in results if not np.isnan(result.gain("SI-SDR"))]
    return sorted(measured, key=lambda result: result.gain("SI-SDR"))[:WORST]


def summarise(results: Sequence[CaseResult], seed: int = 0) -> list[Summary]:
    """One summary for each type and measure. Types are sorted by name; "every type" comes last if there are several."""
    kinds = sorted({result.case.kind for result in results})
    groups = {kind: [result for result in results if result.case.kind == kind] for kind in kinds}
    if len(kinds) > 1:
        groups["every type"] = list(results)
    summaries = []
    for kind, group in groups.items():
        for measure in (*MEASURES, f"Detected {kind}"):
            measured = [result for result in group if np.isfinite(result.gain(measure))]
            gains = np.array([result.gain(measure) for result in measured])
            rows = [row for result in measured for row in result.rows if row.name == measure]
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
    """95% interval of the mean by resampling (Efron, Bootstrap methods, 1979); for a single value, the value itself."""
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (RESAMPLES, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def harmed_fraction(results: Sequence[CaseResult]) -> float:
    """Fraction of the cases that lost more than 0.2 dB of SI-SDR."""
    gains = np.array([result.gain("SI-SDR") for result in results])
    gains = gains[~np.isnan(gains)]  # keeps -inf: a perfect stem that was changed counts as harmed
    return float(np.mean(gains < -HARM_DB)) if len(gains) else 0.0


def describe_clean_stems(results: Sequence[CaseResult]) -> str:
    """How little the repair changes true stems, in words."""
    ratios = sorted(result.clean_sdr_db for result in results if not np.isnan(result.clean_sdr_db))
    if not ratios:
        return "Repaired true stems could not be measured"
    median, worst = ratios[(len(ratios) - 1) // 2], ratios[0]
    if worst == np.inf:
        return "True stems come back unchanged"
    return f"Repaired true stems match the originals at {median:.1f} dB SDR (median), {worst:.1f} dB (worst)"

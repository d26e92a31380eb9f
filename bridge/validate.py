"""`stemprover validate`: repairs a folder of cases whose true stems are known, and says what that did to each type.

A case is a folder with a true stem (`truth.*`), a degraded one (`degraded.*`) and, where there is one, the song
(`mix.*`). Cases may stand in a folder of their type: FOLDER/bleed/0001/truth.wav.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from ..engine.errors import InputError
from .audiofile import probe
from .compare import Comparison, Row, compare_files, median_sdr, write_picture
from .outfile import atomic_output
from .plan import make_folder
from .presets import Preset
from .render import ChunkRepairer, Progress, render_file

MEASURES = ("SI-SDR", "Log-spectral distance", "Multi-resolution STFT distance", "Phase agreement", "Onset error")
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
    """What the repair did to one case; clean_sdr_db: the true stem sent through the same repair, against itself."""

    case: Case
    rows: tuple[Row, ...]
    clean_sdr_db: float

    def gain(self, name: str) -> float:
        """How much better a measure got; nan where it was not measured."""
        for row in self.rows:
            if row.name == name:
                return row.after - row.before if row.better == "higher" else row.before - row.after
        return float("nan")


@dataclass(frozen=True)
class Summary:
    """One measure over the cases of one type: medians before and after, and the mean gain (more is better) with its 95%
    bootstrap interval (percentiles; Efron 1979); improved: share of cases."""

    kind: str
    measure: str
    cases: int
    before: float
    after: float
    gain: float
    low: float
    high: float
    improved: float


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
    pictures: Path | None = None,
    progress: Progress | None = None,
) -> list[CaseResult]:
    """Repair every case and measure it. pictures: a folder for spectrograms of the ten cases that gained least.

    progress: called with the cases done and the cases in all. Raises what `render_file` and `compare_files` raise.
    """
    results = []
    with tempfile.TemporaryDirectory(prefix="stemprover-") as scratch:
        for number, case in enumerate(cases):
            repairer, preset = choose(case)
            repaired, same = (Path(scratch) / f"{number}-{name}.wav" for name in ("repaired", "clean"))
            for source, target in ((case.degraded, repaired), (case.truth, same)):
                render_file(source, target, repairer, mix=case.mix, preset=preset)
            compared = compare_files(case.degraded, repaired, case.truth, case.mix)
            results.append(CaseResult(case, compared.rows, median_sdr(same, case.truth)))
            same.unlink()
            if progress is not None:
                progress(number + 1, len(cases))
        if pictures is not None:
            for rank, result in enumerate(worst(results), start=1):
                number = results.index(result)
                pair = Comparison(
                    result.case.degraded,
                    Path(scratch) / f"{number}-repaired.wav",
                    result.case.truth,
                    result.case.mix,
                    probe(result.case.degraded).duration_s,
                    result.rows,
                )
                name = result.case.name.replace("/", "-").replace("\\", "-")
                write_picture(pair, pictures / f"worst-{rank:02d}-{name}.png", overwrite=True)
    return results


def worst(results: Sequence[CaseResult]) -> list[CaseResult]:
    """The ten that gained least SI-SDR, the worst first."""
    sure = [result for result in results if np.isfinite(result.gain("SI-SDR"))]
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
            rows = [row for result in group for row in result.rows if row.name == measure]
            gains = np.array([result.gain(measure) for result in group])
            gains = gains[np.isfinite(gains)]
            if len(gains):
                low, high = bootstrap_interval(gains, seed)
                before, after = (float(np.median([getattr(row, when) for row in rows])) for when in ("before", "after"))
                summaries.append(
                    Summary(
                        kind, measure, len(gains), before, after, float(gains.mean()), low, high,
                        float(np.mean(gains > 0)),
                    )
                )  # fmt: skip
    return summaries


def bootstrap_interval(values: np.ndarray, seed: int = 0) -> tuple[float, float]:
    """95% interval of the mean by resampling (Efron, Bootstrap methods, 1979). Of one value: that value."""
    rng = np.random.default_rng(seed)
    means = values[rng.integers(0, len(values), (RESAMPLES, len(values)))].mean(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return float(low), float(high)


def write_report(results: Sequence[CaseResult], folder: Path) -> Path:
    """report.json with all summaries, cases and the worst ones. Raises OutputError."""
    make_folder(folder)
    target = folder / "report.json"
    about = {
        "summaries": [asdict(summary) for summary in summarise(results)],
        "worst": [result.case.name for result in worst(results)],
        "cases": [
            {
                "name": result.case.name,
                "kind": result.case.kind,
                "clean_sdr_db": _finite(result.clean_sdr_db),
                "measures": {row.name: [_finite(row.before), _finite(row.after)] for row in result.rows},
            }
            for result in results
        ],
    }
    with atomic_output(target, (), overwrite=True) as part:
        part.write_text(json.dumps(about, indent=1, allow_nan=False) + "\n")
    return target


def _finite(value: float) -> float | None:
    return round(value, 5) if np.isfinite(value) else None

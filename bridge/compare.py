"""`stemprover compare`: a stem before and after a repair, in figures and a picture."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..engine import spectral_metrics as spectral
from ..engine.detect.analysis import Analyser
from ..engine.fifo import Fifo
from ..engine.metrics import log_spectral_distance, sdr, si_sdr
from .audiofile import AudioInfo, AudioReader, check_finite, probe, read_start
from .outfile import atomic_output
from .picture import draw_spectrograms
from .render import MixSource, Progress, check_mix

WINDOW_S = 10.0
PICTURE_S = 60.0
QUIET_DB = -50.0


def _channel_level(x: np.ndarray, s: np.ndarray, sample_rate: int) -> float:
    errors = spectral.channel_errors(x, s, sample_rate)
    return math.nan if errors is None else errors[0]


def _channel_phase(x: np.ndarray, s: np.ndarray, sample_rate: int) -> float:
    errors = spectral.channel_errors(x, s, sample_rate)
    return math.nan if errors is None else errors[1]


# Name, unit, which way is better, measure of (sound, true stem, sample rate).
WITH_TRUTH: tuple[tuple[str, str, str, Callable[[np.ndarray, np.ndarray, int], float]], ...] = (
    ("SI-SDR", "dB", "higher", lambda x, s, _: si_sdr(x, s)),
    ("SDR", "dB", "higher", lambda x, s, _: sdr(x, s)),
    ("Log-spectral distance", "dB", "lower", lambda x, s, _: log_spectral_distance(x, s)),
    ("Multi-resolution STFT distance", "", "lower", lambda x, s, _: spectral.multi_resolution_distance(x, s)),
    ("Frequency response error", "dB", "lower", spectral.band_response_error_db),
    ("Phase agreement", "", "higher", lambda x, s, _: spectral.phase_agreement(x, s)),
    ("Instantaneous frequency agreement", "", "higher", lambda x, s, _: spectral.frequency_agreement(x, s)),
    ("Group delay agreement", "", "higher", lambda x, s, _: spectral.delay_agreement(x, s)),
    ("Channel level error", "dB", "lower", _channel_level),
    ("Channel phase error", "rad", "lower", _channel_phase),
    ("Onset error", "", "lower", spectral.onset_error),
)


@dataclass(frozen=True)
class Row:
    """One measure before and after. better: "higher", "lower", or "" where neither is."""

    name: str
    unit: str
    better: str
    before: float
    after: float

    @property
    def verdict(self) -> str:
        """ "better", "worse", or "" where nothing changed or neither way is better."""
        change = self.after - self.before
        if not self.better or not abs(change) > 1e-9:
            return ""
        return "better" if (change > 0) == (self.better == "higher") else "worse"


@dataclass(frozen=True)
class Comparison:
    """Medians over windows of ten seconds, and the detectors' scores over the whole."""

    before: Path
    after: Path
    reference: Path | None
    mix: Path | None
    duration_s: float
    rows: tuple[Row, ...]


def compare_files(
    before: Path,
    after: Path,
    reference: Path | None = None,
    mix: Path | None = None,
    *,
    progress: Progress | None = None,
) -> Comparison:
    """Raises AudioFileError, and MixMismatchError where a file does not belong to `before`. Memory does not grow with
    the length."""
    paths = {"before": before, "after": after, "reference": reference, "mix": mix}
    infos = {name: probe(path) for name, path in paths.items() if path is not None}
    first = infos["before"]
    for info in infos.values():
        check_mix(first, info)
        check_finite(info)
    found: dict[str, list[tuple[float, float]]] = {}
    analysers = {name: Analyser(first.sample_rate, first.channels, mix is not None) for name in ("before", "after")}
    done = 0
    for sounds in _windows(infos):
        for name, analyser in analysers.items():
            analyser.process(sounds[name], sounds.get("mix"))
        for name, values in _measure(sounds, first.sample_rate).items():
            found.setdefault(name, []).append(values)
        done += sounds["before"].shape[1]
        if progress is not None:
            progress(done / first.sample_rate, first.duration_s)
    better = {name: (unit, way) for name, unit, way, _ in WITH_TRUTH} | {
        "Spectral flatness": ("dB", ""),
        "Kurtosis ratio (musical noise over 0)": ("", "lower"),
        "Beyond the song": ("dB", ""),
    }
    rows = [Row(name, *better[name], *_medians(values)) for name, values in found.items()]
    rows = [row for row in rows if not math.isnan(row.before)]  # channels of a mono file, for instance
    findings = [analyser.finish().findings for analyser in analysers.values()]
    for a, b in zip(*findings, strict=True):
        if a.known:
            rows.append(Row(f"Detected {a.kind}", "", "lower", a.score, b.score))
    return Comparison(before, after, reference, mix, first.duration_s, tuple(rows))


def median_sdr(sound: Path, reference: Path) -> float:
    """SDR in dB, the median over the same windows. Raises as `compare_files`."""
    infos = {"before": probe(sound), "reference": probe(reference)}
    check_mix(infos["before"], infos["reference"])
    found = [(sdr(part["before"], part["reference"]),) * 2 for part in _windows(infos)]
    return _medians(found)[0]


def _windows(infos: dict[str, AudioInfo]) -> Iterator[dict[str, np.ndarray]]:
    """Equal stretches of all files; what is shorter than the first is filled up with silence."""
    first = infos["before"]
    size = round(WINDOW_S * first.sample_rate)
    with ExitStack() as stack:
        reader = stack.enter_context(AudioReader(first))
        others = {name: MixSource(info, ()) for name, info in infos.items() if name != "before"}
        fifo, ready = Fifo(), 0

        def cut(count: int) -> dict[str, np.ndarray]:
            return {"before": fifo.pop(count), **{name: other.take(count) for name, other in others.items()}}

        for native in reader.blocks():
            fifo.push(reader.codec.decode(native))
            ready += native.shape[1]
            while ready >= 2 * size:  # so that the last one is not a scrap
                yield cut(size)
                ready -= size
        if ready:
            yield cut(ready)


def _measure(sounds: dict[str, np.ndarray], sample_rate: int) -> dict[str, tuple[float, float]]:
    before, after = sounds["before"], sounds["after"]
    found = {}
    if (truth := sounds.get("reference")) is not None and truth.any():
        for name, _, _, measure in WITH_TRUTH:
            found[name] = (measure(before, truth, sample_rate), measure(after, truth, sample_rate))
    found["Spectral flatness"] = (spectral.spectral_flatness_db(before), spectral.spectral_flatness_db(after))
    found["Kurtosis ratio (musical noise over 0)"] = (0.0, spectral.kurtosis_ratio(after, before))
    if (song := sounds.get("mix")) is not None:
        found["Beyond the song"] = (spectral.beyond_song_db(before, song), spectral.beyond_song_db(after, song))
    return found


def _medians(values: list[tuple[float, float]]) -> tuple[float, float]:
    table = np.array(values, np.float64)
    sure = table[~np.isnan(table).any(axis=1)]
    if not len(sure):
        return math.nan, math.nan
    middle = np.sort(sure, axis=0)[(len(sure) - 1) // 2]  # no mean of two, so that an infinite one stays what it is
    return float(middle[0]), float(middle[1])


def as_json(comparison: Comparison) -> dict[str, Any]:
    """For other programs; what is not a finite number becomes null."""
    return {
        "before": str(comparison.before),
        "after": str(comparison.after),
        "reference": None if comparison.reference is None else str(comparison.reference),
        "mix": None if comparison.mix is None else str(comparison.mix),
        "duration_s": round(comparison.duration_s, 3),
        "measures": {
            row.name: {
                "unit": row.unit,
                "better": row.better,
                "before": round(row.before, 5) if math.isfinite(row.before) else None,
                "after": round(row.after, 5) if math.isfinite(row.after) else None,
            }
            for row in comparison.rows
        },
    }


def write_json(comparison: Comparison, target: Path, *, overwrite: bool) -> None:
    """Raises OutputExistsError, OutputError."""
    with atomic_output(target, inputs_of(comparison), overwrite=overwrite) as part:
        part.write_text(json.dumps(as_json(comparison), indent=1) + "\n")


def write_picture(comparison: Comparison, target: Path, *, overwrite: bool) -> None:
    """Spectrograms before, after and, where there is one, of the true stem: the first minute. Raises
    OutputExistsError, OutputError."""
    named = {"Before": comparison.before, "After": comparison.after, "True stem": comparison.reference}
    info = probe(comparison.before)
    count = round(PICTURE_S * info.sample_rate)
    sounds = {name: read_start(path, count) for name, path in named.items() if path is not None}
    with atomic_output(target, inputs_of(comparison), overwrite=overwrite) as part:
        draw_spectrograms(sounds, info.sample_rate, part)


def inputs_of(comparison: Comparison) -> list[Path]:
    """The files that a comparison is of, none of which may be written over."""
    paths = (comparison.before, comparison.after, comparison.reference, comparison.mix)
    return [path for path in paths if path is not None]

"""`stemprover compare`: measures a stem before and after a repair; as a table, JSON, a figure and a page."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..engine.detect.analysis import Analyser
from ..engine.dsp.fifo import Fifo
from ..engine.errors import OptionError
from ..engine.metrics.basic import sdr
from ..engine.metrics.scorecard import MEASURE_INFO, check_extras, measure
from ..offline.audiofile import AudioInfo, AudioReader, check_finite, probe, read_start
from ..offline.mix_reader import MixReader
from ..offline.outfile import atomic_output
from ..offline.pair import StemAndMix, check_match
from ..offline.render import Progress
from .page import make_page, paragraph, player_section, table
from .spectrogram import draw_spectrograms

WINDOW_S = 10.0
SHOWN = 0.0005  # smaller changes count as none
FIGURE_S = 60.0
LISTEN_S = 90.0
_WHAT = {"after": "the stem after a repair", "reference": "the true stem"}


@dataclass(frozen=True)
class Row:
    """One measure before and after the repair. better: "higher", "lower", or "" if neither is better."""

    name: str
    unit: str
    better: str
    before: float
    after: float

    @property
    def verdict(self) -> str:
        """ "better", "worse", or "" if nothing changed or neither direction is better."""
        change = self.after - self.before
        if not self.better or not abs(change) >= SHOWN:
            return ""
        return "better" if (change > 0) == (self.better == "higher") else "worse"


@dataclass(frozen=True)
class Comparison:
    """Medians of each measure over windows of ten seconds, and the detectors' scores for the whole files. Without the
    true stem they say what changed, and nothing of whether that is better. notes: about the alignment of the mix."""

    before: Path
    after: Path
    reference: Path | None
    mix: Path | None
    duration_s: float
    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()


def compare_files(
    before: Path,
    after: Path,
    reference: Path | None = None,
    mix: Path | None = None,
    *,
    also: Sequence[str] = (),
    brief: bool = False,
    progress: Progress | None = None,
) -> Comparison:
    """Measure a stem before and after a repair. Memory does not grow with the length of the files.

    reference: the true stem. also: names from scorecard.EXTRAS, which need the true stem. brief: as in
    `scorecard.measure`. progress: called with the seconds done and the seconds in total.
    Raises AudioFileError, MixMismatchError for a file that does not match `before`, OptionError, and
    ModuleNotFoundError if the package of an extra is missing.
    """
    _check_also(also, reference)
    others = _probe_others(probe(before), after, reference)
    return _compare(StemAndMix.open(before, mix), others, also, brief, progress)


def compare_pair(
    pair: StemAndMix,
    after: Path,
    reference: Path | None = None,
    *,
    also: Sequence[str] = (),
    brief: bool = False,
    progress: Progress | None = None,
) -> Comparison:
    """`compare_files` for a stem and mix that are already aligned."""
    _check_also(also, reference)
    return _compare(pair, _probe_others(pair.stem, after, reference), also, brief, progress)


def _check_also(also: Sequence[str], reference: Path | None) -> None:
    check_extras(also)
    if also and reference is None:
        raise OptionError(f"--also {','.join(also)} needs the true stem (--reference FILE)")


def _probe_others(before: AudioInfo, after: Path, reference: Path | None) -> dict[str, AudioInfo]:
    """The files to compare the stem with, checked."""
    paths = {"after": after, "reference": reference}
    others = {name: probe(path) for name, path in paths.items() if path is not None}
    for name, info in others.items():
        check_match(before, info, _WHAT[name])
        check_finite(info)
    return others


def _compare(
    pair: StemAndMix, others: Mapping[str, AudioInfo], also: Sequence[str], brief: bool, progress: Progress | None
) -> Comparison:
    first, has_mix = pair.stem, pair.open_mix() is not None
    measured: dict[str, list[tuple[float, float]]] = {}
    analysers = {name: Analyser(first.sample_rate, first.channels, has_mix) for name in ("before", "after")}
    done = 0
    for window in _windows(pair, others):
        for name, analyser in analysers.items():
            analyser.process(window[name], window.get("mix"))
        signals = window["before"], window["after"], window.get("reference"), window.get("mix")
        for name, values in measure(*signals, first.sample_rate, also, brief).items():
            measured.setdefault(name, []).append(values)
        done += window["before"].shape[1]
        if progress is not None:
            progress(done / first.sample_rate, first.duration_s)
    rows = [Row(name, *MEASURE_INFO[name], *_medians(values)) for name, values in measured.items()]
    rows = [row for row in rows if not math.isnan(row.before)]  # nothing to measure, for instance in silence
    findings = [analyser.finish().findings for analyser in analysers.values()]
    for a, b in zip(*findings, strict=True):
        if a.known:
            rows.append(Row(f"Detected {a.kind}", "", "lower", a.score, b.score))
    reference = others["reference"].path if "reference" in others else None
    if reference is None:
        rows = [replace(row, better="") for row in rows]
    mix = None if pair.mix is None else pair.mix.path
    return Comparison(first.path, others["after"].path, reference, mix, first.duration_s, tuple(rows), notes=pair.notes)


def median_sdr(stem: Path, reference: Path) -> float:
    """Median SDR in dB over the same windows. Raises as `compare_files`."""
    pair, truth = StemAndMix(probe(stem)), probe(reference)
    check_match(pair.stem, truth, _WHAT["reference"])
    ratios = [(sdr(window["before"], window["reference"]),) * 2 for window in _windows(pair, {"reference": truth})]
    return _medians(ratios)[0]


def _windows(pair: StemAndMix, others: Mapping[str, AudioInfo]) -> Iterator[dict[str, np.ndarray]]:
    """Windows (C, n) of all files, by name: "before" and "mix" for the pair, and the others, padded with silence to the
    length of the stem."""
    first = pair.stem
    size = round(WINDOW_S * first.sample_rate)
    readers, mix, waiting = {name: MixReader(info) for name, info in others.items()}, pair.open_mix(), Fifo()

    def cut(count: int) -> dict[str, np.ndarray]:
        stem = waiting.pop(count)
        window = {"before": stem, **{name: reader.take(count) for name, reader in readers.items()}}
        return window if mix is None else {**window, "mix": mix.take(stem.shape[1])}

    with AudioReader(first) as reader:
        for native in reader.blocks():
            waiting.push(reader.codec.decode(native))
            while len(waiting) >= 2 * size:  # so that the last window is not too short
                yield cut(size)
        if rest := len(waiting):
            yield cut(rest)


def _medians(values: list[tuple[float, float]]) -> tuple[float, float]:
    pairs = np.array(values, np.float64)
    pairs = pairs[~np.isnan(pairs).any(axis=1)]
    if not len(pairs):
        return math.nan, math.nan
    middle = np.sort(pairs, axis=0)[(len(pairs) - 1) // 2]  # the lower median: the mean of two could be infinite
    return float(middle[0]), float(middle[1])


def as_json(comparison: Comparison) -> dict[str, Any]:
    """The result for other programs. Infinite values become null."""
    return {
        "before": str(comparison.before),
        "after": str(comparison.after),
        "reference": None if comparison.reference is None else str(comparison.reference),
        "mix": None if comparison.mix is None else str(comparison.mix),
        "duration_s": round(comparison.duration_s, 3),
        "notes": list(comparison.notes),
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
    """Write the JSON file. Raises OutputExistsError, OutputError."""
    with atomic_output(target, _inputs(comparison), overwrite=overwrite) as part:
        part.write_text(json.dumps(as_json(comparison), indent=1) + "\n")


def write_figure(comparison: Comparison, target: Path, *, overwrite: bool) -> None:
    """Write a PNG with the spectrograms of the first minute: before, after and, if there is one, the true stem. Raises
    OutputExistsError, OutputError."""
    signals, sample_rate = _beginnings(comparison, FIGURE_S)
    with atomic_output(target, _inputs(comparison), overwrite=overwrite) as part:
        draw_spectrograms(signals, sample_rate, part)


def _beginnings(comparison: Comparison, seconds: float) -> tuple[dict[str, np.ndarray], int]:
    """The beginnings of the compared files (C, T) by label, and the sample rate."""
    named = {"Before": comparison.before, "After": comparison.after, "True stem": comparison.reference}
    sample_rate = probe(comparison.before).sample_rate
    count = round(seconds * sample_rate)
    return {name: read_start(path, count) for name, path in named.items() if path is not None}, sample_rate


def comparison_body(signals: Mapping[str, np.ndarray], sample_rate: int, rows: Sequence[Row]) -> list[str]:
    """The body of a page: a player for signals (C, T) by label, and the measures."""
    return [player_section(signals, sample_rate), rows_table(rows)]


def rows_table(rows: Sequence[Row]) -> str:
    """The measures as a table for a page."""
    lines = [
        (
            f"{row.name} ({row.unit})" if row.unit else row.name,
            f"{row.before:.3f}",
            f"{row.after:.3f}",
            f"{row.after - row.before:+.3f} {row.verdict}".strip(),
        )
        for row in rows
    ]
    return table(("Measure", "Before", "After", "Change"), lines, [row.verdict for row in rows])


WITHOUT_TRUTH = "Without the true stem, the figures say what changed, not whether it is better: listen."


def write_page(comparison: Comparison, target: Path, *, overwrite: bool) -> None:
    """Write a page with the first minute and a half of each file. Raises OutputExistsError, OutputError."""
    signals, sample_rate = _beginnings(comparison, LISTEN_S)
    body = comparison_body(signals, sample_rate, comparison.rows)
    if comparison.reference is None:
        body.append(paragraph(WITHOUT_TRUTH))
    text = make_page(comparison.before.name, body)
    with atomic_output(target, _inputs(comparison), overwrite=overwrite) as part:
        part.write_text(text, encoding="utf-8")


def _inputs(comparison: Comparison) -> list[Path]:
    """The compared files, none of which an output may replace."""
    paths = (comparison.before, comparison.after, comparison.reference, comparison.mix)
    return [path for path in paths if path is not None]

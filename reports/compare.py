"""`stemprover compare`: a stem before and after a repair, in figures and a picture."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..engine.detect.analysis import Analyser
from ..engine.dsp.fifo import Fifo
from ..engine.errors import OptionError
from ..engine.metrics.basic import sdr
from ..engine.metrics.scorecard import KINDS, check_extras, measure
from ..offline.alignment import Alignment, align_files, alignment_notes
from ..offline.audiofile import AudioInfo, AudioReader, check_finite, probe, read_start
from ..offline.mix_reader import MixSource
from ..offline.outfile import atomic_output
from ..offline.render import Progress, check_mix
from .page import listener, make_page, table
from .spectrogram import draw_spectrograms

WINDOW_S = 10.0
SHOWN = 0.0005  # a smaller change is shown as none
PICTURE_S = 60.0
LISTEN_S = 90.0
_WHAT = {"after": "the stem after a repair", "reference": "the true stem"}


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
        if not self.better or not abs(change) >= SHOWN:
            return ""
        return "better" if (change > 0) == (self.better == "higher") else "worse"


@dataclass(frozen=True)
class Comparison:
    """Medians over windows of ten seconds, and the detectors' scores over the whole. notes: on where the song lies."""

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
    """`also`: names of scorecard.EXTRAS, which need the true stem. `brief`: as in `scorecard.measure`.

    Memory does not grow with the length. Raises AudioFileError, MixMismatchError where a file does not belong to
    `before`, OptionError, and ModuleNotFoundError where the package of an extra is missing.
    """
    check_extras(also)
    if also and reference is None:
        raise OptionError(f"{', '.join(also)}: measured against the true stem; give it with --reference")
    paths = {"before": before, "after": after, "reference": reference, "mix": mix}
    infos = {name: probe(path) for name, path in paths.items() if path is not None}
    first = infos["before"]
    for name, info in infos.items():
        check_mix(first, info, _WHAT.get(name, ""))
        check_finite(info)
    alignment = align_files(first, infos["mix"]) if "mix" in infos else None
    notes = [] if alignment is None else alignment_notes(alignment, first, infos["mix"])
    if alignment is not None and not alignment.heard:
        del infos["mix"]
    found: dict[str, list[tuple[float, float]]] = {}
    analysers = {name: Analyser(first.sample_rate, first.channels, "mix" in infos) for name in ("before", "after")}
    done = 0
    for sounds in _windows(infos, alignment):
        for name, analyser in analysers.items():
            analyser.process(sounds[name], sounds.get("mix"))
        truth, song = sounds.get("reference"), sounds.get("mix")
        both = sounds["before"], sounds["after"]
        for name, values in measure(*both, truth, song, first.sample_rate, also, brief).items():
            found.setdefault(name, []).append(values)
        done += sounds["before"].shape[1]
        if progress is not None:
            progress(done / first.sample_rate, first.duration_s)
    rows = [Row(name, *KINDS[name], *_medians(values)) for name, values in found.items()]
    rows = [row for row in rows if not math.isnan(row.before)]  # channels of a mono file, for instance
    findings = [analyser.finish().findings for analyser in analysers.values()]
    for a, b in zip(*findings, strict=True):
        if a.known:
            rows.append(Row(f"Detected {a.kind}", "", "lower", a.score, b.score))
    return Comparison(before, after, reference, mix, first.duration_s, tuple(rows), tuple(notes))


def median_sdr(sound: Path, reference: Path) -> float:
    """SDR in dB, the median over the same windows. Raises as `compare_files`."""
    infos = {"before": probe(sound), "reference": probe(reference)}
    check_mix(infos["before"], infos["reference"], _WHAT["reference"])
    found = [(sdr(part["before"], part["reference"]),) * 2 for part in _windows(infos)]
    return _medians(found)[0]


def _windows(infos: dict[str, AudioInfo], alignment: Alignment | None = None) -> Iterator[dict[str, np.ndarray]]:
    """Equal stretches of all files; what is shorter than the first is filled up with silence, a mixture with the
    first itself. alignment: of the mixture."""
    first = infos["before"]
    size = round(WINDOW_S * first.sample_rate)
    with ExitStack() as stack:
        reader = stack.enter_context(AudioReader(first))
        others = {name: MixSource(info) for name, info in infos.items() if name not in ("before", "mix")}
        song = alignment.open(infos["mix"]) if alignment is not None and alignment.heard else None
        fifo, ready = Fifo(), 0

        def cut(count: int) -> dict[str, np.ndarray]:
            stem = fifo.pop(count)
            sounds = {"before": stem, **{name: other.take(count) for name, other in others.items()}}
            return sounds if song is None else {**sounds, "mix": song.beside(stem)}

        for native in reader.blocks():
            fifo.push(reader.codec.decode(native))
            ready += native.shape[1]
            while ready >= 2 * size:  # so that the last one is not a scrap
                yield cut(size)
                ready -= size
        if ready:
            yield cut(ready)


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
    """Raises OutputExistsError, OutputError."""
    with atomic_output(target, inputs_of(comparison), overwrite=overwrite) as part:
        part.write_text(json.dumps(as_json(comparison), indent=1) + "\n")


def write_picture(comparison: Comparison, target: Path, *, overwrite: bool) -> None:
    """Spectrograms before, after and, where there is one, of the true stem: the first minute. Raises
    OutputExistsError, OutputError."""
    sounds, sample_rate = _sounds(comparison, PICTURE_S)
    with atomic_output(target, inputs_of(comparison), overwrite=overwrite) as part:
        draw_spectrograms(sounds, sample_rate, part)


def _sounds(comparison: Comparison, seconds: float) -> tuple[dict[str, np.ndarray], int]:
    """The starts of what was compared (C, T), by the names that people see, and the sample rate."""
    named = {"Before": comparison.before, "After": comparison.after, "True stem": comparison.reference}
    sample_rate = probe(comparison.before).sample_rate
    count = round(seconds * sample_rate)
    return {name: read_start(path, count) for name, path in named.items() if path is not None}, sample_rate


def comparison_body(sounds: Mapping[str, np.ndarray], sample_rate: int, rows: Sequence[Row]) -> list[str]:
    """The parts of a page: sounds (C, T) by name under one switch, and the figures."""
    return [listener(sounds, sample_rate), rows_table(rows)]


def rows_table(rows: Sequence[Row]) -> str:
    """The figures as a part of a page."""
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


def write_page(comparison: Comparison, target: Path, *, overwrite: bool) -> None:
    """A page to listen to, with the first minute and a half of the sounds. Raises OutputExistsError, OutputError."""
    sounds, sample_rate = _sounds(comparison, LISTEN_S)
    text = make_page(comparison.before.name, comparison_body(sounds, sample_rate, comparison.rows))
    with atomic_output(target, inputs_of(comparison), overwrite=overwrite) as part:
        part.write_text(text, encoding="utf-8")


def inputs_of(comparison: Comparison) -> list[Path]:
    """The files that a comparison is of, none of which may be written over."""
    paths = (comparison.before, comparison.after, comparison.reference, comparison.mix)
    return [path for path in paths if path is not None]

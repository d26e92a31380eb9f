"""`stemprover analyze`: what is wrong with a file, as words, JSON and a picture."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np

from ..engine.detect.analysis import Analysis, Finding
from ..engine.detect.bank import TYPES
from ..offline.alignment import Alignment
from ..offline.audiofile import clock, probe, read_start
from ..offline.outfile import atomic_output
from .page import Lane, listener, make_page, paragraph, table

FLOOR_DB = -80.0
SHOWN_COLUMNS = 2400
LISTEN_S = 300.0
HIGHEST_HZ = 20000.0






def describe(finding: Finding, duration_s: float) -> str:
    """One finding in words; `duration_s` is that of the whole sound."""
    if not finding.known:
        return "needs the song (--mix)"
    if not finding.found:
        return "not found"
    strength = "clearly" if finding.strength > 0.6 else "audibly" if finding.strength > 0.2 else "slightly"
    everywhere = finding.to_s - finding.from_s > 0.7 * duration_s
    when = "throughout" if everywhere else f"mostly {clock(finding.from_s)[:-4]} to {clock(finding.to_s)[:-4]}"
    above = finding.high_hz > HIGHEST_HZ
    band = f"above {_hertz(finding.low_hz)}" if above else f"{_hertz(finding.low_hz)} to {_hertz(finding.high_hz)}"
    return f"{strength}, {when}, {band}"


def advice(analysis: Analysis) -> str:
    """What to do, in words."""
    found = analysis.found
    if analysis.is_separated:
        return "A separator's mask left this of the song, which auto has a repair of its own for. Try: --preset auto"
    if not found:
        return "Nothing was found that a repair would be needed for."
    names = {f.kind: weight for f, weight in zip(found, analysis.blend().values(), strict=True)}
    if len(names) == 1:
        return f"Try: --preset {found[0].kind}"
    option = ",".join(f"{name}={weight:g}" for name, weight in names.items())
    return f"Try: --blend {option}"


def _hertz(frequency: float) -> str:
    return f"{frequency / 1000:.1f} kHz" if frequency >= 1000 else f"{frequency:.0f} Hz"


def as_json(analysis: Analysis, path: Path, mix: Path | None) -> dict[str, Any]:
    """All that was found, for other programs; severities as the mean over time for each band, and over bands for each
    second."""
    each = max(1, round(1.0 / analysis.column_s))
    starts = range(0, analysis.severities.shape[-1], each)
    return {
        "file": str(path),
        "mix": None if mix is None else str(mix),
        "mix_heard": analysis.has_mix,
        "duration_s": round(analysis.duration_s, 3),
        "band_edges_hz": [round(float(edge), 1) for edge in analysis.edges_hz],
        "second_s": round(each * analysis.column_s, 4),
        "types": {
            finding.kind: {
                "score": round(finding.score, 4),
                "threshold": round(finding.threshold, 4),
                "known": finding.known,
                "found": finding.found,
                "strength": round(finding.strength, 3),
                "from_s": round(finding.from_s, 2),
                "to_s": round(finding.to_s, 2),
                "low_hz": round(finding.low_hz, 1),
                "high_hz": round(finding.high_hz, 1),
                "by_band": _rounded(severity.mean(axis=1) if severity.shape[1] else np.zeros(len(severity))),
                "by_second": _rounded(np.array([severity[:, s : s + each].mean() for s in starts])),
            }
            for finding, severity in zip(analysis.findings, analysis.severities, strict=True)
        },
        "separation": round(analysis.separation, 4),
        "mark": round(analysis.mark, 4),
        "separated": analysis.is_separated,
        "blend": dict(analysis.blend()),
        "advice": advice(analysis),
    }


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 4) for value in values]


def write_json(analysis: Analysis, path: Path, mix: Path | None, target: Path, *, overwrite: bool) -> None:
    """Raises OutputExistsError, OutputError."""
    with atomic_output(target, [path] if mix is None else [path, mix], overwrite=overwrite) as part:
        part.write_text(json.dumps(as_json(analysis, path, mix), indent=1) + "\n")


def write_picture(
    analysis: Analysis, path: Path, target: Path, *, overwrite: bool, tempo_bpm: float | None = None
) -> None:
    """The stem's spectrum, a lane for each type, and beside it how much of each type is in which band. Raises
    OutputExistsError, OutputError."""
    with atomic_output(target, [path], overwrite=overwrite) as part:
        draw_analysis(analysis, path.name, part, tempo_bpm)


def write_page(
    analysis: Analysis,
    path: Path,
    mix: Path | None,
    target: Path,
    *,
    overwrite: bool,
    tempo_bpm: float | None = None,
    alignment: Alignment | None = None,
) -> None:
    """A page to listen to, the first five minutes, with a lane for each type; with the song where the stem is heard in
    it. Raises OutputExistsError, OutputError."""
    info = probe(path)
    count = round(LISTEN_S * info.sample_rate)
    sounds = {"Stem": read_start(path, count)}
    if mix is not None and alignment is not None and alignment.heard:
        sounds["Song"] = alignment.at_own_level.open(probe(mix)).take(sounds["Stem"].shape[1])
    columns = max(1, round(min(analysis.duration_s, LISTEN_S) / analysis.column_s))
    lanes = [
        Lane(
            f"{finding.kind}: {describe(finding, analysis.duration_s)}",
            severity[:, :columns],
            severity.mean(axis=1) if severity.shape[1] else np.zeros(len(severity)),
        )
        for finding, severity in zip(analysis.findings, analysis.severities, strict=True)
    ]
    rows = [
        (f.kind, f"{f.score:.3f}", f"{f.threshold:.3f}", describe(f, analysis.duration_s)) for f in analysis.findings
    ]
    body = [paragraph(advice(analysis))]
    if not analysis.has_mix:
        body.append(paragraph("Without the song (--mix) less can be told."))
    body.append(listener(sounds, info.sample_rate, lanes=lanes, tempo_bpm=tempo_bpm))
    body.append(
        paragraph(
            "In the lanes frequency rises from bottom to top in equal steps on the ERB scale, and light means more; "
            "the bars beside them show how much is in which band over the whole sound."
        )
    )
    verdicts = ["worse" if finding.found else "" for finding in analysis.findings]
    body.append(table(("Type", "Score", "Threshold", "Found"), rows, verdicts))
    with atomic_output(target, [path] if mix is None else [path, mix], overwrite=overwrite) as part:
        part.write_text(make_page(path.name, body), encoding="utf-8")


def draw_analysis(analysis: Analysis, title: str, target: Path, tempo_bpm: float | None = None) -> None:
    """As a PNG. Bands are drawn at equal height (equal steps on the ERB scale). Raises OSError."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import FuncFormatter, MaxNLocator

    figure = Figure(figsize=(13, 11), dpi=110, layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.add_gridspec(len(TYPES) + 1, 2, width_ratios=(8, 1), height_ratios=(2, *([1] * len(TYPES))))
    seconds, bands = analysis.duration_s, len(analysis.edges_hz) - 1
    ticks_hz = [100, 300, 1000, 3000, 10000]
    ticks = np.interp(ticks_hz, analysis.edges_hz, np.arange(bands + 1))
    names = [_hertz(f).replace(".0", "") for f in ticks_hz]
    top = figure.add_subplot(grid[0, 0])
    area = (0.0, max(analysis.severities.shape[-1], 1) * analysis.column_s, 0.0, float(bands))

    def show(axis: Any, values: np.ndarray, low: float, high: float, colours: str) -> Any:
        values = _thinned(values) if values.shape[-1] else np.full((bands, 1), low)
        image = axis.imshow(
            values, extent=area, vmin=low, vmax=high, cmap=colours, origin="lower", aspect="auto",
            interpolation="nearest",
        )  # fmt: skip
        axis.set_yticks(ticks, names)
        axis.set_xlim(0.0, max(seconds, analysis.column_s))
        return image

    image = show(top, analysis.levels_db, FLOOR_DB, 0.0, "magma")
    top.set_title(title, loc="left", fontsize=14, fontweight="bold")
    figure.colorbar(image, ax=top, label="Level (dB)", pad=0.01)
    axis = top
    for row, (finding, severity) in enumerate(zip(analysis.findings, analysis.severities, strict=True), start=1):
        axis = figure.add_subplot(grid[row, 0], sharex=top)
        image = show(axis, severity, 0.0, 1.0, "viridis")
        axis.set_title(f"{finding.kind}: {describe(finding, seconds)}", loc="left", fontsize=11)
        axis.tick_params(labelbottom=row == len(TYPES))
        side = figure.add_subplot(grid[row, 1])
        mean = severity.mean(axis=1) if severity.shape[1] else np.zeros(bands)
        side.barh(np.arange(bands) + 0.5, mean, height=1.0, color="#2a788e")
        side.set(xlim=(0, 1), ylim=(0, bands))
        side.set_yticks([])
        side.tick_params(labelbottom=row == len(TYPES))
    figure.colorbar(image, ax=figure.axes[-1], label="Severity", pad=0.01)
    top.tick_params(labelbottom=False)
    axis.xaxis.set_major_locator(MaxNLocator(12, steps=[1, 2, 3, 6, 10]))
    if tempo_bpm is None:
        axis.xaxis.set_major_formatter(FuncFormatter(lambda s, _: f"{int(s // 60)}:{s % 60:04.1f}"))
        axis.set_xlabel("Time (minutes:seconds)")
    else:
        axis.xaxis.set_major_formatter(FuncFormatter(lambda s, _: f"{s * tempo_bpm / 240 + 1:.1f}"))
        axis.set_xlabel(f"Bar (4/4 at {tempo_bpm:g} beats per minute)")
    figure.savefig(target, format="png")


def _thinned(values: np.ndarray) -> np.ndarray:
    """At most SHOWN_COLUMNS columns; of those that share one the largest is shown."""
    each = -(-values.shape[-1] // SHOWN_COLUMNS)
    if each == 1:
        return values
    return np.maximum.reduceat(values, np.arange(0, values.shape[-1], each), axis=-1)

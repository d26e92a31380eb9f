"""`stemprover analyze`: the detected artefacts of a file as text, JSON, a figure and a page."""

from __future__ import annotations

import json
import shlex
from pathlib import Path
from typing import Any

import numpy as np

from ..engine.detect.analysis import Analysis, Finding
from ..engine.detect.detectors import TYPES
from ..engine.preset import AUTO
from ..offline.audiofile import clock, read_start
from ..offline.outfile import atomic_output
from ..offline.pair import StemAndMix
from .page import Lane, code, make_page, paragraph, player_section, table

FLOOR_DB = -80.0
TRACES = 0.25  # of a bar whose half is the threshold
SHOWN_COLUMNS = 2400
LISTEN_S = 300.0
HIGHEST_HZ = 20000.0
NO_MIX_HINT = "Pass the mix (--mix) to detect more."
NOTHING_WITHOUT_MIX = "Nothing found, but without the mix bleed cannot be detected; pass --mix."


def describe(finding: Finding, duration_s: float) -> str:
    """One finding in words. duration_s: of the whole file."""
    if not finding.known:
        return "needs the mix (--mix)"
    if not finding.found:
        return "not found" if finding.level < TRACES else "only traces"
    strength = "clear" if finding.strength > 0.6 else "audible" if finding.strength > 0.2 else "slight"
    throughout = finding.to_s - finding.from_s > 0.7 * duration_s
    when = "throughout" if throughout else f"mostly {clock(finding.from_s)[:-4]} to {clock(finding.to_s)[:-4]}"
    open_ended = finding.high_hz > HIGHEST_HZ
    band = f"above {_hertz(finding.low_hz)}" if open_ended else f"{_hertz(finding.low_hz)} to {_hertz(finding.high_hz)}"
    return f"{strength}, {when}, {band}"


def command(analysis: Analysis, path: Path, mix: Path | None) -> str:
    """The command line that follows the advice; "" if there is nothing to repair."""
    weights = analysis.blend()
    if analysis.is_separated:
        options = ["--preset", AUTO]
    elif len(weights) == 1:
        options = ["--preset", next(iter(weights))]
    elif weights:
        options = ["--blend", ",".join(f"{kind}={weight:g}" for kind, weight in weights.items())]
    elif analysis.is_disturbed:
        options = ["--preset", "general"]
    else:
        return ""
    mixed = [] if mix is None else ["--mix", str(mix)]
    target = path.with_name(f"{path.stem}-repaired{path.suffix}")
    return shlex.join(["stemprover", "repair", str(path), *mixed, *options, "-o", str(target)])


def advice(analysis: Analysis) -> str:
    """What to do, in a sentence or two."""
    if analysis.is_separated:
        return "This stem looks like the output of a mask-based separator, for which auto has a repair of its own."
    weights = analysis.blend()
    if not weights and analysis.is_disturbed:
        return "No artefact of a known kind found, but something was done to this stem."
    if not weights:
        return "No artefacts found: this stem needs no repair." if analysis.has_mix else NOTHING_WITHOUT_MIX
    return f"Found: {', '.join(weights)}."


def _hertz(frequency: float) -> str:
    return f"{frequency / 1000:.1f} kHz" if frequency >= 1000 else f"{frequency:.0f} Hz"


def as_json(analysis: Analysis, path: Path, mix: Path | None) -> dict[str, Any]:
    """The whole result for other programs, with mean severities by band and by second."""
    columns = max(1, round(1.0 / analysis.column_s))
    starts = range(0, analysis.severities.shape[-1], columns)
    return {
        "file": str(path),
        "mix": None if mix is None else str(mix),
        "mix_used": analysis.has_mix,
        "duration_s": round(analysis.duration_s, 3),
        "band_edges_hz": [round(float(edge), 1) for edge in analysis.edges_hz],
        "second_s": round(columns * analysis.column_s, 4),
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
                "by_band": _rounded(_band_means(severity)),
                "by_second": _rounded(np.array([severity[:, s : s + columns].mean() for s in starts])),
            }
            for finding, severity in zip(analysis.findings, analysis.severities, strict=True)
        },
        "separation": round(analysis.separation, 4),
        "mask_score": round(analysis.mask_score, 4),
        "separated": analysis.is_separated,
        "disturbance": round(analysis.disturbance, 4),
        "disturbed": analysis.is_disturbed,
        "blend": dict(analysis.blend()),
        "advice": advice(analysis),
    }


def _band_means(severity: np.ndarray) -> np.ndarray:
    """Severities (K, M) to their means over time (K,), 0 if there is no column."""
    return severity.mean(axis=1) if severity.shape[1] else np.zeros(len(severity))


def _rounded(values: np.ndarray) -> list[float]:
    return [round(float(value), 4) for value in values]


def write_json(analysis: Analysis, path: Path, mix: Path | None, target: Path, *, overwrite: bool) -> None:
    """Write the JSON file. Raises OutputExistsError, OutputError."""
    with atomic_output(target, [path] if mix is None else [path, mix], overwrite=overwrite) as part:
        part.write_text(json.dumps(as_json(analysis, path, mix), indent=1) + "\n")


def write_figure(
    analysis: Analysis, path: Path, target: Path, *, overwrite: bool, tempo_bpm: float | None = None
) -> None:
    """Write a PNG with the stem's levels, and for each type its severity over time and its mean in each band. Raises
    OutputExistsError, OutputError."""
    with atomic_output(target, [path], overwrite=overwrite) as part:
        draw_analysis(analysis, path.name, part, tempo_bpm)


def write_page(
    analysis: Analysis, pair: StemAndMix, target: Path, *, overwrite: bool, tempo_bpm: float | None = None
) -> None:
    """Write a page with the first five minutes of the stem, the severities of each type, and the aligned mix if it
    contains the stem. Raises OutputExistsError, OutputError."""
    path, info = pair.stem.path, pair.stem
    count = round(LISTEN_S * info.sample_rate)
    signals = {"Stem": read_start(path, count)}
    if (mix := pair.open_mix(at_own_level=True)) is not None:
        signals["Mix"] = mix.take(signals["Stem"].shape[1])
    columns = max(1, round(min(analysis.duration_s, LISTEN_S) / analysis.column_s))
    lanes = [
        Lane(f"{finding.kind}: {describe(finding, analysis.duration_s)}", severity[:, :columns], _band_means(severity))
        for finding, severity in zip(analysis.findings, analysis.severities, strict=True)
    ]
    rows = [
        (f.kind, f"{f.score:.3f}", f"{f.threshold:.3f}", describe(f, analysis.duration_s)) for f in analysis.findings
    ]
    body = [paragraph(advice(analysis))]
    if line := command(analysis, path, None if pair.mix is None else pair.mix.path):
        body.append(code(line))
    if not analysis.has_mix and analysis.blend():
        body.append(paragraph(NO_MIX_HINT))
    body.append(player_section(signals, info.sample_rate, lanes=lanes, tempo_bpm=tempo_bpm))
    body.append(
        paragraph(
            "Each type of artefact has a map below the spectrograms: brighter means more severe, and frequency rises "
            "from bottom to top on the ERB scale. The bars on the right show the mean of each band over the whole file."
        )
    )
    verdicts = ["worse" if finding.found else "" for finding in analysis.findings]
    body.append(table(("Type", "Score", "Threshold", "Result"), rows, verdicts))
    with atomic_output(target, pair.paths, overwrite=overwrite) as part:
        part.write_text(make_page(path.name, body), encoding="utf-8")


def draw_analysis(analysis: Analysis, title: str, target: Path, tempo_bpm: float | None = None) -> None:
    """Draw the figure of `write_figure` as a PNG. All bands have the same height (ERB scale). Raises OSError."""
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
        side.barh(np.arange(bands) + 0.5, _band_means(severity), height=1.0, color="#2a788e")
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
    """Values (K, M) reduced to at most SHOWN_COLUMNS columns, each with the largest of its values."""
    step = -(-values.shape[-1] // SHOWN_COLUMNS)
    if step == 1:
        return values
    return np.maximum.reduceat(values, np.arange(0, values.shape[-1], step), axis=-1)

"""Writes docs/presets.md: what every preset does to every artefact, from reports of `stemprover validate`.

mkdir -p some
for kind in musical-noise bleed phasiness dull-highs smeared-transients mixed; do cp -r cases/test/$kind some; done
for kind in separated-vocals separated-accompaniment; do
    mkdir -p some/$kind; ls -d cases/test/$kind/* | awk 'NR % 5 == 3' | xargs cp -rt some/$kind
done
for preset in general musical-noise bleed phasiness dull-highs smeared-transients auto; do
    stemprover validate some -o report/presets/$preset --preset $preset --brief --also perceptual
done
mkdir -p separated; cp -r cases/test/separated-* separated
for preset in general auto; do stemprover validate separated -o report/separated/$preset --preset $preset --brief; done
python tools/preset_matrix.py report/presets report/separated
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from validation_tables import NO_CHANGE_DB, ROOT, pairs

PRESETS = ("general", "musical-noise", "bleed", "phasiness", "dull-highs", "smeared-transients", "auto")
KINDS = (
    "musical-noise", "bleed", "phasiness", "dull-highs", "smeared-transients", "mixed", "separated-vocals",
    "separated-accompaniment",
)  # fmt: skip

Cell = Callable[[str, list[dict[str, Any]]], str]


def gain(_: str, cases: list[dict[str, Any]]) -> str:
    """SI-SDR: the median gain, and that of the worst case."""
    found = pairs(cases, "SI-SDR")
    gains = found[:, 1] - found[:, 0]
    return f"{np.median(gains):+.2f} ({gains.min():+.2f})" if len(gains) else "-"


def distance(_: str, cases: list[dict[str, Any]]) -> str:
    """Log-spectral distance: the change of the median."""
    before, after = np.median(pairs(cases, "Log-spectral distance"), axis=0)
    return f"{100 * (after / before - 1):+.1f}%"


def detected(kind: str, cases: list[dict[str, Any]]) -> str:
    """The score of the fault's own detector, before and after."""
    found = pairs(cases, f"Detected {kind}")
    return "{:.2f} → {:.2f}".format(*np.median(found, axis=0)) if len(found) else "-"


def perceptual(_: str, cases: list[dict[str, Any]]) -> str:
    """The 2f-model's score: the median gain in points."""
    found = pairs(cases, "Perceptual score (2f)")
    return f"{np.median(found[:, 1] - found[:, 0]):+.1f}" if len(found) else "-"


def clean(_: str, cases: list[dict[str, Any]]) -> str:
    """SDR at which the true stems of these cases come back: median and worst."""
    found = [NO_CHANGE_DB if case["clean_sdr_db"] is None else case["clean_sdr_db"] for case in cases]
    return f"{np.median(found):.0f} / {min(found):.0f}"


TABLES: dict[str, Cell] = {
    "SI-SDR, median gain in dB (worst case)": gain,
    "Log-spectral distance, change of the median": distance,
    "Score of the fault's own detector": detected,
    "Perceptual score (2f-model), median gain in points": perceptual,
    "A true stem comes back at (median / worst, dB)": clean,
}


def table(title: str, cell: Cell, reports: dict[str, list[dict[str, Any]]]) -> list[str]:
    """Lines of one table: a row for each preset, a column for each fault; none where nothing was measured."""
    rows = []
    for preset, cases in reports.items():
        groups = {kind: [case for case in cases if case["kind"] == kind] for kind in KINDS}
        rows.append([preset, *(cell(kind, group) if group else "-" for kind, group in groups.items())])
    if all(text == "-" for row in rows for text in row[1:]):
        return []
    lines = [f"\n## {title}\n", "| preset | " + " | ".join(KINDS) + " |", "|" + "---|" * (len(KINDS) + 1)]
    return lines + ["| " + " | ".join(row) + " |" for row in rows]


def blends(path: Path) -> list[str]:
    """Lines of the table of two faults and two presets; none where it was not measured."""
    if not path.exists():
        return []
    lines = [
        "\n## Two faults, two presets\n",
        "Both faults simulated upon true stems of held-out songs; gain of SI-SDR in dB / change of the log-spectral "
        "distance, medians; both: the blend of the two presets, each at weight 1.\n",
        f"    python tools/measure_blends.py cases/test --stems 4 --json {path.relative_to(ROOT)}\n",
        "| faults | general | first alone | second alone | both |",
        "|---|---|---|---|---|",
    ]
    for pair, figures in json.loads(path.read_text()).items():
        lines.append(f"| {pair} | " + " | ".join(f"{gain:+.2f} / {change:+.1f}%" for gain, change in figures) + " |")
    return lines


def report_of(folder: Path, preset: str) -> list[dict[str, Any]]:
    """The cases of a preset's report; ends the program where there is none."""
    path = folder / preset / "report.json"
    if not path.exists():
        raise SystemExit(f"there is no {path}; make the reports first:\n{__doc__}")
    cases: list[dict[str, Any]] = json.loads(path.read_text())["cases"]
    return cases


def of_separator(folder: Path) -> list[str]:
    """Lines of the table of general and auto on all of Spleeter's stems."""
    reports = {preset: report_of(folder, preset) for preset in ("general", "auto")}
    columns = {"SI-SDR, median (worst)": gain, "log-spectral distance": distance, "true stem": clean}
    lines = [
        "\n## Spleeter's stems, all that are held out\n",
        "| stems | number | preset | " + " | ".join(columns) + " |",
        "|---|---|---|" + "---|" * len(columns),
    ]
    for name, kinds in {**{kind: [kind] for kind in KINDS[-2:]}, "both": list(KINDS[-2:])}.items():
        for preset, every in reports.items():
            cases = [case for case in every if case["kind"] in kinds]
            row = [name, str(len(cases)), preset, *(cell(name, cases) for cell in columns.values())]
            lines.append("| " + " | ".join(row) + " |")
    return lines


def main() -> None:
    """The command line."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "report/presets")
    separated = Path(sys.argv[2] if len(sys.argv) > 2 else "report/separated")
    reports = {preset: report_of(folder, preset) for preset in PRESETS}
    lines = [
        "# Presets by artefact",
        "",
        "Held-out songs, the song given, one step, gate and caution on; simulated faults, and the last two columns the "
        "real Spleeter's. The adapters have seen none of these songs and voices. Six cases of each fault and four of "
        "each separated stem.",
        "",
        *("    " + line for line in (__doc__ or "").split("\n\n", 1)[1].rstrip().split("\n")),
    ]
    for title, cell in TABLES.items():
        lines += table(title, cell, reports)
    lines += of_separator(separated)
    lines += blends(folder.resolve() / "blends.json")
    pictures = sorted((ROOT / "docs" / "presets").glob("*.png"))
    lines += ["\n## Pictures\n", "    python tools/preset_pictures.py cases/test docs/presets\n"] if pictures else []
    lines += [f"![{path.stem}: before, after, true stem](presets/{path.name})" for path in pictures]
    (ROOT / "docs" / "presets.md").write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()

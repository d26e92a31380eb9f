"""Puts the figures of `stemprover validate` into README.md, the model card and docs/validation.md.

python -m stemprover.engine.train.cases data/pool cases --separated 20 --simulated 6
for split in valid valid-other test; do stemprover validate cases/$split -o report/$split --also perceptual; done
stemprover validate cases/test -o report/test-no-mix --no-mix --also perceptual
python tools/validation_tables.py report
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
SPLITS = {
    "test": "other songs", "valid": "*francium*", "valid-other": "unlike the training",
    "four-stems": "the second separator",
}  # fmt: skip
KINDS = (
    "separated-vocals", "separated-accompaniment", "phasiness", "smeared-transients", "dull-highs", "mixed", "bleed",
    "musical-noise", "four-stems-drums", "four-stems-bass", "four-stems-other", "four-stems-vocals",
)  # fmt: skip
HARM_DB = 0.2
NO_CHANGE_DB = 150.0  # a clean stem that came back bit for bit
MORE = {
    "Multi-resolution STFT distance": "multi-resolution STFT",
    "Phase agreement": "phase agreement",
    "Onset error": "onset error",
    "Channel phase error": "channel phase error",
    "Perceptual score (2f)": "perceptual score (2f)",
}
NO_MIX = "test-no-mix"


def pairs(cases: list[dict[str, Any]], measure: str) -> np.ndarray:
    """Before and after (N, 2) of the cases that have this measure."""
    found = [case["measures"].get(measure) for case in cases]
    return np.array([pair for pair in found if pair is not None and None not in pair], float).reshape(-1, 2)


def short_row(name: str, kind: str, cases: list[dict[str, Any]]) -> str:
    """A line of the table in README.md and the model card."""
    ratio, distance = pairs(cases, "SI-SDR"), pairs(cases, "Log-spectral distance")
    gains = ratio[:, 1] - ratio[:, 0]
    before, after = np.median(distance, axis=0)
    clean = [NO_CHANGE_DB if case["clean_sdr_db"] is None else case["clean_sdr_db"] for case in cases]
    return (
        f"| {name} | {kind} | {np.median(ratio[:, 0]):.2f} dB, {np.median(gains):+.2f} dB "
        f"| {100 * np.mean(gains < -HARM_DB):.0f}% | {before:.2f} dB, {100 * (after / before - 1):+.1f}% "
        f"| {np.median(clean):.1f} / {min(clean):.1f} dB |"
    )


def long_row(kind: str, cases: list[dict[str, Any]], summaries: list[dict[str, Any]]) -> str:
    """A line of docs/validation.md: mean gain with its interval, worst case, and what else was measured."""
    ratio = pairs(cases, "SI-SDR")
    gains = ratio[:, 1] - ratio[:, 0]
    found = next(s for s in summaries if s["kind"] == kind and s["measure"] == "SI-SDR")
    cells = [f"{found['gain']:+.2f} ({found['low']:+.2f} to {found['high']:+.2f})", f"{gains.min():+.2f}"]
    for measure in (*MORE, f"Detected {kind}"):
        both = pairs(cases, measure)
        cells.append("-" if len(both) == 0 else "{:.3f} → {:.3f}".format(*np.median(both, axis=0)))
    return f"| {kind} | {len(cases)} | " + " | ".join(cells) + " |"


def no_mix_row(kind: str, cases: list[dict[str, Any]]) -> str:
    """A line of the table of what is done without the mixture."""
    ratio = pairs(cases, "SI-SDR")
    cells = [f"{np.median(ratio[:, 0]):.2f} dB, {np.median(ratio[:, 1] - ratio[:, 0]):+.2f} dB"]
    before, after = np.median(pairs(cases, "Log-spectral distance"), axis=0)
    cells.append(f"{before:.2f} dB, {100 * (after / before - 1):+.1f}%")
    scores = pairs(cases, "Perceptual score (2f)")
    cells.append("-" if len(scores) == 0 else "{:.1f} → {:.1f}".format(*np.median(scores, axis=0)))
    clean = [NO_CHANGE_DB if case["clean_sdr_db"] is None else case["clean_sdr_db"] for case in cases]
    cells.append(f"{np.median(clean):.1f} / {min(clean):.1f} dB")
    return f"| {kind} | {len(cases)} | " + " | ".join(cells) + " |"


def replace_rows(path: Path, rows: list[str]) -> None:
    """The lines of the table, which are there already, by these. Raises ValueError where they are not."""
    lines = path.read_text().split("\n")
    known = "|".join(re.escape(name) for name in SPLITS.values())
    places = [i for i, line in enumerate(lines) if re.match(rf"\| ({known}) \| ", line)]
    if not places or places != list(range(places[0], places[-1] + 1)):
        raise ValueError(f"{path}: no table, or more than one, whose lines begin with {', '.join(SPLITS.values())}")
    lines[places[0] : places[-1] + 1] = rows
    path.write_text("\n".join(lines))


def main() -> None:
    """The command line."""
    folder = Path(sys.argv[1] if len(sys.argv) > 1 else "report")
    short, long = [], [(__doc__ or "").split("\n\n", 1)[1].rstrip()]
    for split, name in SPLITS.items():
        if not (folder / split / "report.json").exists():
            continue
        report = json.loads((folder / split / "report.json").read_text())
        by_kind = {kind: [case for case in report["cases"] if case["kind"] == kind] for kind in KINDS}
        short += [short_row(name, kind, cases) for kind, cases in by_kind.items() if cases]
        head = ["kind", "cases", "SI-SDR, mean gain (95%), dB", "worst, dB", *MORE.values(), "its detector"]
        long += [f"\n## {name.strip('*').capitalize()}\n", "| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
        long += [long_row(kind, cases, report["summaries"]) for kind, cases in by_kind.items() if cases]
    if (folder / NO_MIX / "report.json").exists():
        cases = json.loads((folder / NO_MIX / "report.json").read_text())["cases"]
        long += ["\n## Other songs, the same cases without the mixture\n"]
        long.append("| kind | cases | SI-SDR | log-spectral distance | perceptual score (2f) | clean stem back |")
        long.append("|" + "---|" * 6)
        by_kind = {kind: [case for case in cases if case["kind"] == kind] for kind in KINDS}
        long += [no_mix_row(kind, group) for kind, group in by_kind.items() if group]
    for path in (ROOT / "README.md", ROOT / "presets" / "base" / "README.md"):
        replace_rows(path, short)
    base = json.loads((ROOT / "presets" / "base" / "bundle.json").read_text())
    weights = base["sha256"]["denoiser.onnx"][:12]
    intro = (
        "# Validation of the shipped base\n\nPreset general, one step, with the song, gate on. Medians before → after "
        "the repair, over 5 s windows of each case and then over the cases; the first two kinds are the real "
        "Spleeter's, the others simulated. README.md has the medians of SI-SDR and log-spectral distance, and what "
        f"the material is. Weights: denoiser.onnx of SHA-256 {weights}....\n"
    )
    (ROOT / "docs" / "validation.md").write_text(intro + "\n" + "\n".join(long) + "\n")


if __name__ == "__main__":
    main()

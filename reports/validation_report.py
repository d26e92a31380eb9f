"""The report of `stemprover validate`: report.json, spectrograms of the worst cases, and a page with audio."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np

from ..offline.audiofile import clock
from ..offline.outfile import atomic_output, make_folder
from .compare import rows_table
from .page import make_page, paragraph, player_section, table
from .spectrogram import draw_spectrograms
from .validate import HARM_DB, CaseResult, Excerpt, Summary, describe_clean_stems, harmed_fraction, summarise


def write_report(results: Sequence[CaseResult], excerpts: Sequence[Excerpt], folder: Path, title: str) -> Path:
    """Write report.json with all figures, spectrograms of the worst cases, and report.html with everything and audio.
    Returns the path of the page. Raises OutputError."""
    make_folder(folder)
    summaries = summarise(results)
    content = {
        "summaries": [asdict(summary) for summary in summaries],
        "harmed": _finite(harmed_fraction(results)),
        "worst": [excerpt.result.case.name for excerpt in excerpts],
        "cases": [
            {
                "name": result.case.name,
                "kind": result.case.kind,
                "clean_sdr_db": _finite(result.clean_sdr_db),
                "notes": list(result.notes),
                "measures": {row.name: [_finite(row.before), _finite(row.after)] for row in result.rows},
            }
            for result in results
        ],
    }
    with atomic_output(folder / "report.json", (), overwrite=True) as part:
        part.write_text(json.dumps(content, indent=1, allow_nan=False) + "\n")
    for old in folder.glob("worst-[0-9][0-9]-*.png"):
        old.unlink()
    for rank, excerpt in enumerate(excerpts, start=1):
        name = excerpt.result.case.name.replace("/", "-").replace("\\", "-")
        with atomic_output(folder / f"worst-{rank:02d}-{name}.png", (), overwrite=True) as part:
            draw_spectrograms(excerpt.signals, excerpt.sample_rate, part)
    page = folder / "report.html"
    with atomic_output(page, (), overwrite=True) as part:
        part.write_text(make_page(title, _body(results, summaries, excerpts)), encoding="utf-8")
    return page


def _body(results: Sequence[CaseResult], summaries: Sequence[Summary], excerpts: Sequence[Excerpt]) -> list[str]:
    head = ("Type", "Measure", "Cases", "Before", "After", "Median gain", "Improved", "Mean gain (95% interval)")
    lines = [
        (
            row.kind, row.measure, str(row.cases), f"{row.before:.2f}", f"{row.after:.2f}", f"{row.median_gain:+.3f}",
            f"{100 * row.improved:.0f}%", f"{row.gain:+.3f} ({row.low:+.3f} to {row.high:+.3f})",
        )
        for row in summaries
    ]  # fmt: skip
    verdicts = ["better" if row.low > 0 else "worse" if row.high < 0 else "" for row in summaries]
    body = [
        paragraph(
            f"{len(results)} {'case' if len(results) == 1 else 'cases'}. Before and after are medians; a positive "
            "gain is an improvement for every measure. "
            f"{100 * harmed_fraction(results):.0f}% of the cases lost more than {HARM_DB} dB of SI-SDR. "
            f"{describe_clean_stems(results)}."
        ),
        table(head, lines, verdicts),
        *(paragraph(f"{result.case.name}: {note}") for result in results for note in result.notes),
    ]
    for rank, excerpt in enumerate(excerpts, start=1):
        result = excerpt.result
        title = (
            f"{rank}. {result.case.name}: SI-SDR {result.gain('SI-SDR'):+.2f} dB, excerpt from {clock(excerpt.start_s)}"
        )
        body.append(player_section(excerpt.signals, excerpt.sample_rate, title=title))
        body.append(rows_table(result.rows))
    return body


def _finite(value: float) -> float | None:
    return round(value, 5) if np.isfinite(value) else None

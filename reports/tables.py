"""The results of the commands as tables on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.table import Column, Table
from rich.text import Text

from ..engine.preset import AUTO, Preset
from ..offline.audiofile import clock
from .terminal import OUT, print_notes, say

if TYPE_CHECKING:
    from ..engine.detect.analysis import Analysis
    from .compare import Comparison
    from .demo import DemoReport
    from .validate import CaseResult

BAR_WIDTH = 20


def print_demo(report: DemoReport) -> None:
    """The measures of the demo, and where its files are."""
    table = Table(title="The separated stem against the true one", title_justify="left")
    for column in ("", "before", "after", "change"):
        table.add_column(column, justify="right" if column else "left")
    table.add_column("better is")
    rows = (
        ("SI-SDR (dB)", report.si_sdr_db, "higher"),
        ("Log-spectral distance (dB)", report.log_spectral_distance_db, "lower"),
    )
    for name, (before, after), better in rows:
        table.add_row(name, f"{before:.2f}", f"{after:.2f}", f"{after - before:+.2f}", better)
    OUT.print(table, soft_wrap=False)
    say(f"{report.repair.source.name} with preset auto: {report.chosen}")
    say(report.repair.render())
    OUT.print(
        Text(f"Open {report.folder / 'listen.html'} to listen; audio files and spectrograms are in the same folder")
    )


def print_analysis(analysis: Analysis, path: Path, mix: Path | None = None) -> None:
    """A bar and a description for each type of artefact, and what to do."""
    from .analyze import NO_MIX_HINT, advice, command, describe

    OUT.print(Text(f"{path.name}  {clock(analysis.duration_s)}", style="bold"))
    table = Table.grid(padding=(0, 2))
    for finding in analysis.findings:
        # The threshold is in the middle, where the colour changes; a full bar is a clearly audible case.
        half, filled = BAR_WIDTH // 2, round(BAR_WIDTH * finding.level)
        above = "red" if finding.strength > 0.6 else "yellow"
        bar = Text.assemble(
            ("█" * min(filled, half), "green"), ("░" * max(half - filled, 0), "dim"), "│",
            ("█" * max(filled - half, 0), above), ("░" * min(BAR_WIDTH - filled, half), "dim"),
        )  # fmt: skip
        table.add_row(Text(finding.kind), bar, Text(describe(finding, analysis.duration_s)))
    OUT.print(table, soft_wrap=False)
    say(advice(analysis))
    if not analysis.has_mix and analysis.blend():
        OUT.print(NO_MIX_HINT)
    if line := command(analysis, path, mix):
        say(line)


def print_comparison(comparison: Comparison) -> None:
    """Each measure before and after, and whether it got better."""
    from .compare import WITHOUT_TRUTH

    print_notes(comparison.before.name, comparison.notes)
    table = Table("", "before", "after", "change", "")
    for row in comparison.rows:
        change = row.after - row.before
        colour = {"better": "green", "worse": "red"}.get(row.verdict, "")
        name = f"{row.name} ({row.unit})" if row.unit else row.name
        numbers = [f"{value:.3f}" for value in (row.before, row.after)]
        table.add_row(Text(name), *numbers, f"{change:+.3f}", Text(row.verdict, style=colour))
    for column in table.columns[1:4]:
        column.justify = "right"
    OUT.print(table, soft_wrap=False)
    if comparison.reference is None:
        OUT.print(f"{WITHOUT_TRUTH} Pass the true stem (--reference), if you have it.")


def print_validation(results: Sequence[CaseResult], page: Path) -> None:
    """The measures of each type, and the cases that gained least."""
    from .validate import HARM_DB, describe_clean_stems, harmed_fraction, summarise, worst_cases

    for result in results:
        print_notes(result.case.name, result.notes)
    table = Table("type", "measure", "cases", "before", "after", "gain", "mean gain (95% interval)", "improved")
    for row in summarise(results):
        interval = f"{row.gain:+.3f} ({row.low:+.3f} to {row.high:+.3f})"
        numbers = [f"{row.before:.2f}", f"{row.after:.2f}", f"{row.median_gain:+.3f}", interval]
        colour = "green" if row.low > 0 else "red" if row.high < 0 else ""
        table.add_row(
            Text(row.kind), row.measure, str(row.cases), *numbers[:2], Text(numbers[2], style=colour), numbers[3],
            f"{100 * row.improved:.0f}%",
        )  # fmt: skip
    OUT.print(table, soft_wrap=False)
    OUT.print("Before, after and gain are medians; a positive gain is an improvement for every measure")
    OUT.print(describe_clean_stems(results))
    OUT.print(f"{100 * harmed_fraction(results):.0f}% of the cases lost more than {HARM_DB} dB of SI-SDR")
    worst = ", ".join(f"{result.case.name} ({result.gain('SI-SDR'):+.2f} dB)" for result in worst_cases(results)[:3])
    say(f"Smallest gains: {worst}")
    say(f"Report with audio: {page}")


def print_presets(presets: Sequence[Preset], user_folder: Path) -> None:
    """auto, all presets, and where to put your own."""
    table = Table(Column("name", no_wrap=True), "repairs", "without mix", "trained")
    table.add_row(Text(AUTO, style="bold"), "whatever the detectors find", "no", "yes")
    for preset in presets:
        yours, alone = ("", "no") if preset.is_shipped else (" (yours)", "as trained")
        name = Text.assemble((preset.name, "bold"), yours)
        table.add_row(name, Text(preset.artefact), alone, "yes" if preset.trained else "not yet")
    OUT.print(table, soft_wrap=False)
    say(f"Put your own presets into {user_folder}, one folder each")


def print_auto() -> None:
    """What auto does, as `print_preset` for a preset."""
    OUT.print(Text(f"Automatic choice ({AUTO})", style="bold"))
    for line in (
        "The detectors choose the presets for each stem. Where they find no fault of a known kind, but the mix shows",
        "that something was done to the stem, that is general. A true stem stays unchanged.",
        "repairs: whatever the detectors find; with --mix they find far more",
        "default: with repair --mix",
    ):
        say(line)


def print_preset(preset: Preset) -> None:
    """Everything about one preset."""
    OUT.print(Text(f"{preset.title} ({preset.name})", style="bold"))
    lines = [preset.description, f"repairs: {preset.artefact}", f"wet: {preset.wet:g}"]
    if preset.separated:
        lines.append("separated: yes, with a Wiener filter (--mix)")
    if preset.note or not preset.trained:
        lines.append(f"trained: {'yes' if preset.trained else 'not yet'}{'; ' + preset.note if preset.note else ''}")
    lines += [f"adapter: {file.name} at {weight:g}" for file, weight in preset.adapters.items()] or [
        "adapter: none, the base model alone"
    ]
    for when, plugins in (("before", preset.before), ("after", preset.after)):
        for plugin in plugins:
            settings = ", ".join(f"{key} = {value:g}" for key, value in plugin.parameters.items())
            lines.append(f"{when}: {plugin.plugin}{' (' + settings + ')' if settings else ''}")
    lines.append(f"file: {preset.path}")
    for line in lines:
        OUT.print(Text(line))

"""What people see: progress, one line for each file, tables, errors. Progress and errors go to the error stream."""

from __future__ import annotations

import contextlib
import os
import traceback
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from ..engine.errors import StemProverError
from ..engine.preset import Preset
from ..offline.audiofile import clock
from ..offline.batch import RenderPlan, make_folder
from ..offline.outfile import check_output
from ..offline.render import ChunkRepairer, Progress, render_file
from ..offline.stem_set import complete_set, is_set

if TYPE_CHECKING:
    from ..engine.detect.analysis import Analysis
    from ..offline.auto import AutoChoice
    from .compare import Comparison
    from .demo import DemoReport
    from .validate import CaseResult

    Choice = tuple[ChunkRepairer, Preset] | AutoChoice

_OUT = Console(soft_wrap=True, highlight=False)
_ERR = Console(soft_wrap=True, highlight=False, stderr=True)


def print_error(error: StemProverError, *, path: Path | None = None) -> None:
    """One line on the error stream, with the file in front unless the message names it."""
    message = " ".join(str(error).split())
    if path is not None and str(path) not in message:
        message = f"{path}: {message}"
    _ERR.print(Text.assemble(("Error: ", "bold red"), message))


class _Speed(ProgressColumn):
    """Seconds of sound for each second of work."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f}x real time", style="cyan")


@contextlib.contextmanager
def file_progress(name: str, *, sound: bool = True) -> Iterator[Progress]:
    """A bar for one file, gone when it is done; on a terminal only. Call what comes with seconds done and in all;
    `sound` False: with any other unit."""
    columns: tuple[ProgressColumn, ...] = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(),
        *([_Speed()] if sound else []),
    )
    # The output stream may be a file while the bar is on the terminal: what is printed must not go through the bar.
    with Bars(
        *columns,
        console=_ERR,
        transient=True,
        disable=not _ERR.is_terminal,
        redirect_stdout=False,
        redirect_stderr=False,
    ) as bars:
        task = bars.add_task(name, total=None)
        yield lambda done_s, total_s: bars.update(task, completed=done_s, total=total_s)


def run_plan(plan: RenderPlan, choice: Choice, *, mix: Path | None, overwrite: bool, in_sum: bool = False) -> int:
    """Repair every file of a plan, one after the other, and say how each went. Returns the exit code.

    choice: a preset and its repairer for all files, or what chooses them for each. in_sum: if they are all stems of the
    song `mix`, have them sum to it.

    A file that fails does not stop the others. The code is 0 if all went well, 2 if only inputs were wrong, else 1.
    """
    failures: list[tuple[Path, StemProverError]] = []

    def failed(path: Path, error: StemProverError) -> None:
        failures.append((path, error))
        print_error(error, path=path)

    # No output may replace any input, not even one whose turn has passed.
    inputs = [job.source for job in plan.jobs] + ([mix] if mix is not None else [])
    if isinstance(choice, tuple) and choice[1].note:
        _ERR.print(f"Note: preset {choice[1].name}: {choice[1].note}", markup=False, style="yellow")
    if isinstance(choice, tuple) and choice[1].separated and mix is None:
        what = "is for what a separator left of a song, and hears no song: give it with --mix"
        _ERR.print(f"Note: preset {choice[1].name}: {what}", markup=False, style="yellow")
    for path, error in plan.failures:
        failed(path, error)
    for number, job in enumerate(plan.jobs, start=1):
        name = f"[{number}/{len(plan.jobs)}] {job.source.name}" if len(plan.jobs) > 1 else job.source.name
        try:
            check_output(job.target, inputs, overwrite=overwrite)
            if plan.makes_folders:
                make_folder(job.target.parent)
            if isinstance(choice, tuple):
                repairer, preset = choice
            else:
                with file_progress(f"{name}: listening") as progress:
                    repairer, preset = choice(job.source, mix, progress)
                _ERR.print(f"Note: {job.source.name}: {preset.note}", markup=False, style="yellow")
            with file_progress(name) as progress:
                report = render_file(
                    job.source, job.target, repairer, mix=mix, preset=preset, overwrite=overwrite, progress=progress
                )
        except StemProverError as error:
            failed(job.source, error)
        except Exception as error:
            if os.environ.get("STEMPROVER_DEBUG"):
                traceback.print_exc()
            what = f"{type(error).__name__}: {error}"
            hint = "please report it, with what STEMPROVER_DEBUG=1 shows"
            failed(job.source, StemProverError(f"internal error: {what}; {hint}"))
        else:
            _OUT.print(Text(report.render()))
    plain = not isinstance(choice, tuple) or not (choice[1].before or choice[1].after)
    if in_sum and plain and mix is not None and not failures:
        try:
            if is_set(plan.jobs, mix):
                with file_progress("the stems' sum") as progress:
                    _OUT.print(Text(complete_set(plan.jobs, mix, progress=progress).render()))
        except StemProverError as error:
            failed(mix, error)
    total = len(plan.jobs) + len(plan.failures)
    if total > 1:
        done = total - len(failures)
        _OUT.print(f"{done} of {total} repaired" + (f", {len(failures)} failed:" if failures else ""))
        for path, _ in failures:
            _OUT.print(Text(f"  {path}"))
    if not failures:
        return 0
    return 2 if all(error.exit_code == 2 for _, error in failures) else 1


def print_demo(report: DemoReport) -> None:
    """The demo's figures as a table, and where its files are."""
    table = Table(title="The separated stem against the true one", title_justify="left")
    for column, justify in (
        ("", "left"),
        ("before", "right"),
        ("after", "right"),
        ("change", "right"),
        ("better is", "left"),
    ):
        table.add_column(column, justify=justify)  # type: ignore[arg-type]
    rows = (
        ("SI-SDR (dB)", report.si_sdr_db, "higher"),
        ("Log-spectral distance (dB)", report.log_spectral_distance_db, "lower"),
    )
    for name, (before, after), better in rows:
        table.add_row(name, f"{before:.2f}", f"{after:.2f}", f"{after - before:+.2f}", better)
    _OUT.print(table, soft_wrap=False)
    _OUT.print(Text(f"Preset auto: {report.chosen}"))
    _OUT.print(Text(report.repair.render()))
    _OUT.print(
        Text(f"Open {report.folder / 'listen.html'} to hear and see it; the sounds and the picture are beside it")
    )


def print_analysis(analysis: Analysis, path: Path) -> None:
    """A bar for each type of artefact, where it is, and what to do."""
    from .analyze import advice, describe

    _OUT.print(Text(f"{path.name}  {clock(analysis.duration_s)}", style="bold"))
    table = Table.grid(padding=(0, 2))
    for finding in analysis.findings:
        colour = "red" if finding.strength > 0.6 else "yellow" if finding.found else "green"
        # Half of the bar is the threshold, all of it a clearly audible case.
        share = min(1.0, 0.5 * finding.score / max(finding.threshold, 1e-6))
        if finding.found:
            share = 0.5 + 0.5 * finding.strength
        length = round(20 * share) if finding.known else 0
        bar = Text.assemble(("█" * length, colour), ("░" * (20 - length), "dim"))
        table.add_row(Text(finding.kind), bar, Text(describe(finding, analysis.duration_s)))
    _OUT.print(table, soft_wrap=False)
    if not analysis.has_mix:
        _OUT.print("Without the song (--mix) less can be told.")
    _OUT.print(Text(advice(analysis)))


def print_notes(name: str, notes: Sequence[str]) -> None:
    """What people should know of a file or a case, on the error stream."""
    for note in notes:
        _ERR.print(f"Note: {name}: {note}", markup=False, style="yellow")


def print_comparison(comparison: Comparison) -> None:
    """Each measure before and after, and whether that is better."""
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
    _OUT.print(table, soft_wrap=False)
    if comparison.reference is None:
        _OUT.print("Without the true stem (--reference) nobody can say how close the sound is to it.")


def print_validation(results: Sequence[CaseResult], page: Path) -> None:
    """A table by type, and the cases that gained least."""
    from .validate import HARM_DB, clean_sdr_db, harmed, summarise, worst

    for result in results:
        print_notes(result.case.name, result.notes)
    table = Table("type", "measure", "cases", "before", "after", "gain", "mean, 95% interval", "improved")
    for row in summarise(results):
        interval = f"{row.gain:+.3f}, {row.low:+.3f} to {row.high:+.3f}"
        numbers = [f"{row.before:.2f}", f"{row.after:.2f}", f"{row.median_gain:+.3f}", interval]
        colour = "green" if row.low > 0 else "red" if row.high < 0 else ""
        table.add_row(
            Text(row.kind), row.measure, str(row.cases), *numbers[:2], Text(numbers[2], style=colour), numbers[3],
            f"{100 * row.improved:.0f}%",
        )  # fmt: skip
    _OUT.print(table, soft_wrap=False)
    clean, worst_clean = clean_sdr_db(results)
    _OUT.print(f"True stems come back at {clean:.1f} dB SDR (median), {worst_clean:.1f} dB (worst)")
    least = ", ".join(f"{result.case.name} ({result.gain('SI-SDR'):+.2f} dB)" for result in worst(results)[:3])
    _OUT.print(f"{100 * harmed(results):.0f}% of the cases lost over {HARM_DB} dB of SI-SDR")
    _OUT.print(Text(f"Least gained: {least}"))
    _OUT.print(Text(f"Gains are medians and count upwards for every measure. To hear and see it: {page}"))


def print_presets(presets: Sequence[Preset], user_folder: Path) -> None:
    """All presets as a table, and where to put one's own."""
    table = Table("name", "repairs", "trained", "from")
    for preset in presets:
        origin = "StemProver" if preset.is_shipped else "you"
        table.add_row(
            Text(preset.name, style="bold"), Text(preset.artefact), "yes" if preset.trained else "not yet", origin
        )
    _OUT.print(table, soft_wrap=False)
    _OUT.print(Text(f"Your own presets go into {user_folder}, one folder each"))


def print_preset(preset: Preset) -> None:
    """One preset in full."""
    _OUT.print(Text(f"{preset.title} ({preset.name})", style="bold"))
    lines = [preset.description, f"repairs: {preset.artefact}", f"wet: {preset.wet:g}"]
    if preset.separated:
        lines.append("separated: yes, a Wiener filter and the rest of the song help (--mix)")
    if preset.note or not preset.trained:
        lines.append(f"trained: {'yes' if preset.trained else 'not yet'}{'; ' + preset.note if preset.note else ''}")
    lines += [f"adapter: {file.name} at {weight:g}" for file, weight in preset.adapters.items()] or [
        "adapter: none, the base model alone"
    ]
    for when, links in (("before", preset.before), ("after", preset.after)):
        for link in links:
            settings = ", ".join(f"{key} = {value:g}" for key, value in link.parameters.items())
            lines.append(f"{when}: {link.plugin}{' (' + settings + ')' if settings else ''}")
    lines.append(f"file: {preset.path}")
    for line in lines:
        _OUT.print(Text(line))

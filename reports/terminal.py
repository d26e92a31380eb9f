"""Everything that is printed passes here: progress, results and errors. Progress, notes and errors go to stderr.

File names and tags come from others and may hold escape sequences, which would command the terminal. They are shown as
text: backslash and code.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.segment import Segment
from rich.text import Text

from ..engine.detect.analysis import Finding
from ..engine.errors import SHOWN, StemProverError
from ..engine.preset import Preset
from ..offline.audiofile import clock
from ..offline.auto import JobChoices, RepairerChoice
from ..offline.batch import BatchListener, BatchSettings, repair_batch
from ..offline.journal import Journal
from ..offline.plan import BatchJob, BatchPlan, JobDefaults
from ..offline.render import Progress, RenderReport
from ..offline.stem_set import SetReport
from ..offline.workers import Crew, repair_by_crew
from .batch import BatchReport

_SHOWN_IN_LINES = {code: shown for code, shown in SHOWN.items() if code not in (ord("\n"), ord("\t"))}


_NAMES: dict[str, str] = {}


def show_as(path: Path, name: str) -> None:
    """Call a file by another name from now on, such as a temporary file by that of the pipe it comes from."""
    _NAMES[str(path)] = name


def printable(text: str) -> str:
    """One line in which control characters are shown as text."""
    for path, name in _NAMES.items():
        text = text.replace(path, name)
    return text.translate(SHOWN)


class _Terminal(Console):
    """Prints no control characters but its own."""

    def render(self, renderable: RenderableType, options: ConsoleOptions | None = None) -> Iterable[Segment]:
        for segment in super().render(renderable, options):
            text, style, control = segment
            yield segment if control else Segment(text.translate(_SHOWN_IN_LINES), style)


OUT = _Terminal(soft_wrap=True, highlight=False)
ERR = _Terminal(soft_wrap=True, highlight=False, stderr=True)


def say(line: str) -> None:
    """One line of a result."""
    OUT.print(Text(printable(line)))


def warn(line: str) -> None:
    """One line on stderr."""
    ERR.print(Text(printable(line), style="yellow"))


def print_error(error: StemProverError, *, path: Path | None = None, others: Sequence[Path] = ()) -> None:
    """One line on stderr. It starts with the file `path` unless the message names it, or begins with one of `others`,
    such as an output."""
    message = str(error).strip()
    if path is not None and str(path) not in message and not message.startswith(tuple(map(str, others))):
        message = f"{path}: {message}"
    ERR.print(Text.assemble(("Error: ", "bold red"), printable(message)))


def print_notes(name: str, notes: Sequence[str]) -> None:
    """Notes about a file, case or preset, one line each on stderr."""
    for note in notes:
        warn(f"Note: {name}: {note}")


class _Speed(ProgressColumn):
    """Seconds of audio per second of work."""

    def render(self, task: Task) -> Text:
        speed = task.finished_speed or task.speed
        return Text("" if speed is None else f"{speed:.1f}x real time", style="cyan")


@contextlib.contextmanager
def file_progress(name: str, *, show_speed: bool = True) -> Iterator[Progress]:
    """A progress bar, removed when done and only shown on a terminal.

    Yields a callback for the amounts done and in total. show_speed: they are seconds of audio, so show the speed as a
    multiple of real time.
    """
    columns: tuple[ProgressColumn, ...] = (
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeRemainingColumn(),
        *([_Speed()] if show_speed else []),
    )
    # stdout may be a file while the bar is on the terminal, so the bar must not redirect what is printed.
    with Bars(
        *columns,
        console=ERR,
        transient=True,
        disable=not ERR.is_terminal,
        redirect_stdout=False,
        redirect_stderr=False,
    ) as bars:
        task = bars.add_task(printable(name), total=None)
        yield lambda done_s, total_s: bars.update(task, completed=done_s, total=total_s)


@contextlib.contextmanager
def batch_progress(interval_s: float = 60.0) -> Iterator[Callable[[int, int, str], None]]:
    """A progress bar for a batch, or without a terminal a line on stderr every `interval_s`.

    Yields a callback for the stems done, the stems in total, and a line about them.
    """
    bar = BarColumn(), TextColumn("{task.description}", markup=False), TimeRemainingColumn()
    began_s = told_s = time.monotonic()
    with Bars(*bar, console=ERR, transient=True, disable=not ERR.is_terminal, redirect_stdout=False,
              redirect_stderr=False) as bars:  # fmt: skip
        task = bars.add_task("", total=None)

        def show(done: int, total: int, line: str) -> None:
            nonlocal told_s
            bars.update(task, completed=done, total=total, description=line)
            now_s = time.monotonic()
            if not ERR.is_terminal and now_s - told_s >= interval_s:
                told_s = now_s
                left = clock((now_s - began_s) / done * (total - done))[:-4]
                ERR.print(Text(f"{line}, {left} left"))

        yield show


class _TerminalListener(BatchListener):
    """Shows the progress and results of a batch. report: is told, too."""

    def __init__(self, plan: BatchPlan, report: BatchListener) -> None:
        self._jobs, self._name, self.already, self._report = len(plan.jobs), "", 0, report
        targets = [job.target for job in plan.jobs]
        self.left_out: list[RenderReport] = []
        self._others = [*targets, *{target.parent for target in targets}, *{job.mix for job in plan.jobs if job.mix}]

    def started(self, number: int, job: BatchJob) -> None:
        self._name = f"[{number + 1}/{self._jobs}] {job.source.name}" if self._jobs > 1 else job.source.name

    def analysing(self) -> AbstractContextManager[Progress]:
        return file_progress(f"{self._name}: analysing")

    def chose(self, job: BatchJob, preset: Preset) -> None:
        print_notes(job.source.name, [preset.note])
        self._report.chose(job, preset)

    def repairing(self) -> AbstractContextManager[Progress]:
        return file_progress(self._name)

    def repaired(self, job: BatchJob, report: RenderReport) -> None:
        say(report.render())
        if report.mix_left_out:
            self.left_out.append(report)
        self._report.repaired(job, report)

    def already_done(self, job: BatchJob) -> None:
        self.already += 1
        say(f"{job.source} -> {job.target}: already done")
        self._report.already_done(job)

    def failed(self, path: Path, error: StemProverError) -> None:
        print_error(error, path=path, others=self._others)
        self._report.failed(path, error)

    def summing(self) -> AbstractContextManager[Progress]:
        return file_progress("making the stems sum to the mix")

    def summed(self, report: SetReport) -> None:
        say(report.render())

    def heard(self, job: BatchJob, before: Sequence[Finding], after: Sequence[Finding]) -> None:
        self._report.heard(job, before, after)


class _CrewListener(_TerminalListener):
    """Shows how far several workers are. show: as `batch_progress` yields it."""

    def __init__(self, plan: BatchPlan, report: BatchListener, show: Callable[[int, int, str], None]) -> None:
        super().__init__(plan, report)
        self._show, self._began_s = show, time.monotonic()
        self._done, self._failed, self._sound_s, self._providers = 0, 0, 0.0, set[str]()

    def repaired(self, job: BatchJob, report: RenderReport) -> None:
        super().repaired(job, report)
        self._sound_s += report.duration_s

    def failed(self, path: Path, error: StemProverError) -> None:
        super().failed(path, error)
        self._failed += 1

    def ran_on(self, provider: str) -> None:
        if provider:
            self._providers.add({"cpu": "CPU", "cuda": "CUDA"}[provider])

    def finished(self, song: Sequence[BatchJob], workers: int = 1) -> None:
        self._done += len(song)
        failed = f", {self._failed} failed" if self._failed else ""
        crew = f"{workers} worker{'s' * (workers != 1)}"
        self._show(self._done, self._jobs, f"{self._done} of {self._jobs} stems{failed}, {self._speed()}, {crew}")

    def _speed(self) -> str:
        elapsed_s = time.monotonic() - self._began_s
        where = f" on {' and '.join(sorted(self._providers))}" if self._providers else ""
        return f"{clock(self._sound_s)[:-4]} of sound at {self._sound_s / elapsed_s:.1f}x real time{where}"

    def summary(self) -> str:
        """What all workers did, or "" if they had nothing to do."""
        return f"{self._speed()}, in {clock(time.monotonic() - self._began_s)[:-4]}" if self._sound_s else ""


def pair_plan(plan: BatchPlan, mixes: Path, *, require_mix: bool) -> BatchPlan:
    """A plan with the mix of each song, from a folder of mixes (`pairing.pair_with_mixes`). Says what has none."""
    from ..offline.pairing import pair_with_mixes

    with file_progress("looking for the mixes", show_speed=False) as progress:
        found = pair_with_mixes(plan, mixes, require_mix=require_mix, progress=progress)
    paired = found.songs - len(found.without)
    say(f"{paired} of {found.songs} {'song has its mix' if found.songs == 1 else 'songs have their mix'} in {mixes}")
    for song in found.without:
        done = "left out" if require_mix else "repaired without"
        warn(f"Note: no mix for {song.name} ({len(song.jobs)} file{'s' * (len(song.jobs) != 1)}): {done}")
    return found.plan


def run_plan(
    plan: BatchPlan,
    choice: RepairerChoice | JobChoices,
    settings: BatchSettings,
    defaults: JobDefaults,
    *,
    journal: Journal | None = None,
    report: BatchReport | None = None,
) -> int:
    """Repair every file of a plan and show how each went. Arguments as in `repair_batch`.

    Returns the exit code: 0 if all went well, 3 if so but a mix was left out, 2 if only inputs were wrong, else 1.
    """
    _print_plan_notes(plan, defaults)
    listener = _TerminalListener(plan, report or BatchListener())
    failures = repair_batch(plan, choice, listener, settings, journal=journal)
    return _result(plan, listener, failures, report)


def run_plan_by_crew(plan: BatchPlan, crew: Crew, defaults: JobDefaults, *, report: BatchReport | None = None) -> int:
    """As `run_plan`, by several workers."""
    _print_plan_notes(plan, defaults)
    with batch_progress() as show:
        listener = _CrewListener(plan, report or BatchListener(), show)
        failures = repair_by_crew(plan, crew, listener)
    code = _result(plan, listener, failures, report)
    if summary := listener.summary():
        say(summary)
    return code


def _print_plan_notes(plan: BatchPlan, defaults: JobDefaults) -> None:
    for job in plan.jobs:
        if job.rest and len(plan.jobs) > 1 and job.rest.name > job.source.name:
            note = f"no mix given, so the sum of {job.source.name} and {job.rest.name} is used as the mix"
            ERR.print(Text(f"Note: {note}", "yellow"))
    if (preset := defaults.preset) is None:
        return
    if preset.note:
        print_notes(f"preset {preset.name}", [preset.note])
    if preset.separated and not plan.has_mix:
        print_notes(f"preset {preset.name}", ["repairs stems from a separator and needs their mix (--mix FILE)"])
    elif not plan.has_mix and (preset.is_shipped or preset.path is None):
        # A user's own may be made for stems alone.
        warn(f"Note: {preset.name} needs the mix: give --mix; without it hardly anything is repaired")


def _result(
    plan: BatchPlan,
    listener: _TerminalListener,
    failures: Sequence[tuple[Path, StemProverError]],
    report: BatchReport | None,
) -> int:
    """Say how the whole batch went; returns the exit code."""
    if report is not None:
        report.write()
        say(f"report: {report.target}")
    total, without = len(plan.jobs) + len(plan.failures), _without_mix(listener.left_out)
    if total > 1:
        done, already = total - len(failures) - len(listener.left_out) - listener.already, listener.already
        counted = f"{done} repaired, {already} already done" if already else f"{done} of {total} repaired"
        say(f"{counted}, {len(failures)} failed:" if failures else ", ".join([counted, *without]))
        for path, _ in failures:
            say(f"  {path}")
        if failures and without:
            say(", ".join(without))
    if not failures:
        return 3 if listener.left_out else 0
    return 2 if all(error.exit_code == 2 for _, error in failures) else 1


def _without_mix(left_out: Sequence[RenderReport]) -> list[str]:
    """What happened to the stems that their mix does not fit."""
    unchanged = sum(report.correction_db is None for report in left_out)
    others = len(left_out) - unchanged
    as_before = "as it was" if unchanged == 1 else "as they were"
    return [f"{unchanged} left {as_before}: the mix does not fit"] * bool(unchanged) + [
        f"{others} repaired without the mix: it does not fit"
    ] * bool(others)

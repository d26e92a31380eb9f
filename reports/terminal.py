"""Everything that is printed passes here: progress, results and errors. Progress, notes and errors go to stderr.

File names and tags come from others and may hold escape sequences, which would command the terminal. They are shown as
text: backslash and code.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from rich.console import Console, ConsoleOptions, RenderableType
from rich.progress import BarColumn, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.segment import Segment
from rich.text import Text

from ..engine.errors import SHOWN, StemProverError
from ..engine.preset import Preset
from ..offline.auto import RepairerChoice
from ..offline.batch import BatchListener, repair_batch
from ..offline.journal import Journal
from ..offline.plan import BatchJob, BatchPlan
from ..offline.render import Progress, RenderReport
from ..offline.stem_set import SetReport

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


class _TerminalListener(BatchListener):
    """Shows the progress and results of a batch."""

    def __init__(self, plan: BatchPlan) -> None:
        self._jobs, self._name, self.already = len(plan.jobs), "", 0
        targets = [job.target for job in plan.jobs]
        self.left_out: list[RenderReport] = []
        self._others = [*targets, *{target.parent for target in targets}, *{job.mix for job in plan.jobs if job.mix}]

    def started(self, number: int, job: BatchJob) -> None:
        self._name = f"[{number + 1}/{self._jobs}] {job.source.name}" if self._jobs > 1 else job.source.name

    def analysing(self) -> AbstractContextManager[Progress]:
        return file_progress(f"{self._name}: analysing")

    def chose(self, job: BatchJob, preset: Preset) -> None:
        print_notes(job.source.name, [preset.note])

    def repairing(self) -> AbstractContextManager[Progress]:
        return file_progress(self._name)

    def repaired(self, job: BatchJob, report: RenderReport) -> None:
        say(report.render())
        if report.mix_left_out:
            self.left_out.append(report)

    def already_done(self, job: BatchJob) -> None:
        self.already += 1
        say(f"{job.source} -> {job.target}: already done")

    def failed(self, path: Path, error: StemProverError) -> None:
        print_error(error, path=path, others=self._others)

    def summing(self) -> AbstractContextManager[Progress]:
        return file_progress("making the stems sum to the mix")

    def summed(self, report: SetReport) -> None:
        say(report.render())


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
    choice: RepairerChoice,
    *,
    overwrite: bool,
    sum_to_mix: bool = False,
    journal: Journal | None = None,
    require_mix: bool = False,
    residual: Path | None = None,
    role: str | None = None,
) -> int:
    """Repair every file of a plan and show how each went. Arguments as in `repair_batch`.

    Returns the exit code: 0 if all went well, 3 if so but a mix was left out, 2 if only inputs were wrong, else 1.
    """
    for job in plan.jobs:
        if job.rest and len(plan.jobs) > 1 and job.rest.name > job.source.name:
            note = f"no mix given, so the sum of {job.source.name} and {job.rest.name} is used as the mix"
            ERR.print(Text(f"Note: {note}", "yellow"))
    if isinstance(choice, tuple):
        preset = choice[1]
        if preset.note:
            print_notes(f"preset {preset.name}", [preset.note])
        if preset.separated and not plan.has_mix:
            print_notes(f"preset {preset.name}", ["repairs stems from a separator and needs their mix (--mix FILE)"])
        elif not plan.has_mix and (preset.is_shipped or preset.path is None):
            # A user's own may be made for stems alone.
            warn("Note: without --mix hardly anything is repaired")
    listener = _TerminalListener(plan)
    failures = repair_batch(
        plan, choice, listener, overwrite=overwrite, sum_to_mix=sum_to_mix, require_mix=require_mix, residual=residual,
        role=role, journal=journal,
    )  # fmt: skip
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

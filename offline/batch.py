"""Repairs many files, song by song. One that fails does not stop the others."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

from ..engine.detect.analysis import Finding
from ..engine.errors import OutputError, StemProverError
from ..engine.preset import Preset
from .analysis import analyse_pair
from .audiofile import probe
from .auto import JobChoices, RepairerChoice
from .formats import choose_format
from .journal import Journal
from .outfile import check_output, make_folder
from .pair import StemAndMix
from .plan import BatchJob, BatchPlan
from .render import Progress, RenderReport, render_pair
from .stem_set import SetReport, complete_set, find_sets


class BatchListener:
    """Receives the events of a batch. The methods here do nothing: override those you need."""

    def started(self, number: int, job: BatchJob) -> None:
        """Work on job `number` (from 0) begins."""

    def analysing(self) -> AbstractContextManager[Progress | None]:
        """Surrounds the choice of a preset (`AutoChoice` only); yields a callback for its progress."""
        return nullcontext()

    def chose(self, job: BatchJob, preset: Preset) -> None:
        """`AutoChoice` chose this preset for the present job."""

    def repairing(self) -> AbstractContextManager[Progress | None]:
        """Surrounds the repair of the present job; yields a callback for its progress."""
        return nullcontext()

    def repaired(self, job: BatchJob, report: RenderReport) -> None:
        """The present job is done."""

    def ran_on(self, provider: str) -> None:
        """A worker (workers.py) has its model on this provider, 'cuda' or 'cpu'; empty if it needed none."""

    def already_done(self, job: BatchJob) -> None:
        """An earlier run finished the present job."""

    def failed(self, path: Path, error: StemProverError) -> None:
        """This input could not be repaired, or the repaired stems could not be made to sum to this mix."""

    def heard(self, job: BatchJob, before: Sequence[Finding], after: Sequence[Finding]) -> None:
        """With `BatchSettings.analyse`: what the detectors find in the stem and in its result, after the last change to
        it."""

    def finished(self, song: Sequence[BatchJob], workers: int = 1) -> None:
        """All work on the stems of a song is over. workers: that there are at present."""

    def summing(self) -> AbstractContextManager[Progress | None]:
        """Surrounds `complete_set`; yields a callback for its progress, which restarts for each stem."""
        return nullcontext()

    def summed(self, report: SetReport) -> None:
        """The repaired stems were checked for being a complete set, and if they are, made to sum to the mix."""


@dataclass(frozen=True)
class BatchSettings:
    """What holds for all songs of a batch.

    overwrite: results may replace older files. sum_to_mix: make the repaired stems of a song sum to its mix, if all
    went well with them and none is missing. residual: write here what the stems do not hold of the mix. require_mix: a
    stem that the mix does not fit fails. role: of all stems, in place of what their names say. analyse: tell the
    listener what the detectors find before and after, also of results that an earlier run has finished.
    """

    overwrite: bool = False
    sum_to_mix: bool = False
    require_mix: bool = False
    residual: Path | None = None
    role: str | None = None
    analyse: bool = False


def repair_batch(
    plan: BatchPlan,
    choice: RepairerChoice | JobChoices,
    listener: BatchListener,
    settings: BatchSettings | None = None,
    *,
    check: Callable[[BatchJob], None] | None = None,
    journal: Journal | None = None,
) -> list[tuple[Path, StemProverError]]:
    """Repair all files of a plan, each with its job's mix. Returns the inputs that failed, and why.

    check: called before each job; raises StemProverError to refuse it.
    journal: of the output folder. What it calls finished is not repaired again, unless `overwrite` is set.
    """
    settings = settings or BatchSettings()
    songs = SongRepairer(choice, listener, settings, plan.inputs, check, journal)
    for path, error in plan.failures:
        songs.fail(path, error)
    number, all_repaired = 0, not plan.failures
    for song in plan.songs:
        # What cannot be read may be a stem of the only song.
        all_repaired &= songs.repair(song, number, is_whole=not plan.failures or len(plan.songs) > 1)
        listener.finished(song)
        number += len(song)
    if settings.residual is not None and not all_repaired:
        listener.failed(settings.residual, OutputError(f"{settings.residual} was not written, because a stem failed"))
    return songs.failures


@dataclass
class SongRepairer:
    """Repairs one song after another. inputs: files that no result may replace. check, journal: as in `repair_batch`.
    failures: of all songs up to now."""

    choice: RepairerChoice | JobChoices
    listener: BatchListener
    settings: BatchSettings
    inputs: Sequence[Path]
    check: Callable[[BatchJob], None] | None = None
    journal: Journal | None = None
    failures: list[tuple[Path, StemProverError]] = field(default_factory=list)

    def fail(self, path: Path, error: StemProverError) -> None:
        """Note and report that an input failed."""
        self.failures.append((path, error))
        self.listener.failed(path, error)

    def repair(self, song: Sequence[BatchJob], number: int = 0, *, is_whole: bool = True) -> bool:
        """Repair the stems of a song (`BatchPlan.songs`) and make them sum to their mix. number: of its first job.
        is_whole: whether these are all of its stems. Returns whether all went well with them."""
        resumes = self.journal is not None and not self.settings.overwrite
        done, again, summed = self.journal.sort(song) if self.journal is not None and resumes else ((), (), ())
        pairs: dict[BatchJob, StemAndMix] = {}
        for offset, job in enumerate(song):
            self.listener.started(number + offset, job)
            try:
                if self.check is not None:
                    self.check(job)
                if job in done:
                    self.listener.already_done(job)
                    continue
                pair, report = self._repair(job, may_replace=self.settings.overwrite or job in again)
            except StemProverError as error:
                is_whole = False
                self.fail(job.source, error)
            except Exception as error:
                is_whole = False
                self.fail(job.source, internal_error(error))
            else:
                pairs[job] = pair
                self.listener.repaired(job, report)
        if is_whole and song[0].beside is not None and (self.settings.residual or not set(song) <= set(summed)):
            self._sum(song, pairs)
        if self.settings.analyse:
            for job in [job for job in song if job in pairs or job in done]:
                self._analyse(job, pairs.get(job))
        return is_whole

    def _choice(self, job: BatchJob) -> RepairerChoice:
        return self.choice.of(job) if isinstance(self.choice, JobChoices) else self.choice

    def _repair(self, job: BatchJob, *, may_replace: bool) -> tuple[StemAndMix, RenderReport]:
        check_output(job.target, self.inputs, overwrite=may_replace)
        if self.journal is not None:
            self.journal.note_inputs(job)
        info = probe(job.source)
        choose_format(info, job.target)  # raises for a wrong file type before anything takes time
        make_folder(job.target.parent)
        pair = StemAndMix.open(info, job.mix, rest=job.rest, role=self.settings.role)
        if self.settings.require_mix:
            pair.require_mix()
        choice = self._choice(job)
        if isinstance(choice, tuple):
            repairer, preset = choice
        else:
            with self.listener.analysing() as progress:
                repairer, preset = choice(pair, progress)
            self.listener.chose(job, preset)
        with self.listener.repairing() as progress:
            report = render_pair(
                pair, job.target, repairer, preset=preset, overwrite=may_replace, progress=progress,
                written=partial(self.journal.record, job) if self.journal is not None else None,
            )  # fmt: skip
        return pair, report

    def _sum(self, song: Sequence[BatchJob], pairs: dict[BatchJob, StemAndMix]) -> None:
        """Make the results sum to the mix."""
        residual = self.settings.residual
        if residual is None and (not self.settings.sum_to_mix or any(map(self._has_plugins, song))):
            return
        try:
            for found in find_sets([(pairs.get(job) or _opened(job), job.target) for job in song]):
                if len(found) < 2 and residual is None:
                    continue
                with self.listener.summing() as progress:
                    report = complete_set(
                        found, residual=residual, overwrite=self.settings.overwrite, progress=progress
                    )
                self.listener.summed(report)
        except StemProverError as error:
            self.fail(song[0].mix or song[0].source, error)
        else:
            if self.journal is not None and len(song) > 1:
                self.journal.record_sum(song)

    def _analyse(self, job: BatchJob, pair: StemAndMix | None) -> None:
        try:
            before = pair or _opened(job)
            after = replace(before, stem=probe(job.target))
            self.listener.heard(job, *(analyse_pair(one).findings for one in (before, after)))
        except StemProverError as error:
            self.fail(job.target, error)

    def _has_plugins(self, job: BatchJob) -> bool:
        """Whether plugins are to change how the result sounds, so that it must not sum to the mix."""
        if isinstance(self.choice, JobChoices):
            preset = self.choice.defaults.preset_of(job)
        else:
            preset = self.choice[1] if isinstance(self.choice, tuple) else None
        return preset is not None and bool(preset.before or preset.after)


def internal_error(error: Exception) -> StemProverError:
    """What to say of an error that is a fault of this program."""
    if os.environ.get("STEMPROVER_DEBUG"):
        traceback.print_exception(error)
    what = f"internal error: {type(error).__name__}: {error}"
    return StemProverError(f"{what}; please report it with the output of STEMPROVER_DEBUG=1")


def _opened(job: BatchJob) -> StemAndMix:
    """The pair of a job that an earlier run has finished."""
    return StemAndMix.open(job.source, job.mix, rest=job.rest)

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
from .audiofile import AudioInfo, probe
from .auto import JobChoices, RepairerChoice
from .formats import choose_format
from .journal import Journal
from .outfile import make_folder
from .pair import StemAndMix
from .plan import BatchJob, BatchPlan
from .render import Progress, RenderReport, render_pair
from .staging import Staging
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
        with Staging() as files:
            try:
                return self._repair_song(song, number, files, is_whole=is_whole)
            except StemProverError as error:
                self.fail(song[0].source, files.named(error))
                return False

    def _repair_song(self, song: Sequence[BatchJob], number: int, files: Staging, *, is_whole: bool) -> bool:
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
                pair, report = self._repair(job, files, may_replace=self.settings.overwrite or job in again)
            except StemProverError as error:
                is_whole = False
                self.fail(job.source, files.named(error))
            except Exception as error:
                is_whole = False
                self.fail(job.source, internal_error(error))
            else:
                pairs[job] = pair
                self.listener.repaired(job, report)
        is_summed = False
        if is_whole and song[0].beside is not None and (self.settings.residual or not set(song) <= set(summed)):
            is_summed = self._sum(song, pairs, files)
        self._store(song if is_summed else list(pairs), files, is_summed=is_summed)
        if self.settings.analyse:
            for job in [job for job in song if job in pairs or job in done]:
                self._analyse(job, pairs.get(job), files)
        return is_whole

    def _choice(self, job: BatchJob) -> RepairerChoice:
        return self.choice.of(job) if isinstance(self.choice, JobChoices) else self.choice

    def _repair(self, job: BatchJob, files: Staging, *, may_replace: bool) -> tuple[StemAndMix, RenderReport]:
        files.check_output(job.target, self.inputs, overwrite=may_replace)
        if self.journal is not None:
            self.journal.note_inputs(job)
        info, target = probe(files.read(job.source)), files.local(job.target)
        choose_format(info, target)  # raises for a wrong file type before anything takes time
        make_folder(target.parent)
        pair = self._opened(job, files, info)
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
                pair, target, repairer, preset=preset, overwrite=may_replace, progress=progress,
                written=partial(self.journal.record, job) if self.journal is not None else None,
            )  # fmt: skip
        return pair, replace(report, source=job.source, target=job.target)

    def _opened(self, job: BatchJob, files: Staging, info: AudioInfo | None = None) -> StemAndMix:
        """A stem and its mix. info: of the stem, if it is open already."""
        mix, rest = (None if path is None else files.read(path) for path in (job.mix, job.rest))
        return StemAndMix.open(info or files.read(job.source), mix, rest=rest, role=self.settings.role)

    def _sum(self, song: Sequence[BatchJob], pairs: dict[BatchJob, StemAndMix], files: Staging) -> bool:
        """Make the results sum to the mix. Returns whether that is done with, as it is if they need not."""
        residual = self.settings.residual
        if residual is None and (not self.settings.sum_to_mix or any(map(self._has_plugins, song))):
            return False
        try:
            for found in find_sets(
                [(pairs.get(job) or self._opened(job, files), files.read(job.target)) for job in song]
            ):
                if len(found) < 2 and residual is None:
                    continue
                with self.listener.summing() as progress:
                    report = complete_set(
                        found, residual=residual, overwrite=self.settings.overwrite, progress=progress
                    )
                self.listener.summed(report)
        except StemProverError as error:
            self.fail(song[0].mix or song[0].source, files.named(error))
            return False
        return len(song) > 1

    def _store(self, jobs: Sequence[BatchJob], files: Staging, *, is_summed: bool) -> None:
        """Note that results were made to sum to their mix, and copy them to where they belong."""
        if is_summed and self.journal is not None:
            self.journal.record_sum([(job, files.local(job.target)) for job in jobs])
        for job in jobs:
            try:
                files.store(job.target)
            except StemProverError as error:
                self.fail(job.source, error)

    def _analyse(self, job: BatchJob, pair: StemAndMix | None, files: Staging) -> None:
        try:
            before = pair or self._opened(job, files)
            after = replace(before, stem=probe(files.read(job.target)))
            self.listener.heard(job, *(analyse_pair(one).findings for one in (before, after)))
        except StemProverError as error:
            self.fail(job.target, files.named(error))

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

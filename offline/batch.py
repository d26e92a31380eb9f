"""Repairs many files, song by song. One that fails does not stop the others."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path

from ..engine.errors import OutputError, StemProverError
from ..engine.preset import Preset
from .audiofile import probe
from .auto import RepairerChoice
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

    def already_done(self, job: BatchJob) -> None:
        """An earlier run finished the present job."""

    def failed(self, path: Path, error: StemProverError) -> None:
        """This input could not be repaired, or the repaired stems could not be made to sum to this mix."""

    def summing(self) -> AbstractContextManager[Progress | None]:
        """Surrounds `complete_set`; yields a callback for its progress, which restarts for each stem."""
        return nullcontext()

    def summed(self, report: SetReport) -> None:
        """The repaired stems were checked for being a complete set, and if they are, made to sum to the mix."""


def repair_batch(
    plan: BatchPlan,
    choice: RepairerChoice,
    listener: BatchListener,
    *,
    overwrite: bool = False,
    sum_to_mix: bool = False,
    require_mix: bool = False,
    residual: Path | None = None,
    role: str | None = None,
    check: Callable[[BatchJob], None] | None = None,
    journal: Journal | None = None,
) -> list[tuple[Path, StemProverError]]:
    """Repair all files of a plan, each with its job's mix. Returns the inputs that failed, and why.

    sum_to_mix: make the repaired stems of a song sum to its mix, if all went well with them and none is missing.
    residual: write here what the stems do not hold of the mix. require_mix: a stem that the mix does not fit fails.
    role: of all stems, in place of what their names say.
    check: called before each job; raises StemProverError to refuse it.
    journal: of the output folder. What it calls finished is not repaired again, unless `overwrite` is set.
    """
    failures: list[tuple[Path, StemProverError]] = []

    def fail(path: Path, error: StemProverError) -> None:
        failures.append((path, error))
        listener.failed(path, error)

    for path, error in plan.failures:
        fail(path, error)
    done, again, summed = journal.sort(plan.jobs) if journal is not None and not overwrite else ((), (), ())
    has_plugins = isinstance(choice, tuple) and bool(choice[1].before or choice[1].after)
    makes_sums = residual is not None or (sum_to_mix and not has_plugins)
    number, all_repaired = 0, not plan.failures
    for song in plan.songs:
        pairs: dict[BatchJob, StemAndMix] = {}
        whole = not plan.failures or len(plan.songs) > 1  # what cannot be read may be a stem of the only song
        for job in song:
            listener.started(number, job)
            number += 1
            try:
                if check is not None:
                    check(job)
                if job in done:
                    listener.already_done(job)
                    continue
                may_replace = overwrite or job in again
                check_output(job.target, plan.inputs, overwrite=may_replace)
                if journal is not None:
                    journal.note_inputs(job)
                info = probe(job.source)
                choose_format(info, job.target)  # raises for a wrong file type before anything takes time
                make_folder(job.target.parent)
                pair = StemAndMix.open(info, job.mix, rest=job.rest, role=role)
                if require_mix:
                    pair.require_mix()
                if isinstance(choice, tuple):
                    repairer, preset = choice
                else:
                    with listener.analysing() as progress:
                        repairer, preset = choice(pair, progress)
                    listener.chose(job, preset)
                with listener.repairing() as progress:
                    report = render_pair(
                        pair, job.target, repairer, preset=preset, overwrite=may_replace, progress=progress,
                        written=partial(journal.record, job) if journal is not None else None,
                    )  # fmt: skip
            except StemProverError as error:
                whole = False
                fail(job.source, error)
            except Exception as error:
                if os.environ.get("STEMPROVER_DEBUG"):
                    traceback.print_exc()
                whole = False
                what = f"internal error: {type(error).__name__}: {error}"
                fail(job.source, StemProverError(f"{what}; please report it with the output of STEMPROVER_DEBUG=1"))
            else:
                pairs[job] = pair
                listener.repaired(job, report)
        all_repaired &= whole
        if not makes_sums or not whole or song[0].beside is None or (residual is None and set(song) <= set(summed)):
            continue
        try:
            for found in find_sets([(pairs.get(job) or _opened(job), job.target) for job in song]):
                if len(found) < 2 and residual is None:
                    continue
                with listener.summing() as progress:
                    summed_set = complete_set(found, residual=residual, overwrite=overwrite, progress=progress)
                listener.summed(summed_set)
        except StemProverError as error:
            fail(song[0].mix or song[0].source, error)
        else:
            if journal is not None and len(song) > 1:
                journal.record_sum(song)
    if residual is not None and not all_repaired:
        listener.failed(residual, OutputError(f"{residual} was not written, because a stem failed"))
    return failures


def _opened(job: BatchJob) -> StemAndMix:
    """The pair of a job that an earlier run has finished."""
    return StemAndMix.open(job.source, job.mix, rest=job.rest)

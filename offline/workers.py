"""Repairs many songs at once, each in one of several worker processes, on this machine or on others (cluster.py).

A worker has one song at a time, so a worker that dies takes one song with it, which another one gets. What happened to
a song comes back as a list of events, for the listener of the process that started it all.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from multiprocessing.connection import wait as wait_for_connections
from pathlib import Path
from typing import Any, Protocol

from ..engine.detect.analysis import Finding
from ..engine.errors import OutputExistsError, StemProverError
from ..engine.preset import Preset
from ..engine.repair import Repairer
from .auto import JobChoices
from .batch import BatchListener, BatchSettings, SongRepairer, internal_error
from .journal import JobSettings, open_journal
from .plan import BatchJob, BatchPlan, JobDefaults
from .render import RenderReport
from .stem_set import SetReport

MOST_ATTEMPTS = 3
POLL_S = 1.0  # how often a crew looks for new workers

Event = tuple[str, tuple[Any, ...]]
"""The name of a method of `BatchListener`, and its arguments."""


@dataclass(frozen=True)
class WorkerSetup:
    """All that a worker needs to know before its first song; it is sent to other processes.

    make_repairer, defaults: as in `JobChoices`. folder: for the results. checksums: of the jobs' settings.
    """

    make_repairer: Callable[..., Repairer]
    defaults: JobDefaults
    settings: BatchSettings
    folder: Path
    checksums: JobSettings


@dataclass(frozen=True)
class SongTask:
    """A song for a worker. number: of its first job. size: bytes of its stems. attempts: workers that died with it."""

    jobs: tuple[BatchJob, ...]
    number: int
    size: int
    attempts: int = 0


class SongWorker:
    """What runs inside a worker: holds the model, and repairs one song after another. name: of its journal."""

    def __init__(self, setup: WorkerSetup, name: str = "") -> None:
        self._settings, self._journal = setup.settings, open_journal(setup.folder, setup.checksums, name)
        self._choices = JobChoices(setup.make_repairer, setup.defaults)

    def repair(self, task: SongTask) -> list[Event]:
        """Repair a song. Errors are events like any other."""
        recorder = _Recorder()
        inputs = [path for job in task.jobs for path in (job.source, job.mix, job.rest) if path is not None]
        SongRepairer(self._choices, recorder, self._settings, inputs, journal=self._journal).repair(
            task.jobs, task.number
        )
        return [*recorder.events, ("ran_on", (self._choices.provider,))]


class _Recorder(BatchListener):
    """Keeps the events."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def started(self, number: int, job: BatchJob) -> None:
        self.events.append(("started", (number, job)))

    def chose(self, job: BatchJob, preset: Preset) -> None:
        self.events.append(("chose", (job, preset)))

    def repaired(self, job: BatchJob, report: RenderReport) -> None:
        self.events.append(("repaired", (job, report)))

    def already_done(self, job: BatchJob) -> None:
        self.events.append(("already_done", (job,)))

    def failed(self, path: Path, error: StemProverError) -> None:
        self.events.append(("failed", (path, error)))

    def heard(self, job: BatchJob, before: Sequence[Finding], after: Sequence[Finding]) -> None:
        self.events.append(("heard", (job, before, after)))

    def summed(self, report: SetReport) -> None:
        self.events.append(("summed", (report,)))


class Crew(Protocol):
    """The workers of a run, each with one song at a time. died: what a future raises if its worker died."""

    died: tuple[type[Exception], ...]

    @property
    def size(self) -> int:
        """How many workers there are at present."""

    def take(self) -> Any | None:
        """A worker without a song, if there is one, perhaps a new one. Does not wait."""

    def start(self, worker: Any, task: SongTask) -> Future[list[Event]]:
        """Have an idle worker repair a song."""

    def finished(self, worker: Any) -> None:
        """The worker is idle again."""

    def lost(self, worker: Any) -> None:
        """The worker died; another one may take its place."""

    def close(self) -> None:
        """End all workers within seconds, whatever they do."""


def repair_by_crew(plan: BatchPlan, crew: Crew, listener: BatchListener) -> list[tuple[Path, StemProverError]]:
    """`repair_batch` by several workers: the largest songs first, in any order of events between songs."""
    failures: list[tuple[Path, StemProverError]] = []

    def tell(events: Sequence[Event]) -> None:
        for name, arguments in events:
            if name == "failed":
                failures.append((arguments[0], arguments[1]))
            getattr(listener, name)(*arguments)

    tell([("failed", failure) for failure in plan.failures])
    tasks, refused = song_tasks(plan)
    tell(refused)
    with closing(crew):
        for task, events in _repaired(tasks, crew):
            tell(events)
            listener.finished(task.jobs, crew.size)
    return failures


def song_tasks(plan: BatchPlan) -> tuple[list[SongTask], list[Event]]:
    """The songs of a plan, and the jobs that would replace an input."""
    inputs, places = set(plan.inputs), set[tuple[int, int] | None](map(_place, plan.inputs)) - {None}
    tasks, refused, number = list[SongTask](), list[Event](), 0
    for song in plan.songs:
        for jobs in [song] if song[0].beside is not None else [(job,) for job in song]:
            wanted, size = [], 0
            for job in jobs:
                if job.target in inputs or _place(job.target) in places:
                    error = OutputExistsError(
                        f"{job.target} is an input and is never overwritten; choose another output"
                    )
                    refused.append(("failed", (job.source, error)))
                    continue
                wanted.append(job)
                with suppress(OSError):
                    size += job.source.stat().st_size
            if wanted:
                tasks.append(SongTask(tuple(wanted), number, size))
            number += len(jobs)
    return sorted(tasks, key=lambda task: task.size, reverse=True), refused


def _place(path: Path) -> tuple[int, int] | None:
    """Equal for all names of a file; None if there is none."""
    try:
        about = path.stat()
    except OSError:
        return None
    return about.st_dev, about.st_ino


def _repaired(tasks: Sequence[SongTask], crew: Crew) -> Iterator[tuple[SongTask, list[Event]]]:
    waiting = deque(tasks)
    running: dict[Future[list[Event]], tuple[Any, SongTask]] = {}
    while waiting or running:
        while waiting and (worker := crew.take()) is not None:
            task = waiting.popleft()
            running[crew.start(worker, task)] = worker, task
        done, _ = wait(running, timeout=POLL_S, return_when=FIRST_COMPLETED)
        for future in done:
            worker, task = running.pop(future)
            try:
                events = future.result()
            except crew.died:
                crew.lost(worker)
                task = replace(task, attempts=task.attempts + 1)
                if task.attempts < MOST_ATTEMPTS:
                    waiting.appendleft(task)
                    continue
                error = StemProverError(
                    f"the worker died {MOST_ATTEMPTS} times while it repaired this song; perhaps memory is short: "
                    "use fewer --workers"
                )
                events = [("failed", (job.source, error)) for job in task.jobs]
            except Exception as error:
                crew.finished(worker)
                events = [("failed", (job.source, internal_error(error))) for job in task.jobs]
            else:
                crew.finished(worker)
            yield task, events


@dataclass
class _Process:
    """A worker process of this machine: an executor of one, whose future is broken if the process dies."""

    executor: ProcessPoolExecutor
    pid: int | None = None
    begun: Future[int] | None = field(default=None, repr=False)


class LocalCrew:
    """Worker processes on this machine."""

    died: tuple[type[Exception], ...] = (BrokenProcessPool,)

    def __init__(self, setup: WorkerSetup, count: int) -> None:
        self._setup = setup
        self._all = [self._new() for _ in range(count)]
        self._idle = list(self._all)

    @property
    def size(self) -> int:
        """As in `Crew`."""
        return len(self._all)

    def _new(self) -> _Process:
        executor = ProcessPoolExecutor(
            1, multiprocessing.get_context("spawn"), initializer=_begin, initargs=(self._setup,)
        )
        return _Process(executor, begun=executor.submit(os.getpid))

    def take(self) -> _Process | None:
        """As in `Crew`."""
        return self._idle.pop() if self._idle else None

    def start(self, worker: _Process, task: SongTask) -> Future[list[Event]]:
        """As in `Crew`."""
        return worker.executor.submit(_repair, task)

    def finished(self, worker: _Process) -> None:
        """As in `Crew`."""
        self._idle.append(worker)

    def lost(self, worker: _Process) -> None:
        """As in `Crew`."""
        self._all.remove(worker)
        worker.executor.shutdown(wait=False)
        self._all.append(new := self._new())
        self._idle.append(new)

    def close(self) -> None:
        """As in `Crew`."""
        for worker in self._all:
            worker.executor.shutdown(wait=False, cancel_futures=True)
            if worker.begun is not None and worker.begun.done() and not worker.begun.cancelled():
                with suppress(BrokenProcessPool, ProcessLookupError):
                    os.kill(worker.begun.result(), signal.SIGTERM)
        for worker in self._all:
            worker.executor.shutdown()


_WORKER: SongWorker | None = None  # of this process


def _begin(setup: WorkerSetup) -> None:
    """Prepare a worker process: it ends with the process that started it, and cleans up when it is told to end."""
    global _WORKER
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal's whole group; the first process ends this one
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    parent = multiprocessing.parent_process()
    assert parent is not None
    threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    _WORKER = SongWorker(setup)


def _end_with(sentinel: int) -> None:
    wait_for_connections([sentinel])
    main_thread = threading.main_thread().ident
    if main_thread is not None and hasattr(signal, "pthread_kill"):
        signal.pthread_kill(main_thread, signal.SIGTERM)  # a signal to the process would not wake the main thread
    else:
        os.kill(os.getpid(), signal.SIGTERM)  # on Windows it ends the process at once


def _repair(task: SongTask) -> list[Event]:
    assert _WORKER is not None
    try:
        return _WORKER.repair(task)
    except SystemExit as end:  # all files are cleaned up; the executor would keep it as a result, and go on
        os._exit(end.code if isinstance(end.code, int) else 1)

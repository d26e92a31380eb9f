"""File rendering jobs: one at a time, in a process of its own, stored in SQLite so that none is lost."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import sqlite3
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Protocol

from ...engine.errors import StemProverError
from ...engine.preset import AUTO, load_preset
from ..osc import Code, ProtocolError
from .model_cache import steps_of

KEPT = 500  # finished jobs that are stored
REPORTED = 50  # of them in the bridge's status
_COLUMNS = "number TEXT PRIMARY KEY, source TEXT, mix TEXT, output TEXT, preset TEXT, quality TEXT, state TEXT, \
fraction REAL, stage TEXT, text TEXT, created REAL, attempts INTEGER, done TEXT"


@dataclass(frozen=True)
class Job:
    """A file or folder to repair. state: queued, running, done, failed or cancelled. fraction: 0 to 1. done: finished
    files. seconds_left: an estimate while it runs."""

    number: str
    source: str
    mix: str
    output: str
    preset: str
    quality: str
    state: str = "queued"
    fraction: float = 0.0
    stage: str = ""
    text: str = ""
    created: float = 0.0
    attempts: int = 0
    done: tuple[str, ...] = ()
    seconds_left: float | None = None

    @property
    def ended(self) -> bool:
        """Whether the job is done, failed or cancelled."""
        return self.state in ("done", "failed", "cancelled")

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


class Listener(Protocol):
    """Is called with each change."""

    def __call__(self, job: Job, request: int = 0) -> None: ...


class Store:
    """The jobs' database file. Raises StemProverError if it cannot be used."""

    def __init__(self, file: Path) -> None:
        self.file = file
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            self._base = sqlite3.connect(file, check_same_thread=False)
            self._base.execute("PRAGMA journal_mode=WAL")
            self._base.execute(f"CREATE TABLE IF NOT EXISTS jobs ({_COLUMNS})")
            self._base.commit()
        except (OSError, sqlite3.Error) as error:
            raise StemProverError(f"jobs cannot be stored in {file} ({error}); use another --jobs-file") from error

    def save(self, job: Job) -> None:
        """Add or replace a job."""
        values = asdict(job)
        values.pop("seconds_left")
        values["done"] = json.dumps(job.done)
        marks = ", ".join(f":{name}" for name in values)
        with self._base:
            self._base.execute(f"INSERT OR REPLACE INTO jobs ({', '.join(values)}) VALUES ({marks})", values)

    def forget(self, number: str) -> None:
        """Remove a job."""
        with self._base:
            self._base.execute("DELETE FROM jobs WHERE number = ?", (number,))

    def load(self) -> list[Job]:
        """All jobs, the oldest first."""
        cursor = self._base.execute("SELECT * FROM jobs ORDER BY created, rowid")
        names = [column[0] for column in cursor.description]
        jobs = []
        for row in cursor:
            values = dict(zip(names, row, strict=True))
            jobs.append(Job(**{**values, "done": tuple(json.loads(values["done"]))}))
        return jobs

    def close(self) -> None:
        """Close the file."""
        self._base.close()


class Jobs:
    """`start` resumes what was running when the bridge stopped; one job runs at a time."""

    def __init__(self, store: Store, roots: tuple[Path, ...], device: str = "auto", threads: int = 1) -> None:
        self.store, self.device, self.threads = store, device, threads
        self.roots = tuple(root.resolve() for root in roots)
        self.listeners: set[Listener] = set()
        self._jobs = {job.number: job for job in store.load()}
        self._disk = ThreadPoolExecutor(1, thread_name_prefix="stemprover-jobs")
        self._news = asyncio.Event()
        self._process: asyncio.subprocess.Process | None = None
        self._running: str | None = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Start working."""
        for job in self.list():
            if job.state == "running":
                self._jobs[job.number] = replace(job, state="queued", stage="to be resumed")
        self._task = asyncio.get_running_loop().create_task(self._work())

    async def stop(self) -> None:
        """Stop; the running job is resumed at the next start."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        await self._end_process()
        self._disk.shutdown()
        self.store.close()

    def list(self) -> list[Job]:
        """All jobs, the oldest first."""
        return list(self._jobs.values())

    def recent(self) -> tuple[Job, ...]:
        """Waiting and running jobs, and the REPORTED that ended last, the oldest first: for the often-read status."""
        ended = [number for number, job in self._jobs.items() if job.ended]
        old = set(ended[: max(0, len(ended) - REPORTED)])
        return tuple(job for number, job in self._jobs.items() if number not in old)

    async def add(self, source: str, mix: str, output: str, preset: str, quality: str) -> Job:
        """Queue a job. Raises ProtocolError, PresetError or OptionError for an impossible one."""
        steps_of(quality)
        if "/" in preset or "\\" in preset:
            raise ProtocolError(Code.PRESET, f"{preset!r} is not a preset's name; /presets lists them")
        if preset != AUTO:
            load_preset(preset)
        ends_in_slash = output.endswith(("/", os.sep))
        paths = [await self._on_disk(self._allowed, text) for text in (source, output)]
        song = str(await self._on_disk(self._allowed, mix)) if mix else ""
        if not await self._on_disk(paths[0].exists):
            raise ProtocolError(Code.PATH, f"{source}: no such file or directory")
        target = str(paths[1]) + ("/" if ends_in_slash else "")
        job = Job(secrets.token_hex(4), str(paths[0]), song, target, preset, quality, created=time.time())
        await self._put(job)
        self._news.set()
        return job

    async def cancel(self, number: str) -> Job:
        """Cancel a job; one that has ended stays as it is. Raises ProtocolError for an unknown one."""
        job = self._jobs.get(number)
        if job is None:
            raise ProtocolError(Code.JOB, f"there is no job {number[:20]!r}; /job/list lists them")
        if not job.ended:
            job = replace(job, state="cancelled", stage="", seconds_left=None)
            await self._put(job)
            if self._running == number:
                await self._end_process()
        return self._jobs[number]

    def _allowed(self, text: str) -> Path:
        """The path with symbolic links resolved. Raises ProtocolError for one outside the roots."""
        path = Path(text)
        real = path.resolve() if path.is_absolute() else None
        if real is None or "\0" in text or not any(real.is_relative_to(root) for root in self.roots):
            roots = ", ".join(str(root) for root in self.roots)
            raise ProtocolError(Code.PATH, f"{text[:200]}: use an absolute path under {roots}")
        return real

    async def _on_disk(self, act: Callable[..., Any], *args: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._disk, act, *args)

    async def _put(self, job: Job, *, keep: bool = True) -> None:
        """Store a job (on disk too, if `keep`) and report it."""
        self._jobs[job.number] = job
        if keep:
            await self._on_disk(self.store.save, job)
        for listener in list(self.listeners):
            listener(job)
        if keep:
            ended = [number for number, other in self._jobs.items() if other.ended]
            for number in ended[: max(0, len(ended) - KEPT)]:
                self._jobs.pop(number, None)
                await self._on_disk(self.store.forget, number)

    async def _work(self) -> None:
        while True:
            job = next((job for job in self._jobs.values() if job.state == "queued"), None)
            if job is None:
                self._news.clear()
                await self._news.wait()
                continue
            self._running = job.number
            try:
                await self._run(replace(job, state="running", attempts=job.attempts + 1, fraction=0.0))
            except (OSError, sqlite3.Error) as error:
                current = self._jobs[job.number]
                self._jobs[job.number] = replace(current, state="failed", text=str(error), seconds_left=None)
            finally:
                self._running = None

    async def _run(self, job: Job) -> None:
        await self._put(job)
        begun = time.monotonic()
        self._process = process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "stemprover.bridge.server.job_worker"),
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            limit=1 << 20,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stderr is not None
        order = {**job.as_dict(), "roots": [str(r) for r in self.roots], "device": self.device, "threads": self.threads}
        process.stdin.write(json.dumps(order).encode() + b"\n")
        if self._jobs[job.number].state != "running":  # cancelled while the process started
            await self._end_process()
            return
        complaints = asyncio.get_running_loop().create_task(process.stderr.read())
        while line := await process.stdout.readline():
            news = json.loads(line)
            current = self._jobs[job.number]
            if current.state != "running":
                continue
            done = (*current.done, news["done"]) if "done" in news else current.done
            fraction = float(news.get("fraction", current.fraction))
            spent = time.monotonic() - begun
            left = spent * (1.0 - fraction) / fraction if fraction > 0.02 else None
            stage, text = news.get("stage", current.stage), news.get("text", current.text)
            keep = done != current.done or text != current.text
            await self._put(
                replace(current, done=done, fraction=fraction, stage=stage, text=text, seconds_left=left), keep=keep
            )
        code = await process.wait()
        said = (await complaints).decode(errors="replace").strip().splitlines()
        current = self._jobs[job.number]
        if current.state == "running":
            state = "done" if code == 0 else "failed"
            text = current.text
            if code and not text:
                text = said[-1] if said else f"the process ended with {code}"
            fraction = 1.0 if code == 0 else current.fraction
            await self._put(replace(current, state=state, fraction=fraction, stage="", text=text, seconds_left=None))

    async def _end_process(self) -> None:
        process, self._process = self._process, None
        if process is None or process.returncode is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        try:
            await asyncio.wait_for(process.wait(), 5.0)
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                process.kill()

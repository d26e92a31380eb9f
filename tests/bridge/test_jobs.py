"""File jobs of the bridge: only in allowed folders, never over an input, and none is lost."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from bridges import Wire, running
from stemprover.bridge.osc import Code, Message
from stemprover.bridge.server.jobs import REPORTED, Job, Jobs, Store
from stemprover.bridge.server.transport import Bridge
from stemprover.engine.errors import StemProverError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "root"
    folder.mkdir()
    return folder


@contextlib.contextmanager
def bridge_with(root: Path) -> Iterator[Bridge]:
    with running(roots=(root,), jobs_file=root.parent / "state" / "jobs.sqlite", device="cpu") as bridge:
        yield bridge


def render(wire: Wire, source: Path | str, output: Path | str, mix: str = "", preset: str = "general") -> Message:
    return wire.ask("/job/render", "isssss", 5, str(source), mix, str(output), preset, "draft")


def wait(wire: Wire, number: str, wanted: Callable[[Message], bool], seconds: float = 90.0) -> Message:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        message = wire.receive()
        if message.address == "/job" and message.arguments[1] == number and wanted(message):
            return message
    raise AssertionError("no such message arrived")


def is_ended(message: Message) -> bool:
    return message.arguments[2] in ("done", "failed", "cancelled")


def make(path: Path, seconds: float = 1.0, seed: int = 0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    audio = 0.2 * np.random.default_rng(seed).standard_normal((round(seconds * 44100), 2))
    soundfile.write(path, audio, 44100, subtype="PCM_16")
    return path


def test_a_folder_is_rendered_and_its_progress_reported(root: Path) -> None:
    for name in ("a.wav", "deep/b.wav"):
        make(root / "stems" / name)
    with bridge_with(root) as bridge, Wire(bridge.port, timeout=90.0) as wire:
        queued = render(wire, root / "stems", root / "out")
        assert queued.address == "/job"
        assert queued.arguments[0] == 5
        number = queued.arguments[1]
        fractions = []

        def note(message: Message) -> bool:
            fractions.append(message.arguments[3])
            return is_ended(message)

        ended = wait(wire, number, note)
        assert ended.arguments[2:4] == ("done", 1.0)
        assert fractions == sorted(fractions)
        wire.send("/job/list", "i", 6)
        assert wire.receive().arguments[:3] == (6, number, "done")
    assert soundfile.info(root / "out" / "a.wav").frames == 44100
    assert soundfile.info(root / "out" / "deep" / "b.wav").frames == 44100
    assert not list(root.rglob("*.part"))


def test_paths_outside_the_roots_are_refused(root: Path, tmp_path: Path) -> None:
    inside = make(root / "a.wav")
    outside = make(tmp_path / "other" / "b.wav")
    (root / "link").symlink_to(tmp_path / "other")
    with bridge_with(root) as bridge, Wire(bridge.port) as wire:
        for source, output, mix in (
            (outside, root / "x.wav", ""),
            (inside, tmp_path / "x.wav", ""),
            (root / "link" / "b.wav", root / "x.wav", ""),
            (inside, root / "link" / "x.wav", ""),
            (inside, root / "x.wav", str(outside)),
            (root / ".." / "other" / "b.wav", root / "x.wav", ""),
            ("a.wav", root / "x.wav", ""),
            (root / "missing.wav", root / "x.wav", ""),
        ):
            error = render(wire, source, output, mix)
            assert error.address == "/error", (source, output)
            assert error.arguments[:2] == (5, Code.PATH)
        assert render(wire, inside, root / "x.wav", preset="nonesuch").arguments[1] == Code.ARGUMENTS
    assert not (tmp_path / "other" / "x.wav").exists()


def test_a_symbolic_link_out_of_the_roots_is_not_followed(root: Path, tmp_path: Path) -> None:
    make(root / "stems" / "a.wav")
    secret = make(tmp_path / "other" / "b.wav")
    (root / "stems" / "b.wav").symlink_to(secret)
    with bridge_with(root) as bridge, Wire(bridge.port, timeout=90.0) as wire:
        number = render(wire, root / "stems", root / "out").arguments[1]
        ended = wait(wire, number, is_ended)
        assert ended.arguments[2] == "failed"
        assert "outside the allowed folders" in ended.arguments[6]
    assert (root / "out" / "a.wav").exists()
    assert not (root / "out" / "b.wav").exists()


def test_an_input_is_never_overwritten(root: Path) -> None:
    source = make(root / "a.wav")
    before = source.read_bytes()
    with bridge_with(root) as bridge, Wire(bridge.port, timeout=90.0) as wire:
        number = render(wire, source, source).arguments[1]
        ended = wait(wire, number, is_ended)
        assert ended.arguments[2] == "failed"
        assert "a.wav" in ended.arguments[6]
    assert source.read_bytes() == before


def test_a_job_can_be_cancelled(root: Path) -> None:
    make(root / "long.wav", 90.0)
    with bridge_with(root) as bridge, Wire(bridge.port, timeout=90.0) as wire:
        number = render(wire, root / "long.wav", root / "out.wav").arguments[1]
        wait(wire, number, lambda message: message.arguments[2] == "running" and message.arguments[3] > 0.0)
        wire.send("/job/cancel", "is", 8, number)
        assert wait(wire, number, is_ended).arguments[2] == "cancelled"
        assert wire.ask("/job/cancel", "is", 8, "nonesuch").arguments[:2] == (8, Code.JOB)
        time.sleep(0.5)
    assert not (root / "out.wav").exists()
    assert not list(root.glob(".*.part"))


def test_a_job_resumes_after_the_bridge_was_killed(root: Path) -> None:
    """The job file of a bridge that was killed in the middle of a job: one file is done, one is not."""
    for name in ("a.wav", "b.wav"):
        make(root / "stems" / name)
    make(root / "out" / "a.wav", 0.1)
    finished = (root / "out" / "a.wav").read_bytes()
    store = Store(root.parent / "state" / "jobs.sqlite")
    store.save(
        Job(
            "cafe", str(root / "stems"), "", str(root / "out"), "general", "draft", state="running", fraction=0.5,
            created=1.0, attempts=1, done=(str(root / "out" / "a.wav"),),
        )
    )  # fmt: skip
    store.close()
    with bridge_with(root) as bridge, Wire(bridge.port, timeout=90.0) as wire:
        wire.send("/job/list", "i", 6)
        assert wait(wire, "cafe", is_ended).arguments[2] == "done"
    assert (root / "out" / "a.wav").read_bytes() == finished, "a finished file must not be rendered again"
    assert (root / "out" / "b.wav").exists()
    assert [job.state for job in Store(root.parent / "state" / "jobs.sqlite").load()] == ["done"]


def test_a_worker_that_dies_fails_its_job_and_the_next_one_runs(root: Path) -> None:
    make(root / "long.wav", 90.0)
    with bridge_with(root) as bridge, Wire(bridge.port, timeout=90.0) as wire:
        number = render(wire, root / "long.wav", root / "out.wav").arguments[1]
        wait(wire, number, lambda message: message.arguments[2] == "running" and message.arguments[3] > 0.0)
        os.kill(bridge.call(lambda: bridge.registry.jobs._process.pid), signal.SIGKILL)
        assert wait(wire, number, is_ended).arguments[2] == "failed"
        make(root / "short.wav")
        number = render(wire, root / "short.wav", root / "next.wav").arguments[1]
        assert wait(wire, number, is_ended).arguments[2] == "done"


def test_without_roots_jobs_are_refused(root: Path) -> None:
    with running() as bridge, Wire(bridge.port) as wire:
        error = render(wire, root, root)
        assert error.arguments[:2] == (5, Code.JOB)
        assert "--root" in error.arguments[3]


def test_an_unusable_jobs_file_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a database, but long enough to look like one" * 50)
    with pytest.raises(StemProverError, match="--jobs-file"):
        Store(tmp_path / "text")


def test_the_status_lists_unfinished_jobs_and_those_that_ended_last(tmp_path: Path) -> None:
    store = Store(tmp_path / "jobs.sqlite")
    states = ["queued", *["done"] * REPORTED, "running", *["failed"] * 20]
    for number, state in enumerate(states):
        store.save(Job(f"{number:03d}", "a", "", "b", "general", "draft", state=state, created=float(number)))
    reported = Jobs(store, (tmp_path,)).recent()
    assert [job.number for job in reported if not job.ended] == ["000", f"{REPORTED + 1:03d}"]
    assert [job.number for job in reported if job.ended] == [
        f"{number:03d}" for number, state in enumerate(states) if state in ("done", "failed")
    ][-REPORTED:]
    store.close()


def test_a_full_disk_fails_the_job_and_leaves_no_files_behind(root: Path) -> None:
    """A limit on the size of files, which the job's process inherits, has the same effect as a full disk."""
    resource = pytest.importorskip("resource")
    make(root / "a.wav", 4.0)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        with bridge_with(root) as bridge, Wire(bridge.port, timeout=90.0) as wire:
            resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, before[1]))
            number = render(wire, root / "a.wav", root / "out.wav").arguments[1]
            ended = wait(wire, number, is_ended)
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            assert ended.arguments[2] == "failed"
            assert "out.wav" in ended.arguments[6]
            number = render(wire, root / "a.wav", root / "out.wav").arguments[1]
            assert wait(wire, number, is_ended).arguments[2] == "done"
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, ignored)
    assert {path.name for path in root.iterdir()} == {"a.wav", "out.wav"}

"""Fixtures for all tests."""

from __future__ import annotations

import fcntl
import hashlib
import os
import signal
import sys
import tempfile
from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
from fakes import FakeRepairer

REAL_TIME = ("bridge", "plugin")
MOST_SESSIONS = 24


@pytest.hookimpl(tryfirst=True)  # pytest-xdist reads the groups in its own hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Group tests for pytest-xdist: all real-time tests in one process, so that they do not disturb each other, and the
    others by file."""
    here = Path(__file__).parent
    for item in items:
        place = item.path.relative_to(here)
        together = "real time" if place.parts[0] in REAL_TIME else str(place)
        item.add_marker(pytest.mark.xdist_group(together))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
    """A test marked as quiet runs alone, even if other processes run tests."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        return (yield)
    from quiet import turn

    with turn(alone=item.get_closest_marker("quiet") is not None):
        return (yield)


@pytest.fixture(autouse=True)
def no_user_presets(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Hides the presets of the user who runs the tests. Returns the empty folder used instead."""
    folder = tmp_path_factory.mktemp("user-presets")
    monkeypatch.setenv("STEMPROVER_PRESETS", str(folder))
    return folder


@pytest.fixture(autouse=True, scope="session")
def shared_sessions() -> Iterator[None]:
    """Loads a graph once in a process: most tests use the same few, and an ONNX Runtime session keeps no state."""
    import onnxruntime

    load = onnxruntime.InferenceSession
    kept: OrderedDict[tuple[object, ...], object] = OrderedDict()

    def session(graph: bytes | str, options: Any = None, providers: Any = None) -> object:
        if not isinstance(graph, bytes):
            return load(graph, options, providers=providers)
        key = hashlib.sha256(graph).digest(), options.intra_op_num_threads, str(providers)
        if key not in kept:
            kept[key] = load(graph, options, providers=providers)
        kept.move_to_end(key)
        if len(kept) > MOST_SESSIONS:
            kept.popitem(last=False)
        return kept[key]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(onnxruntime, "InferenceSession", session)
        yield


@pytest.fixture
def make_audio(tmp_path: Path) -> Callable[..., Path]:
    """Writes an audio file of noise. levels: samples (C, T) to write instead."""

    def make(
        name: str = "stem.wav", *, seconds: float = 0.5, rate: int = 44100, channels: int = 2, subtype: str = "PCM_16",
        container: str | None = None, levels: np.ndarray | None = None, seed: int = 0,
    ) -> Path:  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if levels is None:
            rng = np.random.default_rng(seed)
            levels = (0.3 * rng.standard_normal((channels, round(seconds * rate)))).clip(-1, 0.99).astype(np.float32)
        soundfile.write(path, levels.T, rate, subtype=subtype, format=container)
        return path

    return make


@dataclass(frozen=True)
class CliResult:
    """A command's exit code and what it printed."""

    code: int
    out: str
    err: str


@pytest.fixture
def run_cli(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Callable[..., CliResult]:
    """Runs the command line in this process. repairer: used instead of the model."""
    from stemprover import cli

    def run(*arguments: object, repairer: FakeRepairer | None = None) -> CliResult:
        if repairer is not None:
            monkeypatch.setattr(cli.options, "make_repairer", lambda preset, **options: repairer)
        monkeypatch.setattr(sys, "argv", ["stemprover", *map(str, arguments)])
        before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGHUP)}
        code = 0
        try:
            cli.main()
        except SystemExit as end:
            code = end.code if isinstance(end.code, int) else 0 if end.code is None else 1
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
        captured = capfd.readouterr()
        return CliResult(code, captured.out, captured.err)

    return run


@pytest.fixture
def as_plain_user() -> Iterator[Path]:
    """Drops root's rights, since root may write anywhere. Yields a folder that everyone may write to."""
    folder = Path(tempfile.mkdtemp(prefix="stemprover-"))
    folder.chmod(0o777)
    was = os.geteuid()
    if was == 0:
        os.seteuid(65534)
    try:
        yield folder
    finally:
        os.seteuid(was)
        for path in [folder, *folder.rglob("*")]:
            if path.is_dir():
                path.chmod(0o777)
        import shutil

        shutil.rmtree(folder)


@pytest.fixture(scope="session")
def lively_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported small network with random weights, which changes the audio."""
    return exported("lively", tmp_path_factory)


@pytest.fixture(scope="session")
def untrained_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An exported small network as it is before training."""
    return exported("untrained", tmp_path_factory)


def exported(name: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundle of a network in models.py, exported once for all processes of a run."""
    place = tmp_path_factory.getbasetemp()
    folder = (place.parent if "PYTEST_XDIST_WORKER" in os.environ else place) / f"{name}-bundle"
    with folder.with_suffix(".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not folder.exists():
            import models
            from stemprover.export.bundle import write_bundle

            net = models.lively_net() if name == "lively" else models.untrained_net()
            scale = np.linspace(0.5, 2.0, 84) if name == "lively" else np.ones(84)
            part = Path(tempfile.mkdtemp(dir=folder.parent))
            assert write_bundle(net, scale.astype(np.float32), part).ok
            part.rename(folder)
    return folder

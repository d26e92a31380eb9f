"""Standard output and standard error may be full, closed or gone: the work goes on, and no traceback appears."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

TESTS = Path(__file__).parents[1]
PROGRAM = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from fakes import FakeRepairer
from stemprover import cli
pause_s = float(sys.argv.pop(1))
cli.options.make_repairer = lambda preset, **options: FakeRepairer(pause_s=pause_s)
cli.main()
"""


def command(*arguments: object, pause_s: float = 0.0) -> list[str]:
    return [sys.executable, "-c", PROGRAM, str(TESTS), str(pause_s), *map(str, arguments)]


@pytest.fixture
def stems(make_audio: Callable[..., Path], tmp_path: Path) -> list[Path]:
    """Two stems, and between them a file that gives an error."""
    (tmp_path / "bad.wav").write_bytes(b"not audio")
    return [make_audio("a.wav"), tmp_path / "bad.wav", make_audio("b.wav")]


@pytest.mark.parametrize("redirection", [">/dev/full", "2>/dev/full", ">/dev/full 2>&1", ">&-", "2>&-", ">&- 2>&- <&-"])
def test_streams_that_cannot_be_written_do_not_stop_the_work(
    stems: list[Path], tmp_path: Path, redirection: str
) -> None:
    line = f'"$@" {redirection}'
    out = tmp_path / "out"
    done = subprocess.run(
        ["sh", "-c", line, "sh", *command("repair", *stems, "-o", out)], capture_output=True, text=True, timeout=60
    )
    assert "Traceback" not in done.stderr + done.stdout
    assert "Exception ignored" not in done.stderr
    assert done.returncode == 2, "one input is no audio"
    assert {"a.wav", "b.wav"} <= set(os.listdir(out))


def test_a_reader_that_goes_away_does_not_stop_the_work(stems: list[Path], tmp_path: Path) -> None:
    out = tmp_path / "out"
    with subprocess.Popen(
        command("repair", *stems, "-o", out, pause_s=0.2), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        text = process.stderr.read().decode()
    assert process.returncode == 2
    assert "Traceback" not in text
    assert "Exception ignored" not in text
    assert {"a.wav", "b.wav"} <= set(os.listdir(out))


def test_what_nohup_ignores_stays_ignored(make_audio: Callable[..., Path], tmp_path: Path) -> None:
    source = make_audio(seconds=3, rate=8000)
    line = 'trap "" HUP; exec "$@"'
    arguments = command("repair", source, "-o", tmp_path / "out" / "a.wav", pause_s=0.3)
    with subprocess.Popen(["sh", "-c", line, "sh", *arguments]) as process:
        while not list((tmp_path / "out").glob(".*.part")):
            assert process.poll() is None
            time.sleep(0.02)
        process.send_signal(signal.SIGHUP)
        assert process.wait(timeout=30) == 0
    assert (tmp_path / "out" / "a.wav").exists()

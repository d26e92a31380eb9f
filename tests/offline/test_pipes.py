"""Standard input, pipes and process substitution are read like files; terminals, devices and endless text are not."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import soundfile
from stemprover.engine.errors import AudioFileError, OutputExistsError
from stemprover.offline import pipes
from stemprover.offline.outfile import atomic_output, check_output
from stemprover.offline.pipes import regular_files

TESTS = Path(__file__).parents[1]
PROGRAM = """
import sys
sys.path.insert(0, sys.argv.pop(1))
from fakes import FakeRepairer
from stemprover import cli
cli.options.make_repairer = lambda preset, **options: FakeRepairer(gain=0.0, mix_gain=1.0)
cli.main()
"""


def shell(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    """Run a line of bash in which `repair` is the command with a repairer that returns the mix."""
    start = f"repair() {{ {sys.executable} -c '{PROGRAM}' {TESTS} repair \"$@\"; }}; "
    environment = {**os.environ, "TMPDIR": str(folder / "tmp")}
    (folder / "tmp").mkdir(exist_ok=True)
    done = subprocess.run(
        ["bash", "-c", start + line], cwd=folder, env=environment, capture_output=True, text=True, timeout=60
    )
    assert os.listdir(folder / "tmp") == [], "temporary files are deleted"
    assert "Traceback" not in done.stderr
    return done


@pytest.fixture
def song(make_audio: Callable[..., Path], tmp_path: Path) -> Path:
    """The mix of a.wav in the same folder; both take more than a pipe holds."""
    rng = np.random.default_rng(0)
    one, other = 0.1 * rng.standard_normal((2, 2, 10 * 44100)).astype(np.float32)
    make_audio("a.wav", levels=one)
    return make_audio("song.wav", levels=one + other)


@pytest.mark.parametrize(
    "line",
    [
        "cat a.wav | repair /dev/stdin -o out.wav --mix song.wav --preset general",
        "cat a.wav | repair - -o out.wav --mix song.wav --preset general",
        "repair <(cat a.wav) -o out.wav --mix <(cat song.wav) --preset general",
        "repair a.wav -o out.wav --mix /dev/stdin --preset general < song.wav",
        "mkfifo f; cat a.wav > f & repair f -o new/../out.wav --mix song.wav --preset general",
    ],
)
def test_pipes_are_read_like_files(song: Path, tmp_path: Path, line: str) -> None:
    done = shell(line, tmp_path)
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(soundfile.read(tmp_path / "out.wav")[0], soundfile.read(song)[0])
    assert tempfile.gettempdir() + os.sep not in done.stdout, "the temporary file's name is not shown"
    for name in ("/dev/stdin", "/dev/fd/", "f -> "):
        assert name not in line or name in done.stdout or "--mix /dev" in line


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("true | repair /dev/stdin -o out.wav", "/dev/stdin: the file is empty (0 bytes)"),
        ("head -c 9000 a.wav | repair /dev/stdin -o out.wav", "/dev/stdin is cut off"),
        ("yes | repair /dev/stdin -o out.wav", "/dev/stdin is not readable audio; use WAV or FLAC"),
        ("cat /dev/urandom | repair a.wav --mix /dev/stdin -o out.wav", "/dev/stdin is not readable audio"),
        ("repair /dev/zero -o out.wav", "/dev/zero is a terminal or a device; name a file, or pipe one in"),
        ("cat a.wav | repair /dev/stdin -o out/", "/dev/stdin has no name that its result in out/ could get"),
    ],
)
def test_what_cannot_be_read_gives_one_line(song: Path, tmp_path: Path, line: str, message: str) -> None:
    done = shell(line, tmp_path)
    assert done.returncode == 2
    assert f"Error: {message}" in done.stderr
    assert len([text for text in done.stderr.splitlines() if not text.startswith("Note")]) == 1
    assert not (tmp_path / "out.wav").exists()


def test_analyze_and_compare_read_pipes(song: Path, tmp_path: Path) -> None:
    program = f"{sys.executable} -m stemprover"
    for line in ("cat a.wav | {} analyze - --mix <(cat song.wav)", "cat a.wav | {} compare - a.wav"):
        done = subprocess.run(["bash", "-c", line.format(program)], cwd=tmp_path, capture_output=True, text=True)
        assert done.returncode == 0, done.stderr
        assert "stemprover-" not in done.stdout + done.stderr


def test_a_pipe_that_does_not_fit_on_the_disk_is_refused(
    song: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = tmp_path / "fifo"
    os.mkfifo(place)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: shutil._ntuple_diskusage(1 << 30, 1 << 30, 1000))

    def feed() -> None:
        with place.open("wb") as pipe, pytest.raises(BrokenPipeError):
            while True:
                pipe.write(song.read_bytes())

    feeder = threading.Thread(target=feed)
    feeder.start()
    message = r"fifo does not fit into .*: 1 MB were read; set TMPDIR"
    with pytest.raises(AudioFileError, match=message), regular_files([place]):
        pass
    feeder.join(10)
    assert not feeder.is_alive()


def test_files_folders_and_missing_files_stay_as_they_are(song: Path, tmp_path: Path) -> None:
    with regular_files([song, tmp_path, tmp_path / "none", None]) as found:
        assert found == {}


def test_the_same_pipe_is_read_once(song: Path, tmp_path: Path) -> None:
    done = shell("cat song.wav | repair - -o out.wav --mix - --preset general", tmp_path)
    assert done.returncode == 0, done.stderr
    assert song.stat().st_size > pipes._PIECE_BYTES


@pytest.mark.parametrize("kind", ["fifo", "device"])
def test_no_output_replaces_a_pipe_or_a_device(tmp_path: Path, kind: str) -> None:
    target = tmp_path / "out"
    if kind == "fifo":
        os.mkfifo(target)
    else:
        target.symlink_to("/dev/null")
    with pytest.raises(OutputExistsError, match="is a device or a pipe; name a file"):
        check_output(target, (), overwrite=True)


def test_a_long_name_of_wide_letters_can_be_written(tmp_path: Path) -> None:
    target = tmp_path / ("音" * 80 + ".wav")
    with atomic_output(target, (), overwrite=False) as part:
        part.write_bytes(b"x")
    assert target.read_bytes() == b"x"

"""No half-written file under the final name, no input lost, and clear messages for the system's errors."""

import os
import re
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fakes import FakeRepairer
from stemprover.engine.errors import OutputError, OutputExistsError
from stemprover.offline import formats
from stemprover.offline.outfile import atomic_output
from stemprover.offline.render import render_file

TESTS = Path(__file__).parents[1]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_an_existing_output_is_only_replaced_with_overwrite(make_audio, tmp_path):
    source = make_audio()
    (tmp_path / "out.wav").write_bytes(b"precious")
    with pytest.raises(OutputExistsError, match=r"out.wav already exists; choose another output or add --overwrite"):
        render_file(source, tmp_path / "out.wav", FakeRepairer())
    assert (tmp_path / "out.wav").read_bytes() == b"precious"
    render_file(source, tmp_path / "out.wav", FakeRepairer(), overwrite=True)
    assert soundfile.info(tmp_path / "out.wav").frames == 22050


@pytest.mark.parametrize("how", ["itself", "symlink", "hardlink", "dots", "mix"])
def test_an_input_is_never_replaced(make_audio, tmp_path, how):
    source, song = make_audio(), make_audio("song.wav")
    contents = [source.read_bytes(), song.read_bytes()]
    target = {"itself": source, "mix": song, "dots": tmp_path / "x" / ".." / "stem.wav"}.get(how, tmp_path / "out.wav")
    (tmp_path / "x").mkdir()
    if how == "symlink":
        target.symlink_to(source)
    if how == "hardlink":
        target.hardlink_to(source)
    with pytest.raises(OutputExistsError, match="is an input and is never overwritten; choose another output"):
        render_file(source, target, FakeRepairer(), mix=song, overwrite=True)
    assert [source.read_bytes(), song.read_bytes()] == contents


def test_a_folder_is_refused_as_the_output_file(make_audio, tmp_path):
    (tmp_path / "out.wav").mkdir()
    with pytest.raises(OutputExistsError, match="is a folder; name a file in it"):
        render_file(make_audio(), tmp_path / "out.wav", FakeRepairer(), overwrite=True)


def test_a_missing_output_folder_is_refused(make_audio, tmp_path):
    with pytest.raises(OutputError, match=rf"the folder {tmp_path}/no does not exist; create it first"):
        render_file(make_audio(), tmp_path / "no" / "out.wav", FakeRepairer())


def test_an_output_folder_without_write_permission_is_refused(make_audio, as_plain_user):
    folder = as_plain_user / "locked"
    folder.mkdir()
    source = as_plain_user / "stem.wav"
    soundfile.write(source, np.zeros(100), 44100)
    folder.chmod(0o555)
    with pytest.raises(OutputError, match=r"out.wav cannot be written: no write permission; choose another folder"):
        render_file(source, folder / "out.wav", FakeRepairer())
    folder.chmod(0o755)
    assert names(folder) == []


@pytest.fixture
def mounted(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A small RAM disk; skips the test where mounting one is not allowed."""
    folder = tmp_path / "disk"
    folder.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(folder)]
    if os.geteuid() != 0 or subprocess.run(command, capture_output=True).returncode != 0:
        pytest.skip("mounting a tmpfs is not allowed here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def test_a_read_only_disk_is_refused(make_audio, mounted):
    subprocess.run(["mount", "-o", "remount,ro", str(mounted)], check=True)
    with pytest.raises(OutputError, match="cannot be written: the disk is read-only; choose another folder"):
        render_file(make_audio(), mounted / "out.wav", FakeRepairer())


def test_a_disk_that_is_too_small_is_refused_before_any_work(make_audio, mounted):
    fake = FakeRepairer()
    with pytest.raises(OutputError, match=r"the disk is full: 0.5 MB are needed and 0.3 MB are free; free some space"):
        render_file(make_audio(seconds=3), mounted / "out.wav", fake)
    assert not fake.seen
    assert names(mounted) == []


@pytest.mark.parametrize("name", ["a.flac", "a.ogg", "a.mp3", "f.wav", "i.wav", "tagged.flac"])
def test_a_disk_that_fills_up_during_the_repair_is_reported(make_audio, mounted, name, monkeypatch):
    monkeypatch.setattr(formats, "_estimated_bytes", lambda *_: 0)
    subtype = {"f.wav": "FLOAT", "i.wav": "PCM_24"}.get(name)
    source = make_audio(name, seconds=30 if name[0] == "a" else 1.2, subtype=subtype)
    if name == "tagged.flac":
        import mutagen.flac

        source = make_audio(name, seconds=0.1)
        tags = mutagen.flac.FLAC(source)
        tags["comment"] = "x" * 400_000
        tags.save()
    with pytest.raises(OutputError, match="cannot be written: the disk is full; free some space"):
        render_file(source, mounted / f"out{source.suffix}", FakeRepairer())
    assert names(mounted) == []


@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
def test_a_limit_on_file_sizes_is_reported(make_audio, tmp_path, subtype):
    source = make_audio(seconds=3, subtype=subtype)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OutputError, match="out.wav cannot be written"):
            render_file(source, tmp_path / "out.wav", FakeRepairer())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert names(tmp_path) == ["stem.wav"]


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, ValueError, MemoryError])
def test_any_exception_removes_the_part_file_and_keeps_the_target(tmp_path, error):
    target = tmp_path / "out.wav"
    target.write_bytes(b"old")
    with pytest.raises(error), atomic_output(target, (), overwrite=True) as part:
        part.write_bytes(b"half")
        raise error
    assert names(tmp_path) == ["out.wav"]
    assert target.read_bytes() == b"old"


def test_the_part_file_is_hidden_next_to_the_target(tmp_path):
    with atomic_output(tmp_path / ("n" * 240 + ".wav"), (), overwrite=False) as part:
        assert part.parent == tmp_path
        assert re.fullmatch(r"\.n{80}\.[0-9a-f]{8}\.part", part.name)


def test_an_output_created_in_the_meantime_is_kept(tmp_path):
    target = tmp_path / "out.wav"
    with pytest.raises(OutputExistsError), atomic_output(target, (), overwrite=False) as part:
        part.write_bytes(b"new")
        target.write_bytes(b"theirs")
    assert target.read_bytes() == b"theirs"
    assert names(tmp_path) == ["out.wav"]


def test_a_result_that_was_cut_off_without_an_error_is_detected(make_audio, tmp_path, monkeypatch):
    from stemprover.offline import render

    def lose_the_end(info, part, subtype):
        part.write_bytes(part.read_bytes()[:-1000])
        return ""

    monkeypatch.setattr(render, "copy_tags", lose_the_end)
    with pytest.raises(OutputError, match=r"was not written completely \(.*1000 bytes are missing.*check the disk"):
        render_file(make_audio(), tmp_path / "out.wav", FakeRepairer())
    assert names(tmp_path) == ["stem.wav"]


SLOW_REPAIR = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # background processes inherit an ignored SIGINT
signal.signal(signal.SIGHUP, signal.SIG_DFL)  # and those of nohup an ignored SIGHUP
sys.path.insert(0, sys.argv.pop(1))
from fakes import FakeRepairer
from stemprover import cli
cli.options.make_repairer = lambda preset, **options: FakeRepairer(pause_s=0.2)
cli.main()
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGKILL])
@pytest.mark.parametrize("existing", [True, False])
def test_a_killed_repair_leaves_nothing_under_the_final_name(make_audio, tmp_path, number, existing):
    source = make_audio(seconds=60, rate=8000)
    folder = tmp_path / "out"
    folder.mkdir()
    target = folder / "out.wav"
    if existing:
        target.write_bytes(b"old")
    command = [sys.executable, "-c", SLOW_REPAIR, str(TESTS), "repair", str(source), "-o", str(target), "--overwrite"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        started_s = time.monotonic()
        while not any(p.name.endswith(".part") and p.stat().st_size > 50_000 for p in folder.iterdir()):
            assert process.poll() is None, process.stderr.read().decode()
            assert time.monotonic() - started_s < 30
            time.sleep(0.02)
        process.send_signal(number)
        process.wait(timeout=20)
        stderr = process.stderr.read().decode()
    assert process.returncode != 0
    assert "Traceback" not in stderr
    left = names(folder)
    if number == signal.SIGKILL:
        assert len([name for name in left if name.endswith(".part")]) == 1, "SIGKILL leaves no time to clean up"
        left = [name for name in left if not name.endswith(".part")]
    assert left == (["out.wav"] if existing else [])
    if existing:
        assert target.read_bytes() == b"old"

"""Files that cannot be used are refused before any work, with one line that says what is wrong and what to do."""

import struct
from pathlib import Path

import numpy as np
import pytest
import soundfile
from fakes import FakeRepairer
from stemprover.engine.errors import AudioFileError
from stemprover.offline.audiofile import AudioReader, check_finite, clock, probe
from stemprover.offline.render import render_file
from stemprover.offline.riff import read_chunks


def refused(path: Path, message: str) -> None:
    """Check that repairing `path` raises AudioFileError in one line with the file's name and leaves nothing behind."""
    before = sorted(path.parent.iterdir()) if path.parent.is_dir() else []
    with pytest.raises(AudioFileError, match=message) as caught:
        render_file(path, path.parent / "out.wav", FakeRepairer())
    assert str(caught.value).startswith((f"{path}: ", f"{path} "))
    assert "\n" not in str(caught.value)
    assert (sorted(path.parent.iterdir()) if path.parent.is_dir() else []) == before


@pytest.mark.parametrize("name", ["song.wav", "song.mp3", "song.flac", "song.ogg", "song.raw", "song"])
@pytest.mark.parametrize("content", [b"Dear diary,\n" * 500, bytes(range(256)) * 40, bytes(5000), b"x"])
def test_files_that_are_not_audio_are_refused(tmp_path, name, content):
    (tmp_path / name).write_bytes(content)
    refused(tmp_path / name, "is not a readable audio file.*; use WAV or FLAC")


@pytest.mark.parametrize("name", ["song.wav", "song.mp3", "song.flac"])
def test_an_empty_file_is_refused(tmp_path, name):
    (tmp_path / name).touch()
    refused(tmp_path / name, r"the file is empty \(0 bytes\)")


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    refused(tmp_path / "nothing.wav", "there is no such file")
    (tmp_path / "folder.wav").mkdir()
    refused(tmp_path / "folder.wav", "is a folder, not an audio file")


def test_a_file_without_read_permission_is_refused(as_plain_user):
    path = as_plain_user / "a.wav"
    soundfile.write(path, np.zeros(100), 44100)
    path.chmod(0)
    refused(path, r"cannot be read \(Permission denied\)")


@pytest.mark.parametrize("name", ["a.wav", "a.flac", "a.aiff", "a.ogg", "a.caf", "a.w64"])
def test_a_file_with_zero_samples_is_refused(make_audio, name):
    refused(make_audio(name, levels=np.zeros((2, 0)), subtype=None), r"(contains no audio|the file is empty) \(0 ")


@pytest.mark.parametrize("share", [0.3, 0.9, 0.999])
@pytest.mark.parametrize(
    ("name", "subtype"),
    [("a.wav", "PCM_16"), ("a.wav", "FLOAT"), ("a.wav", "DOUBLE"), ("a.aiff", "PCM_24"), ("a.flac", "PCM_16"),
     ("a.ogg", "VORBIS"), ("a.w64", "PCM_16"), ("a.caf", "PCM_16"), ("a.rf64", "PCM_16"), ("a.mp3", "MPEG_LAYER_III"),
     ("a.au", "PCM_16")],
)  # fmt: skip
def test_truncated_files_are_refused(make_audio, name, subtype, share):
    container = "RF64" if name == "a.rf64" else None
    path = make_audio(name, subtype=subtype, seconds=3, container=container)
    content = path.read_bytes()
    path.write_bytes(content[: int(len(content) * share)])
    refused(path, "is cut off|is not a readable audio file")


@pytest.mark.parametrize("subtype", ["PCM_16", "FLOAT"])
def test_a_wav_header_of_unknown_length_as_written_to_a_pipe_is_read_to_its_end(make_audio, tmp_path, subtype):
    path = make_audio(subtype=subtype)
    content = bytearray(path.read_bytes())
    place = content.index(b"data")
    content[4:8] = content[place + 4 : place + 8] = struct.pack("<I", 0xFFFF_FFFF)
    path.write_bytes(content)
    render_file(path, tmp_path / "out.wav", FakeRepairer())
    assert soundfile.info(tmp_path / "out.wav").frames == 22050


def test_damage_in_the_middle_of_a_file_is_reported(make_audio):
    path = make_audio("a.flac", seconds=10)
    content = bytearray(path.read_bytes())
    half = len(content) // 2
    content[half : half + 4000] = bytes(4000)
    path.write_bytes(content)
    refused(path, r"(cannot be read beyond|is cut off or damaged: it ends at) 0:0")


def test_an_rf64_header_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.wav"
    path.write_bytes(b"RF64" + b"\xff" * 4 + b"WAVE" + b"ds64" + struct.pack("<I", 4) + bytes(4))
    found = read_chunks(path)
    assert found is not None
    assert [chunk.name for chunk in found.chunks] == [b"ds64"]
    with pytest.raises(AudioFileError, match="is not a readable audio file"):
        probe(path)


@pytest.mark.parametrize("subtype", ["FLOAT", "DOUBLE"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("sample", [0, 70_000, 88_199])
def test_non_finite_samples_are_refused_with_their_position(make_audio, subtype, value, sample):
    levels = np.zeros((2, 88_200))
    levels[1, sample] = value
    levels[0, min(sample + 3, 88_199)] = value
    path = make_audio(levels=levels, subtype=subtype)
    where = {0: "0:00.000", 70_000: "0:01.587", 88_199: "0:02.000"}[sample]
    refused(path, rf"has a non-finite sample \(NaN or infinite\) at {where} \(sample {sample}\)")


def test_doubles_beyond_float32_count_as_infinite(make_audio):
    levels = np.zeros((1, 100))
    levels[0, 7] = 1e300
    with pytest.raises(AudioFileError, match="sample 7"):
        check_finite(probe(make_audio(levels=levels, subtype="DOUBLE")))


def test_the_mix_is_checked_as_well(make_audio, tmp_path):
    stem = make_audio("stem.wav", seconds=1)
    levels = np.zeros((2, 44100), np.float32)
    levels[0, 4410] = np.nan
    song = make_audio("song.wav", levels=levels, subtype="FLOAT")
    with pytest.raises(AudioFileError, match=r"song.wav has a non-finite sample .* at 0:00.100"):
        render_file(stem, tmp_path / "out.wav", FakeRepairer(), mix=song)
    with pytest.raises(AudioFileError, match=r"none.wav: there is no such file"):
        render_file(stem, tmp_path / "out.wav", FakeRepairer(), mix=tmp_path / "none.wav")


@pytest.mark.parametrize("subtype", ["PCM_U8", "DOUBLE"])
def test_8_bit_and_64_bit_float_files_keep_their_format(make_audio, tmp_path, subtype):
    source = make_audio(subtype=subtype)
    render_file(source, tmp_path / "out.wav", FakeRepairer(gain=0.5))
    assert soundfile.info(tmp_path / "out.wav").subtype == subtype


def test_blocks_of_any_size_add_up_to_the_file(make_audio):
    path = make_audio(seconds=2, subtype="FLOAT")
    for block in (1000, 44100, 100_000):
        with AudioReader(probe(path)) as reader:
            read = np.concatenate(list(reader.blocks(block)), axis=1)
        np.testing.assert_array_equal(read, soundfile.read(path, dtype="float32")[0].T)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00.000"), (59.9996, "1:00.000"), (62.3456, "1:02.346"), (3600, "1:00:00.000"), (3661.5, "1:01:01.500")],
)
def test_times_are_shown_in_minutes_and_seconds(seconds, text):
    assert clock(seconds) == text
